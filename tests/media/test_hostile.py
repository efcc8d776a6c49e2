"""Damaged files give a MediaError or frames: never another error, a crash or a hang."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.media.clips import write
from tests.media.reading import decode_all_frames, encode, has_stored_form
from tests.media.test_sync import FILES
from vatt.errors import MediaError
from vatt.media.media_file import decode_audio, decode_frames, probe
from vatt.media.stored_form import StoredForm

NAMES = ["plain.mp4", "opus.mkv", "vp9.webm", "pcm.avi", "b-frames.ts", "44100.flv", "mpeg2.mpg"]
FORM = StoredForm(short_side=32, fps=Fraction(10), gop=16)


def mutated(whole: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, most of them in the headers; sometimes the end cut off."""
    content = bytearray(whole)
    for _ in range(chance.choice([1, 3, 20])):
        among = len(content) if chance.random() < 0.6 else min(600, len(content))
        content[chance.randrange(among)] = chance.randrange(256)
    return bytes(content[: chance.randrange(len(content))] if chance.random() < 0.3 else content)


def readings(content: bytes, folder: Path) -> list[Callable[[], object]]:
    """All that is ever done with a file."""
    path = folder / "mutated"
    path.write_bytes(content)
    return [
        lambda: probe(path),
        lambda: decode_all_frames(content, size=(48, 64)),
        lambda: decode_frames(path, np.array([0.1, 2.5]), size=(48, 64)),
        lambda: decode_audio(content, sample_rate_hz=16_000),
        lambda: has_stored_form(content, FORM),
        lambda: encode(path, folder / "stored.mp4", FORM),
    ]


def read_mutants(folder: Path, *, mutants: int, seed: int) -> tuple[int, int]:
    """How often reading gave something, and how often a MediaError."""
    chance = random.Random(seed)
    whole = [write(folder / name, FILES[name]).read_bytes() for name in NAMES]
    read = refused = 0
    for number in range(mutants):
        for reading in readings(mutated(whole[number % len(NAMES)], chance), folder):
            try:
                reading()
                read += 1
            except MediaError:
                refused += 1
    return read, refused


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    read, refused = read_mutants(tmp_path, mutants=28, seed=0)
    assert read > 15  # the mutants are not all beyond recognition …
    assert refused > 15  # … nor all harmless


@pytest.mark.slow
def test_many_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    read, refused = read_mutants(tmp_path, mutants=350, seed=1)
    assert read > 200
    assert refused > 200
