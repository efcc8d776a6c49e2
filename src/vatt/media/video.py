"""Reading the frames of a video: in order, after a seek, and those on screen at given times.

All times are seconds on the *video clock*: zero is when the first frame is shown, whatever time
the container gives it. Audio (`audio.py`) and captions in shards use the same clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import cached_property
from heapq import heappop, heappush
from itertools import chain, dropwhile
from math import inf
from typing import NamedTuple

import numpy as np
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from vatt.errors import MediaError
from vatt.media.container import (
    MAX_HELD_S,
    MAX_PIXELS,
    MediaSource,
    describe,
    is_image,
    video_stream,
)
from vatt.media.damage import Damage, decode
from vatt.media.frame_filters import deinterlaced

# Containers such as Matroska round times to milliseconds: a frame that starts this much after the
# asked time is taken as on screen already.
EPSILON_S = 0.001

_SEEK_AFTER_S = 2.0  # nearer than this, decoding on is cheaper than seeking
_SEEKABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")  # formats with trustworthy indexes
_MOST_REORDERED = 8  # frames that one is shown later than it is decoded
_MAX_BACK_S = 1.0  # that a frame's time may lie before that of the frame shown before it


Reached = Callable[[float], None]  # is told how far a file was read, in seconds


class TimedFrame(NamedTuple):
    """A decoded frame and when it is on screen, in seconds on the video clock.

    sample_aspect: width / height of its pixels.
    """

    start_s: float
    end_s: float
    frame: VideoFrame
    sample_aspect: Fraction = Fraction(1)


def usual_frame_s(stream: VideoStream) -> float:
    """How long a frame stays on screen when nothing says so."""
    return 1 / float(stream.average_rate or stream.guessed_rate or 25)


class VideoReader:
    """The decoded frames of an open container in the order shown, each with its time.

    Raises (when made, and while reading):
        MediaError: there is no video stream, or a frame is damaged, too large or has no sensible
            time.
    """

    def __init__(
        self,
        container: InputContainer,
        source: MediaSource,
        *,
        zero: int | None = None,
        damage: Damage | None = None,
        reached: Reached = lambda _: None,
    ) -> None:
        """Read the first frame, unless its container time `zero` is known.

        With `damage` what is damaged is noted there and left out (`damage.decode`). `reached` is
        told the time of each frame.
        """
        stream = video_stream(container)
        if stream is None:
            raise MediaError(f"{describe(source)}: holds no picture, only sound")
        assert stream.time_base is not None
        self._container, self.stream, self.source = container, stream, source
        self._damage, self._reached = damage, reached
        self._refuse_huge(stream.codec_context)  # by its header; the decoder's error says nothing
        self._tick_s = float(stream.time_base)
        said, coded = stream.sample_aspect_ratio, stream.codec_context.sample_aspect_ratio
        self._fixed_aspect = said if said and said != coded else None  # by the container
        self.interlaced = False  # whether any frame read so far is
        self._reordered = 0  # how many frames times are sorted among
        self.begun = False  # whether frames were read beyond the first
        self._announced: Iterator[tuple[int, TimedFrame]] | None = None
        self._zero = self._timestamp(self._start[0]) if zero is None else zero
        self.end_s = 0.0  # when the last frame read so far leaves the screen
        # Of its first frame as it is stored: (H, W), and W / H of its pixels; later may differ.
        form = self.first if zero is None else stream.codec_context
        self.size, self.sample_aspect = (form.height, form.width), self._sample_aspect()

    @cached_property
    def _start(self) -> tuple[VideoFrame, VideoFrame, Iterator[VideoFrame]]:
        """The first frame as it was decoded; that frame and the rest, deinterlaced."""
        decoded = self._decoded()
        first = next(decoded, None)
        if first is None:
            if self._damage is not None and self._damage.error is not None:
                raise self._damage.error
            raise MediaError(f"{describe(self.source)}: no frame of its picture can be decoded")
        rest = deinterlaced(chain([first], decoded))
        return first, next(rest, first), rest

    @property
    def aspect(self) -> float:
        """W / H of its first frame as it is shown, but for turning it."""
        height, width = self.size
        return width / height * float(self.sample_aspect)

    @property
    def over_white(self) -> bool:
        """Whether what is transparent shows white: of still images, which are drawn for paper."""
        return is_image(self._container)

    @property
    def first(self) -> VideoFrame:
        """The first frame."""
        return self._start[1]

    @property
    def zero_s(self) -> float:
        """The container's time of the first frame: zero of the video clock."""
        return self._zero * self._tick_s

    def frames(self) -> Iterator[TimedFrame]:
        """All frames; to be called once, before any `frames_from`."""
        assert not self.begun
        self.begun = True
        _, first, rest = self._start
        return self._timed(chain([first], rest))

    def frames_from(self, time_s: float) -> Iterator[TimedFrame]:
        """The frames from a key frame at or before `time_s` on, after a seek."""
        self.begun = True
        for back_s in (0.0, 10.0, float("inf")):
            target = self._zero + int(max(time_s - back_s, 0.0) / self._tick_s)
            self._container.seek(target, stream=self.stream, backward=True)
            # The key frame of the very first frame may be hidden by an edit list.
            decoded = dropwhile(
                lambda frame: not frame.key_frame and self._timestamp(frame) != self._zero,
                self._decoded(),
            )
            key = next(decoded, None)
            if key is None:
                continue
            landed = deinterlaced(chain([key], decoded))
            if key.interlaced_frame and self._timestamp(key) > self._zero:
                next(landed, None)  # made without the frame before it: other bytes
            first = next(landed, None)
            if first is not None and self._seconds(first) <= time_s + EPSILON_S:
                return self._timed(chain([first], landed))
        raise MediaError(
            f"{describe(self.source)}: cannot seek to {time_s:.2f} s; its index is damaged: "
            "store the file anew, for instance with `vatt prepare`"
        )

    def frames_at(self, times_s: NDArray[np.float64]) -> Iterator[tuple[int, TimedFrame]]:
        """For each time, in ascending order: its place in `times_s`, and the frame on screen then.

        It seeks where that is cheaper than decoding on; to be called once, or after `announce`.

        Raises:
            MediaError: the video ends before a time, or cannot be decoded.
        """
        if self._announced is None:
            yield from self._sought(times_s)
            return
        for place in np.argsort(times_s, kind="stable").tolist():
            yield place, next(self._announced)[1]

    def _sought(self, times_s: NDArray[np.float64]) -> Iterator[tuple[int, TimedFrame]]:
        order = np.argsort(times_s, kind="stable")
        ascending, seekable = times_s[order], self._container.format.name in _SEEKABLE
        far = (np.diff(ascending) > _SEEK_AFTER_S) & (ascending[1:] > _SEEK_AFTER_S)
        runs = np.split(order, np.flatnonzero(far & seekable) + 1) if len(order) else []
        for run in runs:
            asked = times_s[run].tolist()
            seek = seekable and asked[0] > _SEEK_AFTER_S
            frames = self.frames_from(asked[0]) if seek else self.frames()
            found = 0
            for found, timed in enumerate(on_screen(frames, asked), start=1):
                yield int(run[found - 1]), timed
            if found < len(run):
                raise MediaError(
                    f"{describe(self.source)}: needs the frame at {asked[found]:.2f} s "
                    f"({len(times_s)} frames from {asked[0]:.2f} s on), but the video ends at "
                    f"{self.end_s:.2f} s; ask for earlier times"
                )

    def announce(self, times_s: NDArray[np.float64]) -> None:
        """Name all times, ascending, that calls of `frames_at` will ask for, one after the other.

        Each call then goes on where the last one ended: the video is decoded once.
        """
        self._announced = self._sought(times_s)

    def _refuse_huge(self, what: VideoCodecContext | VideoFrame) -> None:
        if what.width * what.height > MAX_PIXELS:
            raise MediaError(
                f"{describe(self.source)}: frames of {what.width}x{what.height}, expected at most "
                f"{MAX_PIXELS:,} pixels"
            )

    def _decoded(self) -> Iterator[VideoFrame]:
        for frame in decode(self._container, self.stream, self._damage):
            if frame.is_corrupt:
                raise MediaError(f"{describe(self.source)}: damaged at {frame.time} s")
            self._refuse_huge(frame)
            self.interlaced |= frame.interlaced_frame
            yield frame

    def _timestamp(self, frame: VideoFrame) -> int:
        timestamp = frame.pts if frame.pts is not None else frame.dts
        if timestamp is None:
            raise MediaError(f"{describe(self.source)}: a frame without a time; remux the file")
        return timestamp

    def _seconds(self, frame: VideoFrame) -> float:
        return (self._timestamp(frame) - self._zero) * self._tick_s

    def _sample_aspect(self) -> Fraction:
        """W / H of the pixels of the last frame decoded."""
        coded = self.stream.codec_context.sample_aspect_ratio
        return self._fixed_aspect or coded or Fraction(1)

    def _with_times(self, frames: Iterable[VideoFrame]) -> Iterator[tuple[VideoFrame, float]]:
        """Frames in the order shown, each with its time.

        Some programs give frames times in the order of decoding (H.264 that was put into a file as
        it came). Such a frame comes out later than its time, or its time before that of the last;
        from there on times are sorted.
        """
        waiting, times_s, last_s = deque[VideoFrame](), list[float](), -inf
        for frame in frames:
            start_s = self._seconds(frame)
            late = frame.dts is not None and frame.dts > self._timestamp(frame)
            if late or start_s < last_s:
                self._reordered = _MOST_REORDERED
            last_s = start_s
            waiting.append(frame)
            heappush(times_s, start_s)
            if len(waiting) > self._reordered:
                yield waiting.popleft(), heappop(times_s)
        while waiting:
            yield waiting.popleft(), heappop(times_s)

    def _timed(self, frames: Iterable[VideoFrame]) -> Iterator[TimedFrame]:
        usual_s = usual_frame_s(self.stream)
        last_s: float | None = None
        for frame, start_s in self._with_times(frames):
            if last_s is not None and start_s - last_s < -_MAX_BACK_S:
                raise MediaError(
                    f"{describe(self.source)}: its times jump back by {last_s - start_s:.1f} s; it "
                    "was joined from several recordings or is damaged: remux it with new times"
                )
            if last_s is not None and start_s <= last_s:
                continue  # a repeated time: the first frame with it is shown
            lasts_s = frame.duration * self._tick_s if frame.duration else usual_s
            held_s = max(lasts_s, start_s - last_s if last_s is not None else 0.0)
            if held_s > MAX_HELD_S:
                raise MediaError(
                    f"{describe(self.source)}: a frame near {start_s:,.0f} s stays for "
                    f"{held_s:,.0f} s, expected at most {MAX_HELD_S:.0f} s; its times are damaged"
                )
            last_s, self.end_s = start_s, start_s + lasts_s
            self._reached(start_s)
            yield TimedFrame(start_s, self.end_s, frame, self._sample_aspect())


def on_screen(frames: Iterable[TimedFrame], times_s: Iterable[float]) -> Iterator[TimedFrame]:
    """For each of the ascending times the frame shown then; ends early where the video ends.

    The frame at time t is the last that starts at or before t (+ EPSILON_S); the first one, when t
    is earlier than all.
    """
    times = iter(times_s)
    wanted_s = next(times, None)
    held: TimedFrame | None = None
    for timed in frames:
        while held is not None and wanted_s is not None and wanted_s + EPSILON_S < timed.start_s:
            yield held
            wanted_s = next(times, None)
        held = timed
        # No frame follows so soon: this one need not wait, it is in the processor's cache now.
        while (
            wanted_s is not None
            and abs(timed.start_s - wanted_s) <= EPSILON_S
            and wanted_s + EPSILON_S < timed.end_s
        ):
            yield timed
            wanted_s = next(times, None)
        if wanted_s is None:
            return
    while held is not None and wanted_s is not None and wanted_s + EPSILON_S < held.end_s:
        yield held
        wanted_s = next(times, None)
