"""The frames of a video on screen at given times.

All times are seconds on the *video clock*: zero is when the first frame is shown, whatever time
the container gives it. Sound (`audio.py`) and prepared captions use the same clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import chain, dropwhile

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from vatt.errors import MediaError
from vatt.media.container import (
    MAX_PIXELS,
    MediaSource,
    describe,
    opened,
    video_stream,
)
from vatt.media.frame_filters import PictureConverter, deinterlaced
from vatt.media.screen import EPSILON_S, TimedFrame, on_screen

_SEEK_AFTER_S = 2.0  # nearer than this, decoding on is cheaper than seeking
_SEEKABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")  # formats with trustworthy indexes
_MAX_HELD_S = 600.0  # that one frame may stay on screen: damaged times must not fill the disk
_MAX_BACK_S = 1.0  # that a frame's time may lie before that of the frame shown before it
_MAX_DECODED_BYTES = 8 * 2**30  # of one `decode_all_frames`


class VideoReader:
    """The decoded frames of an open container in the order shown, each with its time.

    Raises (when made, and while reading):
        MediaError: there is no picture, or a frame is damaged, too large or has no sensible time.
    """

    def __init__(
        self, container: InputContainer, source: MediaSource, *, zero: int | None = None
    ) -> None:
        """Read the first frame, unless its container time `zero` is known."""
        stream = video_stream(container)
        if stream is None:
            raise MediaError(f"{describe(source)}: holds no picture, only sound")
        assert stream.time_base is not None
        self._container, self.stream, self.source = container, stream, source
        self._tick_s = float(stream.time_base)
        self.interlaced = False  # whether any frame read so far is
        self._zero = self._timestamp(self._start[0]) if zero is None else zero
        self.end_s = 0.0  # when the last frame read so far leaves the screen

    @cached_property
    def _start(self) -> tuple[VideoFrame, VideoFrame, Iterator[VideoFrame]]:
        """The first frame as it was decoded; that frame and the rest, made whole."""
        decoded = self._decoded()
        first = next(decoded, None)
        if first is None:
            raise MediaError(f"{describe(self.source)}: no frame of its picture can be decoded")
        rest = deinterlaced(chain([first], decoded))
        return first, next(rest, first), rest

    @property
    def first(self) -> VideoFrame:
        """The first frame."""
        return self._start[1]

    @property
    def zero_s(self) -> float:
        """The container's time of the first frame: zero of the video clock."""
        return self._zero * self._tick_s

    @property
    def seekable(self) -> bool:
        """Whether `frames_from` may be called with a late time at little cost."""
        return self._container.format.name in _SEEKABLE

    def frames(self) -> Iterator[TimedFrame]:
        """All frames; to be called once, before any `frames_from`."""
        _, first, rest = self._start
        return self._timed(chain([first], rest))

    def frames_from(self, time_s: float) -> Iterator[TimedFrame]:
        """The frames from a key frame at or before `time_s` on, after a seek."""
        for back_s in (0.0, 10.0, float("inf")):
            target = self._zero + int(max(time_s - back_s, 0.0) / self._tick_s)
            self._container.seek(target, stream=self.stream, backward=True)
            decoded = dropwhile(self._lacks_its_key_frame, self._decoded())
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

    def _lacks_its_key_frame(self, landed: VideoFrame) -> bool:
        """Not the very first one, whose key frame may be hidden by an edit list."""
        return not landed.key_frame and self._timestamp(landed) != self._zero

    def _decoded(self) -> Iterator[VideoFrame]:
        for frame in self._container.decode(self.stream):
            if frame.is_corrupt:
                raise MediaError(f"{describe(self.source)}: damaged at {frame.time} s")
            if frame.width * frame.height > MAX_PIXELS:
                raise MediaError(
                    f"{describe(self.source)}: frames of {frame.width}x{frame.height}, expected "
                    f"at most {MAX_PIXELS:,} pixels"
                )
            self.interlaced |= frame.interlaced_frame
            yield frame

    def _timestamp(self, frame: VideoFrame) -> int:
        timestamp = frame.pts if frame.pts is not None else frame.dts
        if timestamp is None:
            raise MediaError(f"{describe(self.source)}: a frame without a time; remux the file")
        return timestamp

    def _seconds(self, frame: VideoFrame) -> float:
        return (self._timestamp(frame) - self._zero) * self._tick_s

    def _timed(self, frames: Iterable[VideoFrame]) -> Iterator[TimedFrame]:
        usual_s = 1 / float(self.stream.average_rate or self.stream.guessed_rate or 25)
        last_s: float | None = None
        for frame in frames:
            start_s = self._seconds(frame)
            if last_s is not None and start_s <= last_s:
                self._refuse_jump_back(start_s - last_s)
                continue  # a repeated time: the first frame with it is shown
            lasts_s = frame.duration * self._tick_s if frame.duration else usual_s
            held_s = max(lasts_s, start_s - last_s if last_s is not None else 0.0)
            if held_s > _MAX_HELD_S:
                raise MediaError(
                    f"{describe(self.source)}: a frame near {start_s:,.0f} s stays for "
                    f"{held_s:,.0f} s, expected at most {_MAX_HELD_S:.0f} s; its times are damaged"
                )
            last_s, self.end_s = start_s, start_s + lasts_s
            yield TimedFrame(start_s, self.end_s, frame)

    def _refuse_jump_back(self, by_s: float) -> None:
        if by_s < -_MAX_BACK_S:
            raise MediaError(
                f"{describe(self.source)}: its times jump back by {-by_s:.1f} s; it was joined "
                "from several recordings or is damaged: remux it with new times"
            )


