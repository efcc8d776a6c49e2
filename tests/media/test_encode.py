from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.media.clips import Recipe, flashes, numbers, write
from vatt.errors import MediaError
from vatt.media.copying import has_stored_form
from vatt.media.encode import StoredForm, encode, encode_parts, stored_fps, stored_size
from vatt.media.video import VideoFacts, decode_all_frames, probe

FORM = StoredForm(short_side=256, fps=Fraction(10), gop=16)
SMALL = replace(FORM, short_side=32)
PLAIN = Recipe(frames=40)
FACTS = VideoFacts(
    codec="h264",
    width=1920,
    height=1080,
    fps=Fraction(30),
    frames=0,
    rotation=0,
    pix_fmt="yuv420p",
    sample_aspect=Fraction(1),
)


def stored(tmp_path: Path, recipe: Recipe, form: StoredForm, name: str = "source.mkv") -> Path:
    target = tmp_path / "stored.mp4"
    encode(write(tmp_path / name, recipe), target, form)
    return target


def test_what_is_encoded_has_the_stored_form(tmp_path: Path) -> None:
    recipe = replace(PLAIN, sample_rate_hz=48_000, audio_codec="libopus", options={"bf": "3"})
    path = stored(tmp_path, recipe, SMALL)
    facts = probe(path)
    assert facts.video is not None
    assert facts.audio is not None
    assert (facts.video.height, facts.video.width) == (32, 42)
    assert (facts.audio.codec, facts.audio.sample_rate_hz, facts.audio.channels) == (
        "aac",
        48_000,
        1,
    )
    assert facts.duration_s == pytest.approx(4.0)
    assert has_stored_form(path, facts, SMALL)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pts is not None]
    keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    assert [packet.pts for packet in packets] == [packet.dts for packet in packets]
    assert max(np.diff([*keys, len(packets)])) <= 16


def test_the_picture_of_each_moment_is_the_one_on_screen_in_the_source(tmp_path: Path) -> None:
    times_s = [0.0, 0.05, 0.33, 0.40, 0.95, 1.21, 1.29, 1.50]
    recipe = replace(PLAIN, frames=8, fps=Fraction(20), times_s=times_s, audio_codec=None)
    frames, starts_s, _ = decode_all_frames(stored(tmp_path, recipe, FORM), size=(48, 64))
    np.testing.assert_allclose(starts_s, np.arange(len(frames)) / 10)
    shown = [max(k for k in range(8) if times_s[k] <= t + 0.001) for t in starts_s]
    assert numbers(frames) == shown
    assert len(frames) == 16  # the last is shown from 1.5 s until 1.55 s


def test_a_slower_source_keeps_its_rate_and_a_smaller_one_its_size(tmp_path: Path) -> None:
    facts = probe(stored(tmp_path, replace(PLAIN, fps=Fraction(15, 2)), FORM)).video
    assert facts is not None
    assert (facts.height, facts.width, facts.fps) == (48, 64, Fraction(15, 2))


def test_a_turned_video_is_stored_upright(tmp_path: Path) -> None:
    path = stored(tmp_path, replace(PLAIN, frames=4, flash=2, rotation=90), FORM, "source.mp4")
    facts = probe(path).video
    assert facts is not None
    assert (facts.height, facts.width, facts.rotation) == (64, 48, 0)
    frames, _, _ = decode_all_frames(path, size=(64, 48))
    back = np.rot90(frames, -1, axes=(1, 2))
    assert numbers(back) == [0, 1, 2, 3]
    assert flashes(back).tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (256, 456)),
        ({"rotation": 90}, (456, 256)),
        ({"width": 1080, "height": 1920}, (456, 256)),
        ({"width": 321, "height": 181}, (180, 320)),  # smaller: only made even
        ({"width": 720, "height": 576, "sample_aspect": Fraction(64, 45)}, (256, 456)),
        ({"width": 64, "height": 48, "sample_aspect": Fraction(2)}, (24, 64)),
        ({"width": 2000, "height": 2}, (2, 2000)),
    ],
)
def test_sizes_are_upright_even_square_and_never_larger(
    changes: dict[str, Any], expected: tuple[int, int]
) -> None:
    assert stored_size(replace(FACTS, **changes), FORM) == expected


def test_rates_are_the_asked_one_or_less() -> None:
    assert stored_fps(FACTS, FORM) == 10
    assert stored_fps(FACTS, replace(FORM, fps=None)) == 30
    assert stored_fps(replace(FACTS, fps=Fraction(8)), FORM) == 8


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("b-frames.mp4", replace(PLAIN, options={"bf": "2", "g": "10"})),
        ("long groups.mp4", replace(PLAIN, options={"bf": "0", "g": "40"})),
        ("other sound.mp4", replace(PLAIN, audio_codec="libmp3lame")),
        ("other rate of sound.mp4", replace(PLAIN, sample_rate_hz=44_100)),
        ("other codec.mp4", replace(PLAIN, video_codec="mpeg4")),
        ("other container.mkv", PLAIN),
        ("other pixels.mp4", replace(PLAIN, pix_fmt="yuv444p")),
        ("too fast.mp4", replace(PLAIN, fps=Fraction(25))),
        ("too large.mp4", replace(PLAIN, size=(258, 344))),
        ("turned.mp4", replace(PLAIN, rotation=180)),
        ("uneven.mp4", replace(PLAIN, times_s=[k * 0.1 + 0.02 * (k % 2) for k in range(40)])),
    ],
)
def test_files_of_another_form_are_recognised(name: str, recipe: Recipe, tmp_path: Path) -> None:
    fitting = write(tmp_path / "fits.mp4", PLAIN)
    assert has_stored_form(fitting, probe(fitting), FORM)
    other = write(tmp_path / name, recipe)
    assert not has_stored_form(other, probe(other), FORM)


def test_silent_films_are_stored_without_a_track(tmp_path: Path) -> None:
    path = stored(tmp_path, replace(PLAIN, audio_codec=None), FORM)
    assert probe(path).audio is None
    assert has_stored_form(path, probe(path), FORM)


def test_a_source_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp4", replace(PLAIN, audio_codec=None))
    content = source.read_bytes()
    source.write_bytes(content[: len(content) * 2 // 3])  # its table of frames is at the start
    facts = probe(source)
    with pytest.raises(MediaError, match=r"a\.mp4: .*cut off"):
        encode(source, tmp_path / "stored.mp4", FORM)
    with pytest.raises(MediaError, match=r"a\.mp4: holds \d+ of 40 frames"):
        has_stored_form(source, facts, FORM)


def test_a_full_disk_is_no_fault_of_the_video(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp4", PLAIN)
    (tmp_path / "part-0000.mp4").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        list(encode_parts(source, tmp_path, FORM))
