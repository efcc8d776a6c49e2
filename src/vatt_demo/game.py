"""ViZDoom set up for recording: one step is one frame and its audio.

The game runs in PLAYER mode, where it waits for each step's buttons, so what is recorded depends
on the map, the seed and the buttons alone. Four tics of 1/35 s make a frame: 8.75 frames a second.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vatt.errors import DataError
from vatt_demo.maps import GameMap, engine_folder

TICS_PER_FRAME = 4
FRAME_RATE = Fraction(35, TICS_PER_FRAME)
WIDTH, HEIGHT = 160, 120
SLEEP = 10  # tics at the beginning of a map in which the player cannot act
SKILL = 1  # the easiest of five: fewer monsters and smaller wounds, so fewer red flashes
SAMPLE_RATE_HZ = 22_050
SAMPLES_PER_FRAME = SAMPLE_RATE_HZ * TICS_PER_FRAME // 35
DEPTH_UNIT = 7.0  # map units for each step of the depth buffer, measured by walking

_COLOUR_CODE = re.compile(r"\x1c(\[[^\]]*\]|.)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_NOT_OF_THE_GAME = re.compile(r"MIDI playback|mode (ON|OFF)$|^(notarget|Unknown)|^$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Buttons:
    """What the player does during a step; moves and turns have any speed."""

    attack: bool = False
    forward: float = 0.0  # 1 is about 0.31 map units per tic
    right: float = 0.0
    turn: float = 0.0  # degrees per tic, clockwise


STILL = Buttons()


@dataclass(frozen=True, slots=True)
class Seen:
    """A thing on the screen: its class in the game and the box of its visible part in pixels."""

    name: str
    left: int
    top: int
    width: int
    height: int

    @property
    def area(self) -> int:
        """Pixels of the box."""
        return self.width * self.height

    @property
    def centre(self) -> float:
        """Middle of the box, in pixels from the left."""
        return self.left + self.width / 2


@dataclass(slots=True)
class GameFrame:
    """What the game shows and knows after a step."""

    pixels: NDArray[np.uint8]  # [HEIGHT, WIDTH, 3]
    waveform: NDArray[np.int16]  # [SAMPLES_PER_FRAME], both channels mixed
    depth: NDArray[np.uint8]  # [HEIGHT, WIDTH], DEPTH_UNIT map units a step
    seen: tuple[Seen, ...]
    messages: tuple[str, ...]
    x: float
    y: float
    angle: float  # degrees, anticlockwise
    slot: int  # of the held weapon
    ammo: int  # of the held weapon
    hits_taken: int
    kills: int


def clean_messages(text: str) -> tuple[str, ...]:
    """The game's own messages, without colour codes, control characters and console output."""
    lines = (_CONTROL.sub(" ", _COLOUR_CODE.sub("", line)).strip() for line in text.split("\n"))
    return tuple(line for line in lines if not _NOT_OF_THE_GAME.search(line))


