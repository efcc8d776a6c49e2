"""What is promised of folders that a command begins and goes on with."""

from __future__ import annotations

import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vatt.config import read_toml
from vatt.errors import ConfigError
from vatt.run_folder import claim_folder, renew_settings


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


SETTINGS = {"fps": 10.0, "asr": "none", "src": ["a", "b"], "model": {"layers": 2, "width": 8}}


def claim(folder: Path, **changes: object) -> None:
    claim_folder(folder, {**SETTINGS, **changes}, free=("asr", "model.width"), advice="ask")


def test_a_folder_takes_the_first_settings_and_refuses_others(tmp_path: Path) -> None:
    claim(tmp_path)
    assert read_toml(tmp_path / "config.toml") == SETTINGS
    claim(tmp_path)
    claim(tmp_path, asr="pocketsphinx", model={"layers": 2, "width": 9})  # free
    for changes, words in (
        ({"fps": 25.0}, "fps: found 25.0, expected 10.0"),
        ({"model": {"layers": 3, "width": 8}}, "model.layers: found 3, expected 2"),
        ({"new": 1}, "new: found 1, expected None"),
    ):
        with pytest.raises(ConfigError, match=f"^{re.escape(words)} as in .*config.toml; ask$"):
            claim(tmp_path, **changes)
    assert read_toml(tmp_path / "config.toml") == SETTINGS
    assert names(tmp_path) == ["config.toml"]


def test_a_path_that_is_no_utf8_can_be_claimed_again(tmp_path: Path) -> None:
    for _ in range(2):
        claim(tmp_path, src=[os.fsdecode(b"films/caf\xe9")])
    with pytest.raises(ConfigError, match=r"^src: found"):
        claim(tmp_path, src=[os.fsdecode(b"films/tee")])


@pytest.mark.parametrize("hard_links", [True, False])
def test_a_folder_is_claimed_without_hard_links_too(
    tmp_path: Path, hard_links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not hard_links:
        monkeypatch.setattr("os.link", unsupported)
    claim(tmp_path)
    assert names(tmp_path) == ["config.toml"]


def test_of_many_that_claim_at_once_all_but_one_are_refused(tmp_path: Path) -> None:
    ready = threading.Barrier(12)

    def claims(fps: int) -> bool:
        ready.wait()
        try:
            claim(tmp_path, fps=fps)
        except ConfigError:
            return False
        return True

    with ThreadPoolExecutor(12) as pool:
        claimed = list(pool.map(claims, range(12)))
    assert sum(claimed) == 1
    assert names(tmp_path) == ["config.toml"]
    assert claimed[int(read_toml(tmp_path / "config.toml")["fps"])]


def test_a_setting_that_the_folder_does_not_know_is_what_it_was_earlier(tmp_path: Path) -> None:
    claim(tmp_path)
    earlier = {"model": {"width": 4, "drop": 0.5}, "loss": {"form": "plain"}}
    now = {**SETTINGS, "model": {"layers": 2, "width": 8, "drop": 0.0}, "loss": {"form": "new"}}
    for _ in range(2):  # and after the newer settings were written, too
        goes_on = claim_folder(tmp_path, now, free=(), advice="ask", earlier=earlier)
        assert goes_on == {
            **now,
            "model": {"layers": 2, "width": 8, "drop": 0.5},
            "loss": {"form": "plain"},
        }
        now = goes_on
        renew_settings(tmp_path, now)
