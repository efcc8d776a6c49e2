import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tests.parity.recordings import FOLDER, arrays
from vatt.contracts import ClipSpec
from vatt.data.sampling import (
    TOLERANCE_S,
    ClipOrder,
    Segment,
    clip_samples,
    clip_slots,
    clip_times,
    nearest_captions,
    permuted,
    window_starts,
)

RECORDED = arrays("misc/data_ops.npz")
FACTS = json.loads((FOLDER / "misc/data_ops.json").read_text())
SPEC = ClipSpec(frames=8, fps=10, sample_rate_hz=1000)  # 0.8 s
seconds = st.floats(0.0, 60.0)


@given(seconds, st.lists(seconds, max_size=6), st.floats(0.2, 8.0), st.floats(0.0, 0.999))
def test_no_clip_crosses_a_cut_or_leaves_the_video(duration_s, cuts, clip_s, position):
    for segment in clip_slots(duration_s, cuts, clip_s, repeat_short=False):
        for clip in range(segment.clips):
            start_s = segment.clip_start(clip, position, clip_s)
            end_s = start_s + clip_s
            assert start_s >= 0
            assert end_s <= duration_s + 2 * TOLERANCE_S
            assert not any(
                start_s + TOLERANCE_S < cut < end_s - 2 * TOLERANCE_S
                for cut in cuts
                if TOLERANCE_S < cut < duration_s - TOLERANCE_S
            )


def test_a_segment_has_as_many_clips_as_fit_side_by_side():
    clips = [s.clips for s in clip_slots(10.0, [3.2, 4.0], 1.6, repeat_short=False)]
    assert clips == [2, 3]  # 3.2 s, 0.8 s (too short), 6.0 s


def test_short_segments_give_one_repeating_clip_when_asked():
    assert clip_slots(1.0, [], 3.2, repeat_short=False) == []
    assert clip_slots(1.0, [], 3.2, repeat_short=True) == [Segment(0.0, 1.0, 1)]


def test_starts_cover_the_whole_segment():
    segment = Segment(2.0, 10.0, 4)
    starts = [segment.clip_start(c, p, 2.0) for c in range(4) for p in np.linspace(0, 0.999, 50)]
    assert min(starts) == 2.0
    assert 7.99 < max(starts) < 8.0
    assert np.diff(sorted(starts)).max() < 0.05  # no gap between the clips' shares


@given(st.integers(1, 300), st.integers(0, 2**31))
def test_the_order_is_a_permutation(size, seed):
    assert sorted(permuted(i, size, seed) for i in range(size)) == list(range(size))


def test_orders_of_two_epochs_have_nothing_in_common():
    first, second = ([permuted(i, 1000, 5, epoch) for i in range(1000)] for epoch in (0, 1))
    assert np.mean(np.equal(first, second)) < 0.01  # 1 of 1000 by chance
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.15  # five deviations of chance
    assert abs(np.corrcoef(first, range(1000))[0, 1]) < 0.15


PAIRS = [
    [(0, Segment(0.0, 9.0, 3)), (4, Segment(0.0, 2.0, 1))],
    [(7, Segment(1.0, 9.0, 2)), (7, Segment(9.0, 20.0, 4)), (8, Segment(0.0, 1.0, 1))],
]


