"""Clips for evaluation stay between cuts and inside the video, as near the middle as they can."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vatt.evaluation.clips import place_clip

SECONDS = st.floats(0, 20, allow_nan=False)


@given(
    middle=SECONDS,
    duration=st.floats(0.1, 20),
    cuts=st.lists(SECONDS, max_size=5),
    clip=st.floats(0.1, 5),
)
def test_a_placed_clip_crosses_no_cut_and_leaves_no_video(middle, duration, cuts, clip):
    middle = min(middle, duration * 0.999)
    cuts = [cut for cut in cuts if cut < duration]
    start = place_clip(middle, duration, cuts, clip)
    if start is None:
        edges = sorted([0.0, *cuts, duration])
        assert all(
            end - begin < clip or not begin <= middle < end
            for begin, end in itertools.pairwise(edges)
        )
    else:
        assert -0.001 <= start <= duration - clip + 0.001
        assert not any(start + 0.001 < cut < start + clip - 0.001 for cut in cuts)


def test_a_clip_with_room_lies_around_the_middle():
    assert place_clip(5.0, 10.0, [], 2.0) == pytest.approx(4.0)


def test_a_clip_near_a_cut_is_moved_just_as_far_as_needed():
    assert place_clip(5.2, 10.0, [5.0], 2.0) == pytest.approx(5.0)
    assert place_clip(4.8, 10.0, [5.0], 2.0) == pytest.approx(3.0)
    assert place_clip(9.9, 10.0, [], 2.0) == pytest.approx(8.0)


def test_no_clip_is_placed_where_none_fits():
    assert place_clip(5.5, 10.0, [5.0, 6.0], 2.0) is None
    assert place_clip(0.5, 1.0, [], 2.0) is None
