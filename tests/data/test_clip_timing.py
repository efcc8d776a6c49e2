import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tests.parity.recordings import FOLDER, arrays
from vatt.contracts import ClipSpec
from vatt.data.clip_timing import TOLERANCE_S, clip_samples, clip_times, spread_starts

RECORDED = arrays("misc/data_ops.npz")
FACTS = json.loads((FOLDER / "misc/data_ops.json").read_text())
SPEC = ClipSpec(frames=8, fps=10, sample_rate_hz=1000)  # 0.8 s


def test_frames_are_evenly_spaced_and_repeat_past_the_end():
    assert_array_equal(clip_times(SPEC, 2.0, 9.0), 2.0 + np.arange(8) / 10)
    times = clip_times(SPEC, 1.0, 1.3)
    np.testing.assert_allclose(times, [1.0, 1.1, 1.2, 1.0, 1.1, 1.2, 1.0, 1.1], atol=1e-12)


@given(st.floats(0.0, 100.0), st.floats(0.01, 0.8), st.floats(1.0, 60.0))
def test_no_repeated_frame_is_taken_after_the_end(start_s, length_s, fps):
    times = clip_times(ClipSpec(frames=8, fps=fps), start_s, start_s + length_s)
    assert times.min() >= start_s
    assert times.max() < start_s + length_s - TOLERANCE_S or length_s >= 8 / fps - TOLERANCE_S


def test_samples_are_those_of_the_frames():
    track = np.arange(5000, dtype=np.int16)
    assert_array_equal(clip_samples(track, SPEC, 1.25, 9.0), track[1250:2050])
    short = clip_samples(track, SPEC, 1.0, 1.3)  # repeats as the frames do
    assert_array_equal(short, [*track[1000:1300], *track[1000:1300], *track[1000:1200]])
    silent = clip_samples(track, replace(SPEC, short_audio="silence"), 1.0, 1.3)
    assert_array_equal(silent, [*track[1000:1300], *[0] * 500])


def test_sound_that_ends_early_is_followed_by_silence():
    track = np.ones(1500, np.int16)
    assert_array_equal(clip_samples(track, SPEC, 1.0, 9.0), [1] * 500 + [0] * 300)
    assert_array_equal(clip_samples(track, SPEC, 4.0, 9.0), [0] * 800)


def test_clips_cover_the_video_from_start_to_end():
    spec = ClipSpec(frames=32, fps=12.5)  # 2.56 s
    np.testing.assert_allclose(spread_starts(10.0, spec, 4), np.arange(4) * (10.0 - 2.56) / 3)
    assert spread_starts(10.0, spec, 1).tolist() == [pytest.approx(3.72)]
    assert spread_starts(2.0, spec, 4).tolist() == [0.0] * 4


def assert_takes_the_recorded_frames(name: str, facts: dict[str, int], clips: int) -> None:
    """Numbers of the frames that ours takes, compared with the recorded ones."""
    rate = 25  # any: the recordings count frames
    spec = ClipSpec(frames=facts["steps"], fps=rate / facts["stride"])
    duration_s = facts["length"] / rate
    starts_s = spread_starts(duration_s, spec, clips)
    times = np.concatenate([clip_times(spec, start_s, duration_s) for start_s in starts_s])
    assert_array_equal(np.floor(times * rate + 1e-6), RECORDED[name].numpy(), err_msg=name)


@pytest.mark.parametrize("case", [name for name in FACTS if name.startswith("sample_")])
def test_spread_clips_hold_the_frames_that_the_official_sampler_takes(case):
    """Videos longer than a clip, as long as one, and shorter: then they repeat."""
    assert_takes_the_recorded_frames(f"{case}/linspace", FACTS[case], FACTS[case]["clips"])
    assert_takes_the_recorded_frames(f"{case}/middle", FACTS[case], 1)


@pytest.mark.parametrize("which", ["linspace", "middle"])
def test_spread_clips_hold_the_samples_that_the_official_sampler_takes(which):
    """It takes every second sample; ours takes every sample of a track of half the rate."""
    facts = FACTS["sample_audio"]
    track = np.arange(0, facts["length"], facts["stride"], dtype=np.int16)
    spec = ClipSpec(frames=facts["steps"], fps=100, sample_rate_hz=100)  # a sample for each frame
    starts_s = spread_starts(len(track) / 100, spec, facts["clips"] if which == "linspace" else 1)
    found = [clip_samples(track, spec, start_s, len(track) / 100) for start_s in starts_s]
    key = f"sample_audio/{which}"
    assert_array_equal(np.concatenate(found), RECORDED[key].numpy(), err_msg=key)