def test_every_clip_comes_once_per_epoch():
    order = ClipOrder(PAIRS, seed=3)
    assert order.clips_per_epoch == 11
    expected = Counter(
        (source, row, segment, clip)
        for source, pairs in enumerate(PAIRS)
        for row, segment in pairs
        for clip in range(segment.clips)
    )
    epochs = [[order[i] for i in range(e * 11, e * 11 + 11)] for e in range(3)]
    assert all(Counter(map(tuple, epoch)) == expected for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert epochs[0] != [ClipOrder(PAIRS, seed=4)[i] for i in range(11)]


def test_weights_share_the_clips_and_still_go_through_each_source_evenly():
    order = ClipOrder(PAIRS, seed=0, weights=(3.0, 1.0))  # of 11: 8 and 3
    places = [order[i] for i in range(28 * order.clips_per_epoch)]
    counts = Counter(place.source for place in places)
    assert counts[0] == 28 * 8
    assert counts[1] == 28 * 3
    for source, clips in ((0, 4), (1, 7)):
        seen = Counter(map(tuple, (p for p in places if p.source == source)))
        assert set(seen.values()) == {counts[source] // clips}


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


def test_sound_that_ends_early_is_followed_by_silence():
    track = np.ones(1500, np.int16)
    assert_array_equal(clip_samples(track, SPEC, 1.0, 9.0), [1] * 500 + [0] * 300)
    assert_array_equal(clip_samples(track, SPEC, 4.0, 9.0), [0] * 800)


spans = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 6)).map(lambda s: (s[0], s[0] + s[1])), max_size=12
)


@given(spans, st.integers(0, 40), st.integers(1, 6), st.none() | st.integers(1, 9))
def test_nearest_captions_are_those_of_a_plain_search(spans, middle2, count, gap):
    middle_s = middle2 / 2  # halves: many captions are equally near
    ranked = sorted(
        (abs((start + end) / 2 - middle_s), start, number)
        for number, (start, end) in enumerate(spans)
    )
    expected = [n for distance, _, n in ranked if gap is None or distance <= gap][:count]
    found = nearest_captions(
        np.array(spans, float).reshape(-1, 2), middle_s, count=count, max_gap_s=gap
    )
    assert found.tolist() == expected


def test_windows_cover_the_video_from_start_to_end():
    spec = ClipSpec(frames=32, fps=12.5)  # 2.56 s
    np.testing.assert_allclose(window_starts(10.0, spec, 4), np.arange(4) * (10.0 - 2.56) / 3)
    assert window_starts(10.0, spec, 1).tolist() == [pytest.approx(3.72)]
    assert window_starts(2.0, spec, 4).tolist() == [0.0] * 4


def assert_takes_the_recorded_frames(name: str, facts: dict[str, int], windows: int) -> None:
    """Numbers of the frames that ours takes, compared with the recorded ones."""
    rate = 25  # any: the recordings count frames
    spec = ClipSpec(frames=facts["steps"], fps=rate / facts["stride"])
    duration_s = facts["length"] / rate
    starts_s = window_starts(duration_s, spec, windows)
    times = np.concatenate([clip_times(spec, start_s, duration_s) for start_s in starts_s])
    assert_array_equal(np.floor(times * rate + 1e-6), RECORDED[name].numpy(), err_msg=name)


@pytest.mark.parametrize("case", [name for name in FACTS if name.startswith("sample_")])
def test_windows_hold_the_frames_that_the_official_sampler_takes(case):
    """Videos longer than a clip, as long as one, and shorter: then they repeat."""
    assert_takes_the_recorded_frames(f"{case}/linspace", FACTS[case], FACTS[case]["clips"])
    assert_takes_the_recorded_frames(f"{case}/middle", FACTS[case], 1)


@pytest.mark.parametrize("which", ["linspace", "middle"])
def test_windows_hold_the_samples_that_the_official_sampler_takes(which):
    """It takes every second sample; ours takes every sample of a track of half the rate."""
    facts = FACTS["sample_audio"]
    track = np.arange(0, facts["length"], facts["stride"], dtype=np.int16)
    spec = ClipSpec(frames=facts["steps"], fps=100, sample_rate_hz=100)  # a sample for each frame
    starts_s = window_starts(len(track) / 100, spec, facts["clips"] if which == "linspace" else 1)
    found = [clip_samples(track, spec, start_s, len(track) / 100) for start_s in starts_s]
    key = f"sample_audio/{which}"
    assert_array_equal(np.concatenate(found), RECORDED[key].numpy(), err_msg=key)
