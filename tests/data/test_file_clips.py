"""Clips of a file by itself: the true length counts, and of a long file only its clips are read."""

from __future__ import annotations

import random
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.media.clips import Recipe, numbers
from tests.media.clips import write as write_clip
from vatt.contracts import ClipSpec, FramePath
from vatt.data.clip_timing import clip_samples, spread_places, spread_starts
from vatt.data.file_clips import CLIPS_OF_FILE, spread_frames, spread_waveforms
from vatt.errors import MediaError
from vatt.media import audio as audio_module
from vatt.media.media_file import open_media

SPEC = ClipSpec(frames=8, fps=4, height=16, width=16, sample_rate_hz=16_000)
RATE = 44_100


def write(
    path: Path,
    *,
    video_s: float = 0.0,
    audio_s: float,
    codec: str,
    options: dict[str, str] | None = None,
) -> Path:
    """Low noise, of which no two stretches are alike, and frames if there is to be a video."""
    with av.open(str(path), "w", options=options or {}) as output:
        if video_s:
            video: Any = output.add_stream("libx264", rate=4)
            video.height = video.width = 16
            video.pix_fmt = "yuv420p"
        audio: Any = output.add_stream(
            codec, rate=RATE if codec != "libopus" else 48_000, layout="mono"
        )
        rate = audio.rate
        if video_s:
            for number in range(round(4 * video_s)):
                frame = np.full((16, 16, 3), number % 250, np.uint8)
                output.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            output.mux(video.encode())
        times = np.arange(round(audio_s * rate)) / rate
        noise = np.random.default_rng(0).standard_normal(len(times))
        wave = (
            (9000 * np.convolve(noise, np.ones(64) / 16, "same"))
            .clip(-30_000, 30_000)
            .astype(np.int16)
        )
        size = audio.codec_context.frame_size or 1024
        for start in range(0, len(wave), size):
            block = wave[np.newaxis, start : start + size]
            packet = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            packet.sample_rate, packet.pts = rate, start
            packet.time_base = Fraction(1, rate)
            output.mux(audio.encode(packet))
        output.mux(audio.encode())
    return path


def clips_of(path: Path) -> NDArray[np.int16]:
    with open_media(path) as media:
        found = spread_waveforms(media, SPEC)
    assert found is not None
    return found


def assert_same_sound(one: NDArray[np.int16], other: NDArray[np.int16]) -> None:
    """But for half a millisecond (Matroska rounds times to it), and what a codec makes of noise."""
    for a, b in zip(one.astype(float), other.astype(float), strict=True):
        a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
        assert max(float(a @ np.roll(b, shift)) for shift in range(-8, 9)) > 0.97


KINDS: dict[str, Any] = {
    "video.mp4": {"video_s": 130.0, "codec": "aac"},
    "video.mkv": {"video_s": 130.0, "codec": "aac"},
    "video.ts": {"video_s": 130.0, "codec": "aac"},
    "sound.wav": {"codec": "pcm_s16le"},
    "sound.flac": {"codec": "flac"},
    "sound.ogg": {"codec": "libopus"},
    "sound.m4a": {"codec": "aac"},
    "sound.mp3": {"codec": "libmp3lame"},
}


@pytest.mark.parametrize("name", KINDS)
def test_clips_of_a_long_file_are_those_of_the_whole_track(name, tmp_path, monkeypatch):
    path = write(tmp_path / name, audio_s=130.0, **KINDS[name])
    decoded = 0
    add = audio_module._Track.add

    def counted(track, frame):
        nonlocal decoded
        decoded += frame.samples / frame.sample_rate
        return add(track, frame)

    monkeypatch.setattr(audio_module._Track, "add", counted)
    found = clips_of(path)
    if not name.endswith((".ts", ".mp3")):  # formats that are read in order
        assert decoded < 4 * (SPEC.duration_s + 6)
    with open_media(path) as media:
        track = media.audio(sample_rate_hz=SPEC.sample_rate_hz)
        end_s = media.facts.duration_s
    assert track is not None
    starts_s = spread_starts(end_s, SPEC, CLIPS_OF_FILE).tolist()
    expected = [clip_samples(track, SPEC, start_s, end_s) for start_s in starts_s]
    assert_same_sound(found, np.stack(expected))


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv", "long.ts"])
def test_audio_longer_than_the_video_is_heard_as_far_as_there_are_frames(name, tmp_path):
    same = write(tmp_path / f"same-{name}", video_s=8.0, audio_s=8.0, codec="aac")
    longer = write(tmp_path / name, video_s=8.0, audio_s=20.0, codec="aac")
    assert_same_sound(clips_of(longer), clips_of(same))


