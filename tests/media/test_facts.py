"""What a file holds is known from its packets, whatever its container says of it."""

from __future__ import annotations

import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.media.clips import Recipe, numbers, write
from vatt.media.media_file import decode_frames, open_media
from vatt.media.stored_form import StoredForm, encode_parts, stored_fps

FORM = StoredForm(short_side=256, fps=Fraction(10), gop=16)
TWO_S = Recipe(frames=20)
WEBM = replace(TWO_S, video_codec="libvpx", audio_codec="libopus", options={})


def remux(source: Path, path: Path, later_s: float = 0.0, **options: str) -> Path:
    """The same packets in another container, later."""
    with av.open(str(source)) as old, av.open(str(path), "w", options=options) as new:
        to = [new.add_stream_from_template(stream) for stream in old.streams]
        for packet in old.demux():
            if packet.size:
                ticks = round(later_s / packet.time_base)
                assert packet.pts is not None
                assert packet.dts is not None
                packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
                packet.stream = to[packet.stream.index]
                new.mux(packet)
    return path


def with_durations(path: Path, factor: float) -> Path:
    """The file, whose header says another duration."""
    content = bytearray(path.read_bytes())
    if path.suffix == ".mp4":
        for box, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
            at = content.find(box)
            while at >= 0:
                (said,) = struct.unpack_from(">I", content, at + offset)
                struct.pack_into(">I", content, at + offset, round(said * factor))
                at = content.find(box, at + 1)
    else:
        at = content.index(b"\x44\x89\x88") + 3
        (said,) = struct.unpack_from(">d", content, at)
        struct.pack_into(">d", content, at, said * factor)
    path.write_bytes(content)
    return path


def odd_duration(name: str, folder: Path) -> Path:
    """A file of two seconds that says something else."""
    kind, suffix = name.rsplit(".", 1)
    path, recipe = folder / name, WEBM if suffix == "webm" else TWO_S
    if kind == "audio goes on":
        return write(path, replace(recipe, sound_s=5.0))
    if kind == "audio ends early":
        return write(path, replace(recipe, sound_s=0.5))
    if kind.startswith("header"):
        return with_durations(write(path, recipe), float(kind.split()[1]))
    if kind == "live":
        return write(path, recipe, container_options={"live": "1"})
    if kind == "fragments":
        video = replace(TWO_S, audio_codec=None)
        flags = "frag_keyframe+empty_moov+default_base_moof"
        return write(path, video, container_options={"movflags": flags})
    later_s = {"late": 100.0, "clock wraps": 2**33 / 90_000 - 1}[kind]
    return remux(write(folder / "a.mp4", TWO_S), path, later_s)


@pytest.mark.parametrize(
    "name",
    [
        *(f"audio goes on.{suffix}" for suffix in ("mp4", "mkv", "ts", "flv", "webm")),
        *(f"audio ends early.{suffix}" for suffix in ("mp4", "mkv", "ts")),
        *(f"header {factor}.{suffix}" for factor in (0, 0.1, 5) for suffix in ("mp4", "mkv")),
        *("live.webm", "live.mkv", "fragments.mp4", "late.mkv", "late.ts", "clock wraps.ts"),
    ],
)
def test_a_video_lasts_as_long_as_its_frames_are_shown(name: str, tmp_path: Path) -> None:
    path = odd_duration(name, tmp_path)
    with open_media(path) as media:
        assert media.facts.duration_s == pytest.approx(2.0, abs=0.01)
        with open_media(path, sparsely=True) as unread:
            assert unread.facts == media.facts
        (part,) = encode_parts(media, tmp_path, FORM)
    assert part.facts.duration_s == pytest.approx(2.0, abs=0.01)
    times_s = np.arange(20) / 10
    assert numbers(decode_frames(path, times_s, size=(48, 64))) == list(range(20))


# ── rates ────────────────────────────────────────────────────────────────────────────────────────

STILL_THEN_ACTION = [0.0, *(8 + k / 25 for k in range(25))]
RATES: dict[str, tuple[list[float], Any]] = {
    "a still, then action": (STILL_THEN_ACTION, Fraction(10)),
    "action, then a still": ([*(k / 25 for k in range(25)), 9.0], Fraction(10)),
    "action between stills": ([0, 3, *(6 + k / 25 for k in range(25)), 10, 13], Fraction(10)),
    "a slideshow": ([0.0, 3.0, 8.0, 10.4, 20.0], Fraction(10)),
    "a clock for each frame": ([k / 30 + k % 3 * 0.003 for k in range(60)], Fraction(10)),
    "an even rate": ([k / 8 for k in range(24)], Fraction(8)),
    "an even time lapse": ([2.0 * k for k in range(6)], Fraction(1, 2)),
    "frames that were dropped": ([k / 5 for k in range(40) if k % 17 != 3], Fraction(5)),
}


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "flv"])
@pytest.mark.parametrize("name", RATES)
def test_the_rate_asked_for_is_there_where_the_frames_are(
    name: str, suffix: str, tmp_path: Path
) -> None:
    """An average rate says nothing about a part of a file."""
    times_s, expected = RATES[name]
    fps = Fraction(8) if "even rate" in name else Fraction(5) if "dropped" in name else Fraction(25)
    fps = Fraction(1, 2) if "lapse" in name else fps
    recipe = Recipe(frames=len(times_s), fps=fps, times_s=times_s, audio_codec=None)
    path = write(tmp_path / f"a.{suffix}", recipe)
    with open_media(path) as media, open_media(path, sparsely=True) as unread:
        assert unread.facts == media.facts
        video = media.facts.video
        assert video is not None
        assert float(stored_fps(video, FORM)) == pytest.approx(float(expected), rel=0.01)
        (part,) = encode_parts(media, tmp_path, FORM)
    asked_s = np.arange(0, part.facts.duration_s - 0.05, float(1 / expected))
    shown = np.searchsorted(times_s, asked_s + 0.001, side="right") - 1
    assert numbers(decode_frames(part.path, asked_s, size=(48, 64))) == shown.tolist()


def test_the_own_rate_of_a_video_that_is_not_steady_is_that_of_its_densest_second(
    tmp_path: Path,
) -> None:
    recipe = Recipe(frames=26, fps=Fraction(25), times_s=STILL_THEN_ACTION, audio_codec=None)
    with open_media(write(tmp_path / "a.mp4", recipe)) as media:
        assert media.facts.video is not None
        assert stored_fps(media.facts.video, replace(FORM, fps=None)) == 25