class FrameConverter:
    """Decoded frame → uint8 [H, W, 3], RGB, upright; one scaler for all frames of a video."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._convert = PictureConverter(size, "rgb24")

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """The picture at `size` (H, W), averaged over the area that each new pixel covers."""
        return np.asarray(self._convert(frame).to_ndarray(), np.uint8)


def decode_frames(
    source: MediaSource, times_s: NDArray[np.float64], *, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """The frames on screen at the asked times.

    The frame at time t is the last that starts at or before t (+ EPSILON_S); the first one, when t
    is earlier than all.

    Args:
        source: a file, or its content.
        times_s: [T] seconds on the video clock, in any order.
        size: (H, W) to scale to; the picture fills it, so keep its aspect or accept the change.

    Returns:
        uint8 [T, H, W, 3], RGB, upright; each frame is converted alone, so that the same frame has
        the same bytes however it was reached.

    Raises:
        MediaError: the video ends before a time, or cannot be decoded.
    """
    frames = np.empty((len(times_s), *size, 3), np.uint8)
    convert = FrameConverter(size)
    with opened(source) as container:
        fill_frames(frames, VideoReader(container, source), times_s, convert)
    return frames


def fill_frames(
    frames: NDArray[np.uint8],
    reader: VideoReader,
    times_s: NDArray[np.float64],
    convert: Callable[[VideoFrame], NDArray[np.uint8]],
) -> None:
    """Fill `frames` [T, …] with what `convert` makes of the frames on screen at the times."""
    previous: TimedFrame | None = None
    for place, timed in frames_at(reader, times_s):
        if timed is not previous:
            picture, previous = convert(timed.frame), timed
        frames[place] = picture


def frames_at(
    reader: VideoReader, times_s: NDArray[np.float64]
) -> Iterator[tuple[int, TimedFrame]]:
    """For each time, in ascending order: its place in `times_s`, and the frame on screen then.

    Raises:
        MediaError: the video ends before a time, or cannot be decoded.
    """
    order = np.argsort(times_s, kind="stable")
    for run in _runs(order, times_s, split=reader.seekable):
        asked = times_s[run].tolist()
        near = asked[0] <= _SEEK_AFTER_S or not reader.seekable
        walk = reader.frames() if near else reader.frames_from(asked[0])
        filled = 0
        for filled, timed in enumerate(on_screen(walk, asked), start=1):
            yield int(run[filled - 1]), timed
        if filled < len(run):
            raise MediaError(
                f"{describe(reader.source)}: needs the frame at {asked[filled]:.2f} s "
                f"({len(times_s)} frames from {asked[0]:.2f} s on), but the video ends at "
                f"{reader.end_s:.2f} s; ask for earlier times"
            )


def _runs(
    order: NDArray[np.intp], times_s: NDArray[np.float64], *, split: bool
) -> list[NDArray[np.intp]]:
    """Places in `times_s` in ascending time, cut where seeking is cheaper than decoding on."""
    if not len(order):
        return []
    far_apart = np.diff(times_s[order]) > _SEEK_AFTER_S
    return np.split(order, np.flatnonzero(far_apart) + 1) if split else [order]


def decode_all_frames(
    source: MediaSource, *, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.float64], float]:
    """Every frame of the video, with the time at which it is shown.

    Returns:
        frames: uint8 [N, H, W, 3], the bytes that `decode_frames` gives for the same frame.
        starts_s: float64 [N], ascending seconds on the video clock; the first is 0.
        end_s: when the last frame leaves the screen; `decode_frames` refuses times from there on.

    Raises:
        MediaError: the video cannot be decoded, or is too long to hold in memory at this size.
    """
    with opened(source) as container:
        reader = VideoReader(container, source)
        return *read_all_frames(reader, size=size), reader.end_s


def read_all_frames(
    reader: VideoReader, *, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Frames and starts of `decode_all_frames`."""
    frames: list[NDArray[np.uint8]] = []
    starts_s: list[float] = []
    most = _MAX_DECODED_BYTES // (size[0] * size[1] * 3)
    convert = FrameConverter(size)
    for timed in reader.frames():
        if len(frames) == most:
            raise MediaError(
                f"{describe(reader.source)}: more than {most} frames of {size[0]}x{size[1]}, too "
                "many to hold in memory; cut the video into parts or decode at a smaller size"
            )
        frames.append(convert(timed.frame))
        starts_s.append(timed.start_s)
    return np.stack(frames), np.array(starts_s)
