from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vatt.data.clip_order import ClipOrder, Segment, Segments, lay_out, permuted
from vatt.data.clip_timing import TOLERANCE_S

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


FOLDERS = [
    laid_out((7.0, []), (0.1, []), (2.0, []), clip_s=2.0),  # 3 + 1 clips
    laid_out((11.0, [5.0]), (2.5, []), clip_s=2.0),  # 2 + 3 + 1
]


def test_every_clip_comes_once_per_epoch():
    order = ClipOrder(FOLDERS, seed=3)
    assert order.num_clips == 10
    expected = Counter(
        (folder, *segments.find(clip))
        for folder, segments in enumerate(FOLDERS)
        for clip in range(segments.num_clips)
    )
    epochs = [[order.place(i) for i in range(e * 10, e * 10 + 10)] for e in range(3)]
    assert all(Counter(map(tuple, epoch)) == expected for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert epochs[0] != [ClipOrder(FOLDERS, seed=4).place(i) for i in range(10)]


def test_every_further_attempt_is_another_clip_of_the_same_folder_when_folders_are_weighted():
    order = ClipOrder(FOLDERS, seed=0, weights=(1.0, 2.0))
    tried = [[order.place(index, attempt) for attempt in range(12)] for index in range(20)]
    assert all(len({place.folder for place in places}) == 1 for places in tried)
    assert all(len({(place.row, place.clip) for place in places}) > 2 for places in tried)


@given(
    st.lists(st.floats(0.05, 20.0), min_size=2, max_size=5),
    st.integers(0, 10**10),
    st.integers(1, 64),
)
def test_any_stretch_of_the_order_has_the_folders_in_their_proportions(weights, first, size):
    order = ClipOrder([FOLDERS[0]] * len(weights), seed=0, weights=weights)
    counts = Counter(order._folder_at(first + i)[0] for i in range(size))
    for folder, weight in enumerate(weights):
        # one more or less for each folder that was given its turns before
        assert abs(counts[folder] - weight / sum(weights) * size) <= folder + 1.001


def test_weights_share_the_clips_and_still_go_through_each_folder_evenly():
    order = ClipOrder(FOLDERS, seed=0, weights=(3.0, 1.0))
    places = [order.place(i) for i in range(4 * 4 * 6)]  # 72 = 18 × 4 clips and 24 = 4 × 6
    for folder, times in ((0, 18), (1, 4)):
        seen = Counter(map(tuple, (place for place in places if place.folder == folder)))
        assert len(seen) == FOLDERS[folder].num_clips
        assert set(seen.values()) == {times}
