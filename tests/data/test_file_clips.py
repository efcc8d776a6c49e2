"""Clips of a file by itself: the true length counts, and of a long file only its clips are read."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from vatt.contracts import ClipSpec
from vatt.data.clip_timing import clip_samples, spread_starts
from vatt.data.file_clips import CLIPS_OF_FILE, spread_waveforms
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
