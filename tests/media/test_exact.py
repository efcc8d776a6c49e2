"""Frames at asked times are, byte for byte, those of a slow reader that decodes everything."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.media.clips import HEIGHT, WIDTH, Recipe, numbers, write
from tests.media.test_sync import DROPPED, VP9
from vatt.media.frame_filters import RgbConverter
from vatt.media.media_file import decode_frames
from vatt.media.video import EPSILON_S

SIZE = (HEIGHT, WIDTH)
B_FRAMES = {"bf": "3", "g": "24"}
PLAIN = Recipe(frames=100, audio_codec="aac", options=B_FRAMES)
LATE = replace(PLAIN, video_starts_s=1.3)
OPEN = {"bf": "3", "g": "20", "x264-params": "open-gop=1:scenecut=0"}
UNEVEN = [0.1 * k + 0.017 * (k % 5) for k in range(100)]
KINDS = {
    "plain.mp4": PLAIN,
    "late.mp4": LATE,
    "uneven.mp4": replace(PLAIN, times_s=UNEVEN),
    "dropped.mp4": replace(PLAIN, times_s=DROPPED),
    "edit list.mp4": replace(PLAIN, edit_list_skips_s=0.7),
    "edit list to a key frame.mp4": replace(PLAIN, edit_list_skips_s=2.4),
    "open groups.mp4": replace(PLAIN, options=OPEN),
    "late.mov": LATE,
    "prores.mov": replace(
        PLAIN, video_codec="prores_ks", pix_fmt="yuv422p10le", options={}, audio_codec="pcm_s16le"
    ),
    "late.mkv": LATE,
    "uneven.mkv": replace(PLAIN, times_s=UNEVEN),
    "open groups.mkv": replace(PLAIN, options=OPEN),
    "hevc.mkv": replace(
        PLAIN, video_codec="libx265", options={"x265-params": "log-level=error:keyint=20"}
    ),
    "vp9.webm": replace(
        PLAIN, video_codec="libvpx-vp9", options=VP9 | {"g": "20"}, audio_codec="libopus"
    ),
    "av1.webm": replace(
        PLAIN,
        video_codec="libsvtav1",
        options={"preset": "8", "crf": "5", "svtav1-params": "keyint=20"},
        audio_codec="libopus",
        size=(96, 128),
    ),
    "mpeg4.avi": replace(PLAIN, video_codec="mpeg4", audio_codec="pcm_s16le", options={"g": "20"}),
    "late.ts": LATE,
    "late.flv": replace(LATE, sample_rate_hz=44_100, options={"bf": "0", "g": "20"}),
    "vp8.ogv": replace(PLAIN, video_codec="libvpx", options=VP9, audio_codec="libopus"),
}


@dataclass(frozen=True)
class Reference:
    """All frames of a file as a plain loop over PyAV gives them."""

    path: Path
    frames: NDArray[np.uint8] = field(repr=False)
    starts_s: list[float] = field(repr=False)
    end_s: float


def decode_everything(path: Path) -> Reference:
    convert = RgbConverter(SIZE)
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
    starts_s = [frame.time - decoded[0].time for frame in decoded]
    return Reference(
        path=path,
        frames=np.stack([convert(frame) for frame in decoded]),
        starts_s=starts_s,
        end_s=starts_s[-1] + 0.1,
    )


@pytest.fixture(scope="module", params=KINDS)
def reference(request, tmp_path_factory) -> Iterator[Reference]:
    path = write(tmp_path_factory.mktemp("exact") / request.param, KINDS[request.param])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vatt.media.video._SEEK_AFTER_S", 0.4)  # so that ten seconds see many seeks
        yield decode_everything(path)


def test_the_reference_shows_every_frame_once(reference: Reference) -> None:
    recipe = KINDS[reference.path.name]
    first = round(recipe.edit_list_skips_s * 10)
    assert numbers(reference.frames) == list(range(first, len(recipe.times_s or range(100))))


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    asked=st.lists(
        st.one_of(
            st.floats(0, 1).map(lambda share: ("anywhere", share)),
            st.floats(0, 1).map(lambda share: ("as a frame starts", share)),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_the_frames_at_any_times_are_those_of_the_reference(
    reference: Reference, asked: list[tuple[str, float]]
) -> None:
    times_s = []
    for kind, share in asked:
        if kind == "anywhere":
            # Half a millisecond off those that containers round to: no times "just before".
            times_s.append(round(share * (reference.end_s - 0.003), 3) + 0.0005)
        else:
            times_s.append(reference.starts_s[round(share * (len(reference.starts_s) - 1))])
    frames = decode_frames(reference.path, np.array(times_s), size=SIZE)
    for frame, time_s in zip(frames, times_s, strict=True):
        expected = bisect_right(reference.starts_s, time_s + EPSILON_S) - 1
        np.testing.assert_array_equal(frame, reference.frames[expected])
