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
    Segments,
    clip_samples,
    clip_times,
    lay_out,
    nearest_captions,
    permuted,
    window_starts,
)

RECORDED = arrays("misc/data_ops.npz")
FACTS = json.loads((FOLDER / "misc/data_ops.json").read_text())
SPEC = ClipSpec(frames=8, fps=10, sample_rate_hz=1000)  # 0.8 s
seconds = st.floats(0.0, 60.0)


def laid_out(*videos: tuple[float, list[float]], clip_s: float, repeat_short=False) -> Segments:
    """Segments of videos of (duration, cuts)."""
    return lay_out(
        np.arange(len(videos)),
        np.array([duration_s for duration_s, _ in videos]),
        (
            np.array([len(cuts) for _, cuts in videos]),
            np.array([cut for _, cuts in videos for cut in cuts], float),
        ),
        clip_s,
        repeat_short=repeat_short,
    )


def listed(segments: Segments) -> list[tuple[int, Segment]]:
    firsts = np.diff(segments.last.numpy(), prepend=0).cumsum() - 1
    return [segments.find(int(clip))[:2] for clip in firsts]


@given(seconds, st.lists(seconds, max_size=6), st.floats(0.2, 8.0), st.floats(0.0, 0.999))
def test_no_clip_crosses_a_cut_or_leaves_the_video(duration_s, cuts, clip_s, position):
    segments = laid_out((9.0, [4.0]), (duration_s, cuts), clip_s=clip_s)
    for segment in [segment for video, segment in listed(segments) if video == 1]:
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
    segments = laid_out((10.0, [4.0, 3.2]), (1.0, []), (1.6, [9.0]), clip_s=1.6)
    assert listed(segments) == [  # 3.2 s, 0.8 s (too short), 6.0 s; too short; as long as a clip
        (0, Segment(0.0, 3.2, 2)),
        (0, Segment(4.0, 10.0, 3)),
        (2, Segment(0.0, 1.6, 1)),
    ]
    assert [segments.find(clip)[2] for clip in range(6)] == [0, 1, 0, 1, 2, 0]


def test_short_segments_give_one_repeating_clip_when_asked():
    assert laid_out((1.0, []), clip_s=3.2).num_clips == 0
    segments = laid_out((1.0, [0.4, 0.4]), clip_s=3.2, repeat_short=True)
    assert listed(segments) == [(0, Segment(0.0, 0.4, 1)), (0, Segment(0.4, 1.0, 1))]


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


SOURCES = [
    laid_out((7.0, []), (0.1, []), (2.0, []), clip_s=2.0),  # 3 + 1 clips
    laid_out((11.0, [5.0]), (2.5, []), clip_s=2.0),  # 2 + 3 + 1
]


def test_every_clip_comes_once_per_epoch():
    order = ClipOrder(SOURCES, seed=3)
    assert order.num_clips == 10
    expected = Counter(
        (source, *segments.find(clip))
        for source, segments in enumerate(SOURCES)
        for clip in range(segments.num_clips)
    )
    epochs = [[order.place(i) for i in range(e * 10, e * 10 + 10)] for e in range(3)]
    assert all(Counter(map(tuple, epoch)) == expected for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert epochs[0] != [ClipOrder(SOURCES, seed=4).place(i) for i in range(10)]


def test_every_further_attempt_is_another_clip_of_the_same_folder_when_folders_are_weighted():
    order = ClipOrder(SOURCES, seed=0, weights=(1.0, 2.0))
    tried = [[order.place(index, attempt) for attempt in range(12)] for index in range(20)]
    assert all(len({place.source for place in places}) == 1 for places in tried)
    assert all(len({(place.row, place.clip) for place in places}) > 2 for places in tried)


@given(
    st.lists(st.floats(0.05, 20.0), min_size=2, max_size=5),
    st.integers(0, 10**10),
    st.integers(1, 64),
)
def test_any_stretch_of_the_order_has_the_sources_in_their_proportions(weights, first, size):
    order = ClipOrder([SOURCES[0]] * len(weights), seed=0, weights=weights)
    counts = Counter(order._source_at(first + i)[0] for i in range(size))
    for source, weight in enumerate(weights):
        # one more or less for each source that was given its turns before
        assert abs(counts[source] - weight / sum(weights) * size) <= source + 1.001


def test_weights_share_the_clips_and_still_go_through_each_source_evenly():
    order = ClipOrder(SOURCES, seed=0, weights=(3.0, 1.0))
    places = [order.place(i) for i in range(4 * 4 * 6)]  # 72 = 18 × 4 clips and 24 = 4 × 6
    for source, times in ((0, 18), (1, 4)):
        seen = Counter(map(tuple, (place for place in places if place.source == source)))
        assert len(seen) == SOURCES[source].num_clips
        assert set(seen.values()) == {times}


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
