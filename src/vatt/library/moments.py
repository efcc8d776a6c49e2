"""Moments: neighbouring windows that score above the others, joined to intervals of a file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vatt.library.vector_index import Window

_OVERLAP = 0.5  # of a window with a better moment of the same file: it shows the same
_NEIGHBOUR = 1.5  # steps between the starts of two windows that are neighbours


@dataclass(frozen=True, slots=True)
class Moment:
    """An interval of a file that fits a query.

    score: of its best window, the highest. windows: all of it, in the order of time.
    """

    file_id: str
    start_s: float
    end_s: float
    score: float
    best: Window
    windows: tuple[tuple[Window, float], ...]


def find_moments(
    scored: Sequence[tuple[Window, float]], *, every_s: float, top: int
) -> list[Moment]:
    """The best moments, best first.

    A moment grows from the best window that is not in one yet, to both sides, as long as the
    neighbour scores at least half-way between the median of all windows and that best one. So only
    the order of the scores and their differences matter, not where they begin. Moments of one file
    do not overlap: a window that mostly lies in a better moment is left out.

    Args:
        scored: windows with their scores, best first.
        every_s: between the starts of neighbouring windows.
        top: how many to find at most.
    """
    if not scored:
        return []
    usual = float(np.median([score for _, score in scored]))
    lines: dict[str, list[tuple[Window, float]]] = defaultdict(list)
    for one in scored:
        lines[one[0].file_id].append(one)
    for line in lines.values():
        line.sort(key=lambda one: one[0].start_s)
    found: list[Moment] = []
    of_file: dict[str, list[Moment]] = defaultdict(list)
    for window, score in scored:
        if len(found) == top:
            break
        better = of_file[window.file_id]
        if any(_shares(window, moment) for moment in better):
            continue
        line = lines[window.file_id]
        at = next(n for n, (one, _) in enumerate(line) if one is window)
        grown = _grow(line, at, (usual + score) / 2, every_s, better)
        moment = _moment(grown, window, score, better)
        better.append(moment)
        found.append(moment)
    return found


def _grow(
    line: Sequence[tuple[Window, float]],
    at: int,
    least: float,
    every_s: float,
    better: Sequence[Moment],
) -> list[tuple[Window, float]]:
    """The windows around number `at` that are neighbours, score at least `least`, and are free."""

    def joins(one: int, other: int) -> bool:
        window, score = line[other]
        near = abs(line[one][0].start_s - window.start_s) <= _NEIGHBOUR * every_s
        return near and score >= least and not any(_shares(window, moment) for moment in better)

    first = last = at
    while first > 0 and joins(first, first - 1):
        first -= 1
    while last + 1 < len(line) and joins(last, last + 1):
        last += 1
    return list(line[first : last + 1])


def _shares(window: Window, moment: Moment) -> bool:
    """Whether half of a window or more lies in a moment."""
    common_s = min(window.end_s, moment.end_s) - max(window.start_s, moment.start_s)
    return common_s >= _OVERLAP * (window.end_s - window.start_s)


def _moment(
    windows: list[tuple[Window, float]], best: Window, score: float, better: Sequence[Moment]
) -> Moment:
    """The interval of windows, less what better moments of the file have of it."""
    start_s = min(one.start_s for one, _ in windows)
    end_s = max(one.end_s for one, _ in windows)
    for moment in better:
        if moment.start_s <= best.start_s:
            start_s = max(start_s, moment.end_s)
        else:
            end_s = min(end_s, moment.start_s)
    return Moment(best.file_id, start_s, end_s, score, best, tuple(windows))