class Game:
    """A running game on one wad; maps and seeds are chosen by `start`."""

    def __init__(self, wad: str) -> None:
        """Start the game.

        Args:
            wad: file name of the maps, one of `maps.WADS`.

        Raises:
            MissingExtraError: vizdoom is not installed.
            DataError: the game makes no sound.
        """
        maps = engine_folder() / wad
        self._folder = tempfile.TemporaryDirectory(prefix="vatt-demo-")
        self._game = _started_engine(maps, self._folder.name)
        self.angle = 0.0  # degrees anticlockwise, from the buttons sent
        # Fire the pistol and expect sound: without OpenAL the game is silent, without an error.
        self.pass_time(SLEEP)
        heard = [self.step(Buttons(attack=True)) for _ in range(6)]
        if not any(frame is not None and frame.waveform.any() for frame in heard):
            self.close()
            raise DataError(
                f"{wad}: the game makes no sound, because the OpenAL library is missing; install "
                "it (Debian, Ubuntu: apt install libopenal1; Fedora: dnf install openal-soft; "
                "macOS: brew install openal-soft) and run the same command again"
            )

    def start(self, game_map: GameMap, seed: int) -> None:
        """Begin a map anew; the same seed and buttons give the same frames."""
        self._game.set_seed(seed)
        self._game.set_doom_map(game_map.name)
        self._game.new_episode()
        self.pass_time(SLEEP)

    @property
    def over(self) -> bool:
        """The map ended: the player died or walked into an exit."""
        return bool(self._game.is_episode_finished() or self._game.is_player_dead())

    def console(self, command: str) -> None:
        """Send a console command; it takes effect in the next tic."""
        self._game.send_game_command(command)

    def pass_time(self, tics: int, buttons: Buttons = STILL) -> None:
        """Let some tics go by; nothing is drawn."""
        if not self.over:
            self._act(buttons, tics, draw=False)
            self.angle -= buttons.turn * tics

    def _act(self, buttons: Buttons, tics: int, *, draw: bool) -> None:
        import vizdoom

        try:
            self._game.set_action(
                [float(buttons.attack), buttons.forward, buttons.right, buttons.turn]
            )
            self._game.advance_action(tics, draw)
        except (
            vizdoom.ViZDoomErrorException,
            vizdoom.ViZDoomIsNotRunningException,
            vizdoom.ViZDoomUnexpectedExitException,
        ) as error:
            raise DataError(
                f"the game stopped unexpectedly ({error}); the same command continues"
            ) from error

    def turn(self, degrees_right: float) -> None:
        """Face another way within one tic."""
        self.pass_time(1, Buttons(turn=degrees_right))

    def step(self, buttons: Buttons = STILL, *, tics: int = TICS_PER_FRAME) -> GameFrame | None:
        """Play one frame; None when the map is over."""
        if self.over:
            return None
        self._act(buttons, tics, draw=True)
        state = None if self.over else self._game.get_state()
        if state is None:
            return None
        x, y, self.angle, slot, ammo, hits, kills = state.game_variables
        stereo = state.audio_buffer
        return GameFrame(
            pixels=state.screen_buffer,
            waveform=((stereo[:, 0].astype(np.int32) + stereo[:, 1]) >> 1).astype(np.int16),
            depth=state.depth_buffer,
            seen=tuple(
                Seen(one.object_name, one.x, one.y, one.width, one.height)
                for one in state.labels
                if one.object_name != "DoomPlayer"
            ),
            messages=clean_messages(state.notifications_buffer),
            x=x,
            y=y,
            angle=self.angle,
            slot=int(slot),
            ammo=int(ammo),
            hits_taken=int(hits),
            kills=int(kills),
        )

    def close(self) -> None:
        """End the game and remove its temporary files."""
        self._game.close()
        self._folder.cleanup()


def _started_engine(maps: Path, folder: str) -> Any:
    """A ViZDoom engine on a wad file, with its own files in `folder`."""
    import vizdoom  # an extra; also slow to import

    game = vizdoom.DoomGame()
    game.set_doom_game_path(str(maps))
    game.set_doom_config_path(f"{folder}/vizdoom.ini")
    game.set_doom_skill(SKILL)
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_window_visible(False)
    game.set_episode_timeout(0)

    game.set_screen_resolution(vizdoom.ScreenResolution.RES_160X120)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_render_hud(False)
    game.set_render_messages(False)
    game.set_render_crosshair(False)
    game.add_game_args("+cl_showsecretmessage 0 +r_visibility 32")  # the far end is lit, too
    game.add_game_args("+r_drawfuzz 0")  # the shimmer of spectres follows no seed
    game.set_labels_buffer_enabled(True)
    game.set_depth_buffer_enabled(True)

    game.set_sound_enabled(True)
    game.set_audio_buffer_enabled(True)
    game.set_audio_sampling_rate(vizdoom.SamplingRate.SR_22050)
    game.set_audio_buffer_size(TICS_PER_FRAME)
    game.set_notifications_buffer_enabled(True)
    game.set_notifications_buffer_size(TICS_PER_FRAME)
    game.add_game_args("+snd_efx 0 -nomusic")

    button, variable = vizdoom.Button, vizdoom.GameVariable
    game.set_available_buttons(  # in the order of `Game._act`
        [
            button.ATTACK,
            button.MOVE_FORWARD_BACKWARD_DELTA,
            button.MOVE_LEFT_RIGHT_DELTA,
            button.TURN_LEFT_RIGHT_DELTA,
        ]
    )
    game.set_available_game_variables(  # in the order of `Game.step`
        [
            variable.POSITION_X,
            variable.POSITION_Y,
            variable.ANGLE,
            variable.SELECTED_WEAPON,
            variable.SELECTED_WEAPON_AMMO,
            variable.HITS_TAKEN,
            variable.KILLCOUNT,
        ]
    )
    with contextlib.chdir(folder):  # the engine leaves a folder where it starts
        game.init()
    return game
