import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.demo.needs_game import needs_game
from vatt.errors import DataError
from vatt_demo.game import Buttons, Game, clean_messages
from vatt_demo.maps import WADS, maps_of


def test_messages_are_the_games_own_without_codes_or_console_chatter():
    raw = "\x1cDPicked up a clip.\x1c-\nStarting MIDI playback failed\nBuddha mode ON\n\x07Ouch!\n"
    assert clean_messages(raw) == ("Picked up a clip.", "Ouch!")


@pytest.fixture(scope="module")
def game():
    game = Game(WADS[1])
    yield game
    game.close()


def played(game: Game, number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    one = [one for one in maps_of("train") if one.wad == WADS[1]][number]
    game.start(one, seed)
    frames = [game.step(Buttons(attack=i % 5 == 0, forward=9, turn=1)) for i in range(12)]
    known = [frame for frame in frames if frame is not None]
    return np.stack([one.pixels for one in known]), np.stack([one.waveform for one in known])


@needs_game
def test_same_map_seed_and_buttons_play_the_same_whatever_was_played_before(game):
    first = played(game, 1, seed=5)
    played(game, 2, seed=6)
    again = played(game, 1, seed=5)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], played(game, 2, seed=5)[0])


@needs_game
def test_a_spectre_in_view_looks_the_same_each_time(game):
    def watched() -> np.ndarray:
        game.start([one for one in maps_of("train") if one.wad == WADS[1]][1], seed=5)
        game.console("notarget")
        game.console("summon Spectre")
        frames = [game.step() for _ in range(12)]
        return np.stack([frame.pixels for frame in frames if frame is not None])

    np.testing.assert_array_equal(watched(), watched())


@needs_game
def test_turning_unseen_keeps_the_angle_known(game):
    played(game, 1, seed=5)
    before = game.angle
    game.turn(70)
    frame = game.step(tics=1)
    assert frame is not None
    assert (before - frame.angle) % 360 == pytest.approx(70, abs=0.01)


@needs_game
def test_nothing_is_left_in_the_folder_where_it_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Game(WADS[0]).close()
    assert list(tmp_path.iterdir()) == []


@needs_game
def test_missing_sound_library_is_an_error_that_says_what_to_install(tmp_path):
    (tmp_path / "libopenal.so.1").touch()  # found first, and no library
    code = f"from vatt_demo.game import Game; Game({WADS[0]!r})"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode != 0
    assert "libopenal1" in ran.stderr


def children() -> set[int]:
    stats = [path.read_text() for path in Path("/proc").glob("[0-9]*/stat")]
    parents = {int(stat.split()[0]): int(stat.rsplit(")", 1)[1].split()[1]) for stat in stats}
    return {child for child, parent in parents.items() if parent == os.getpid()}


@needs_game
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds the engine's process in /proc")
def test_a_game_that_dies_is_an_error_not_a_hang():
    others = children()
    game = Game(WADS[0])
    try:
        (engine,) = children() - others
        os.kill(engine, 9)
        with pytest.raises(DataError, match="stopped unexpectedly"):
            game.step()
    finally:
        game.close()