def test_a_file_without_a_duration_gives_the_clips_of_one_that_has_it(tmp_path):
    usual = write(tmp_path / "usual.mkv", video_s=12.0, audio_s=12.0, codec="libopus")
    live = write(
        tmp_path / "live.mkv", video_s=12.0, audio_s=12.0, codec="libopus", options={"live": "1"}
    )
    with av.open(str(live)) as container:
        assert not container.duration
    assert_same_sound(clips_of(live), clips_of(usual))


DAMAGED_SPEC = ClipSpec(frames=6, fps=10, height=24, width=32, sample_rate_hz=16_000)
TEN_S = Recipe(frames=100, noise=True)


def damaged(path: Path, first: float, last: float) -> Path:
    """A file whose frames show their numbers, with noise between two shares of its bytes."""
    content = bytearray(write_clip(path, TEN_S).read_bytes())
    begin, end = (round(len(content) * share) for share in (first, last))
    content[begin:end] = random.Random(0).randbytes(end - begin)
    path.write_bytes(content)
    return path


def shown(path: Path, *, damaged: bool = True) -> NDArray[np.int64]:
    """The number of each frame of the four clips [4, T]."""
    with open_media(path, damaged=damaged) as media:
        frames = spread_frames(media, DAMAGED_SPEC, FramePath(decode="rgb"), torch.device("cpu"))
    grey = ((frames.flatten(0, 1) + 1) * 127.5).numpy()
    return np.array(numbers(grey)).reshape(CLIPS_OF_FILE, -1)


@pytest.mark.parametrize("container", ["ts", "mkv", "mp4", "flv"])
def test_clips_of_a_damaged_file_lie_in_what_is_healthy_of_it(container, tmp_path, caplog):
    # Noise where the third of four evenly spread clips would be.
    path = damaged(tmp_path / f"a.{container}", 0.6, 0.66)
    found = shown(path)
    np.testing.assert_array_equal(np.diff(found, axis=1), 1)  # each clip in one piece
    assert found[0, 0] == 0
    assert found[-1, -1] >= 98
    assert "clips are taken from the other" in caplog.text
    seconds = re.search(rf"a.{container}: damaged \(([\d.]+) of 10", caplog.text)
    assert seconds is not None
    assert 0.3 < float(seconds[1]) < 2.5
    with open_media(path, damaged=True) as media:
        heard = spread_waveforms(media, DAMAGED_SPEC)
    assert heard is not None
    assert all((one == 0).mean() < 0.05 for one in heard)  # noise, of which nothing is missing


def test_a_healthy_file_gives_the_same_clips_when_it_may_be_damaged(tmp_path, caplog):
    path = write_clip(tmp_path / "a.mp4", TEN_S)
    np.testing.assert_array_equal(shown(path), shown(path, damaged=False))
    assert not caplog.text


def test_a_file_that_is_cut_off_gives_clips_of_what_comes_before(tmp_path, caplog):
    path = write_clip(tmp_path / "a.mp4", TEN_S)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    found = shown(path)
    np.testing.assert_array_equal(np.diff(found, axis=1), 1)
    assert 50 < found[-1, -1] < 75
    assert re.search(r"a.mp4: (damaged|cut off)", caplog.text)


def test_a_mostly_damaged_file_is_refused_with_its_share(tmp_path):
    with pytest.raises(
        MediaError, match=r"a.ts: [5-9]\d% of it is damaged .*, expected at most 50%"
    ):
        shown(damaged(tmp_path / "a.ts", 0.2, 0.9))


def test_places_are_spread_over_the_segments_that_are_long_enough():
    spec = ClipSpec(frames=10, fps=10)  # 1 s
    starts_s = spread_starts(8.0, spec, CLIPS_OF_FILE)
    assert spread_places([(0.0, 8.0)], spec, CLIPS_OF_FILE) == [(one, 8.0) for one in starts_s]
    # 1 s and 2 s of room; the segment between them is shorter than a clip.
    places = spread_places([(0.0, 2.0), (3.0, 3.5), (5.0, 8.0)], spec, CLIPS_OF_FILE)
    assert places == [(0.0, 2.0), (1.0, 2.0), (6.0, 8.0), (7.0, 8.0)]
    assert spread_places([(0.0, 0.3), (1.0, 1.7)], spec, 2) == [(1.0, 1.7)] * 2
