"""Picture and sound of one moment stay together, from the file to the arrays."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.media.clips import Recipe, click_s, flashes, numbers, starts_s, write
from vatt.media.audio import decode_audio
from vatt.media.encode import StoredForm, encode
from vatt.media.video import decode_all_frames

PLAIN = Recipe(flash=17)
UNEVEN = [k * 0.1 + 0.03 * (k % 3) for k in range(30)]
VP9 = {"deadline": "realtime", "cpu-used": "8"}
MPEG = replace(PLAIN, frames=75, fps=Fraction(25), flash=40)

FILES = {
    "plain.mp4": PLAIN,
    "b-frames.mp4": replace(PLAIN, options={"bf": "3", "g": "30"}),
    "opus.mkv": replace(PLAIN, audio_codec="libopus"),
    "vp9.webm": replace(PLAIN, video_codec="libvpx-vp9", options=VP9, audio_codec="libopus"),
    "pcm.avi": replace(PLAIN, video_codec="mpeg4", audio_codec="pcm_s16le"),
    "b-frames.ts": replace(PLAIN, options={"bf": "2", "g": "12"}),
    "pcm.mov": replace(
        PLAIN, video_codec="mjpeg", pix_fmt="yuvj420p", options={}, audio_codec="pcm_s16le"
    ),
    "mpeg2.mpg": replace(MPEG, video_codec="mpeg2video", options={"b": "2M"}, audio_codec="mp2"),
    "44100.flv": replace(PLAIN, sample_rate_hz=44_100),
    "late sound.mp4": replace(PLAIN, sound_starts_s=0.5),
    "late sound.mkv": replace(PLAIN, sound_starts_s=0.5),
    "late picture.mp4": replace(PLAIN, video_starts_s=0.7),
    "late picture.mkv": replace(PLAIN, video_starts_s=0.7),
    "late picture.ts": replace(PLAIN, video_starts_s=0.7),
    "uneven rate.mkv": replace(PLAIN, times_s=UNEVEN),
    "uneven rate.mp4": replace(PLAIN, times_s=UNEVEN),
    "gap in sound.mkv": replace(PLAIN, silent_gap_s=(0.5, 1.2)),
    "gap in sound.mp4": replace(PLAIN, silent_gap_s=(0.5, 1.2)),
    "gap in sound.ts": replace(PLAIN, silent_gap_s=(0.5, 1.2)),
}


@pytest.mark.parametrize("name", FILES)
def test_flash_and_click_are_decoded_at_the_same_moment(name: str, tmp_path: Path) -> None:
    recipe = FILES[name]
    path = write(tmp_path / name, recipe)
    frames, times_s, end_s = decode_all_frames(path, size=(48, 64))
    waveform = decode_audio(path, sample_rate_hz=16_000)

    assert numbers(frames) == list(range(recipe.frames))
    written_s = np.array(starts_s(recipe)) - starts_s(recipe)[0]
    np.testing.assert_allclose(times_s, written_s, atol=0.001)  # Matroska rounds to milliseconds
    (flash,) = np.flatnonzero(flashes(frames))
    assert waveform is not None
    # The resampler's filter rings for a fraction of a millisecond; the promise is 10 ms.
    assert click_s(waveform, 16_000) == pytest.approx(times_s[flash], abs=0.002)
    assert len(waveform) <= round(end_s * 16_000)


@pytest.mark.parametrize("name", ["late picture.mkv", "late sound.mp4", "b-frames.ts"])
def test_flash_and_click_stay_together_when_a_video_is_stored(name: str, tmp_path: Path) -> None:
    source = write(tmp_path / name, FILES[name])
    stored = tmp_path / "stored.mp4"
    encode(source, stored, StoredForm(short_side=256, fps=None, gop=16))

    frames, times_s, _ = decode_all_frames(stored, size=(48, 64))
    waveform = decode_audio(stored, sample_rate_hz=48_000)
    assert waveform is not None
    assert numbers(frames) == list(range(30))
    (flash,) = np.flatnonzero(flashes(frames))
    assert click_s(waveform, 48_000) == pytest.approx(times_s[flash], abs=0.002)
