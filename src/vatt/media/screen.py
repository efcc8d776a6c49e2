"""Which frame is on screen at a time, given frames and when each begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from av.video.frame import VideoFrame

# Containers such as Matroska round times to milliseconds: a frame that starts this much after the
# asked time is taken as on screen already.
EPSILON_S = 0.001


class TimedFrame(NamedTuple):
    """A decoded frame and when it is on screen, in seconds on the video clock."""

    start_s: float
    end_s: float
    frame: VideoFrame


def on_screen(frames: Iterable[TimedFrame], times_s: Iterable[float]) -> Iterator[TimedFrame]:
    """For each of the ascending times the frame shown then; ends early where the video ends."""
    times = iter(times_s)
    wanted_s = next(times, None)
    held: TimedFrame | None = None
    for timed in frames:
        while held is not None and wanted_s is not None and wanted_s + EPSILON_S < timed.start_s:
            yield held
            wanted_s = next(times, None)
        if wanted_s is None:
            return
        held = timed
    while held is not None and wanted_s is not None and wanted_s + EPSILON_S < held.end_s:
        yield held
        wanted_s = next(times, None)
