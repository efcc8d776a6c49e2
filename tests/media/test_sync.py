"""Picture and sound of one moment stay together, from the file to the arrays."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.media.clips import Recipe, click_s, flashes, numbers, starts_s, write
from tests.media.reading import decode_all_frames, encode_parts
from vatt.media.media_file import decode_audio, decode_frames
from vatt.media.stored_form import StoredForm
from vatt.media.video import EPSILON_S

PLAIN = Recipe(flash=17)
UNEVEN = [k * 0.1 + 0.03 * (k % 3) for k in range(30)]
DROPPED = [k / 10 for k in range(36) if k not in (4, 11, 12, 13, 20, 31)]
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
    "vp8.ogv": replace(PLAIN, video_codec="libvpx", options=VP9, audio_codec="libopus"),
    "mp3.asf": replace(PLAIN, video_codec="wmv2", options={"b": "2M"}, audio_codec="libmp3lame"),
    "ac3.ts": replace(PLAIN, audio_codec="ac3"),
    "mpeg2.mxf": replace(
        MPEG, video_codec="mpeg2video", options={"b": "2M"}, audio_codec="pcm_s16le"
    ),
    "hevc.mp4": replace(PLAIN, video_codec="libx265", options={"x265-params": "log-level=error"}),
    "dropped frames.mkv": replace(PLAIN, times_s=DROPPED),
    "dropped frames.mp4": replace(PLAIN, times_s=DROPPED),
    "edit list.mp4": replace(PLAIN, edit_list_skips_s=0.7),
    "edit list, b-frames.mp4": replace(
        PLAIN, edit_list_skips_s=0.7, options={"bf": "3", "g": "30"}
    ),
}


# The resampler's filter rings for a fraction of a millisecond; the promise is 10 ms.
SYNC_S = 0.002


def shown_from(recipe: Recipe) -> tuple[list[int], NDArray[np.float64]]:
    """The numbers of the frames that are shown, and when: from the first of them on."""
    times_s = np.array(starts_s(recipe))
    skipped = times_s < times_s[0] + recipe.edit_list_skips_s - 1e-9
    return np.flatnonzero(~skipped).tolist(), times_s[~skipped] - times_s[~skipped][0]


@pytest.mark.parametrize("name", FILES)
def test_flash_and_click_are_decoded_at_the_same_moment(name: str, tmp_path: Path) -> None:
    recipe = FILES[name]
    path = write(tmp_path / name, recipe)
    frames, times_s, end_s = decode_all_frames(path, size=(48, 64))
    waveform = decode_audio(path, sample_rate_hz=16_000)

    expected, written_s = shown_from(recipe)
    assert numbers(frames) == expected
    np.testing.assert_allclose(times_s, written_s, atol=0.001)  # Matroska rounds to milliseconds
    (flash,) = np.flatnonzero(flashes(frames))
    assert waveform is not None
    assert click_s(waveform, 16_000) == pytest.approx(times_s[flash], abs=SYNC_S)
    assert len(waveform) <= round(end_s * 16_000)


@pytest.mark.parametrize("name", FILES)
def test_each_stored_frame_is_the_one_on_screen_then_and_the_click_keeps_its_time(
    name: str, tmp_path: Path
) -> None:
    """In parts of a second, at a rate that is not the source's, through what the loader calls."""
    recipe = FILES[name]
    source = write(tmp_path / name, recipe)
    fps = Fraction(7)
    form = StoredForm(short_side=256, fps=fps, gop=16)
    parts = list(encode_parts(source, tmp_path, form, part_s=1.0))

    numbers_then, times_then_s = shown_from(recipe)
    clicks = []
    for part in parts:
        _, times_s, end_s = decode_all_frames(part.path, size=(48, 64))
        assert end_s == pytest.approx(part.end_s - part.start_s, abs=1e-5)
        frames = decode_frames(part.path, times_s, size=(48, 64))
        for number, time_s in zip(numbers(frames), part.start_s + times_s, strict=True):
            assert number == numbers_then[bisect_right(times_then_s, time_s + EPSILON_S) - 1]
        waveform = decode_audio(part.path, sample_rate_hz=48_000)
        assert waveform is not None
        if np.abs(waveform.astype(int)).max() > 3000:  # of 20,000
            clicks.append(part.start_s + click_s(waveform, 48_000))
    flash_s = times_then_s[numbers_then.index(recipe.flash or 0)]
    assert clicks[0] == pytest.approx(flash_s, abs=SYNC_S)
    assert len(clicks) == 1
    assert [part.start_s for part in parts] == [0, *(part.end_s for part in parts[:-1])]
