"""Moments: intervals around the best windows, which do not overlap."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from vatt.library.moments import find_moments
from vatt.library.vector_index import Window


def scored(*files: list[float], every_s: float = 1.0, clip_s: float = 2.0):
    """Windows of files with these scores, best first."""
    found = [
        (Window(f"{n}:{k}", f"file-{n}", k * every_s, k * every_s + clip_s, True, ""), score)
        for n, line in enumerate(files)
        for k, score in enumerate(line)
    ]
    return sorted(found, key=lambda one: -one[1])


def test_a_moment_is_as_long_as_its_windows_score_above_the_others():
    windows = scored([0.1, 0.1, 0.8, 0.9, 0.7, 0.1, 0.2], [0.1, 0.1, 0.1, 0.3, 0.1])
    first, second = find_moments(windows, every_s=1.0, top=2)
    assert (first.file_id, first.start_s, first.end_s, first.score) == ("file-0", 2.0, 6.0, 0.9)
    assert [score for _, score in first.windows] == [0.8, 0.9, 0.7]  # in the order of time
    assert (second.file_id, second.start_s, second.end_s) == ("file-1", 3.0, 5.0)


def test_windows_apart_are_two_moments_although_no_window_lies_between():
    windows = [one for one in scored([0.9, 0.8, 0.0, 0.0, 0.7, 0.1, 0.1]) if one[1] > 0]
    found = find_moments(windows, every_s=1.0, top=2)
    assert [(one.start_s, one.end_s) for one in found] == [(0.0, 3.0), (4.0, 6.0)]


# Sixteenths: then nothing is rounded.
steps = st.integers(-16, 16).map(lambda number: number / 16)
lines = st.lists(st.lists(steps, min_size=1, max_size=25), max_size=4)


@settings(max_examples=40, deadline=None)
@given(lines, st.sampled_from([0.5, 1.0, 2.0]), st.integers(1, 12))
@example([[0.0, 3 / 16, 0.0, 0.0, 1 / 8, 3 / 16]], 0.5, 2)  # grows back into a better one
def test_moments_are_ordered_apart_and_do_not_depend_on_where_scores_begin(files, every_s, top):
    windows = scored(*files, every_s=every_s)
    found = find_moments(windows, every_s=every_s, top=top)
    assert len(found) <= top
    assert (not windows) == (not found)
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    for one in found:
        assert one.start_s < one.end_s
        assert one.score == max(score for _, score in one.windows)
        others = [other for other in found if other is not one and other.file_id == one.file_id]
        assert all(one.end_s <= other.start_s or other.end_s <= one.start_s for other in others)
    moved = [(window, score * 4 + 8) for window, score in windows]
    again = find_moments(moved, every_s=every_s, top=top)
    assert [(one.start_s, one.end_s) for one in again] == [(o.start_s, o.end_s) for o in found]
