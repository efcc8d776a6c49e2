"""Reading frames as luma and chroma planes, as most are stored: 4:2:0, 8 bits.

Such planes are copied as the decoder gives them. Others (more bits, other chroma, rotated, HDR,
transparent, very large) go through libswscale first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange
from numpy.typing import NDArray

from vatt.contracts import PlaneLayout
from vatt.errors import MediaError
from vatt.media.container import describe
from vatt.media.frame_filters import (
    BT709,
    SDR_MATRICES,
    FrameConverter,
    color_matrix,
    is_vivid,
    orientation,
    shown_size,
)
from vatt.media.video import TimedFrame, VideoReader

LARGEST_SHORT_SIDE = 512  # larger frames are scaled down to it
_MAX_BYTES = 4 * 2**30  # of one call


class Box(NamedTuple):
    """A rectangle of pixels of a frame; top and left are even."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    @property
    def luma(self) -> tuple[slice, slice]:
        """Its rows and columns in luma planes."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def chroma(self) -> tuple[slice, slice]:
        """Its rows and columns in chroma planes, of half the size."""
        rows = slice(self.top // 2, half(self.bottom))
        return rows, slice(self.left // 2, half(self.right))


def frame_bytes(height: int, width: int) -> int:
    """Bytes of the planes of one frame."""
    return height * width + 2 * half(height) * half(width)


def covering(size: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """The smallest (H, W) of the aspect of a frame of height × width that covers `size`."""
    if not (height and width):
        return size
    if width * size[0] >= height * size[1]:
        return size[0], max(size[1], round(size[0] * width / height))
    return max(size[0], round(size[1] * height / width)), size[1]


def at_most_largest(height: int, width: int) -> tuple[int, int]:
    """The size at which the planes of a frame of this size are kept: (H, W)."""
    scale = min(1.0, LARGEST_SHORT_SIDE / min(height, width))
    return round(height * scale), round(width * scale)


def half(side: int) -> int:
    """The side of a chroma plane beside a luma plane of this side."""
    return (side + 1) // 2


class Planes(NamedTuple):
    """Planes of a box of T frames, whose whole size is that of `form`.

    flat: uint8, all bytes: the luma of all frames, then their chroma.
    """

    form: PlaneLayout
    box: Box
    flat: NDArray[np.uint8]
    frames: int

    @classmethod
    def empty(cls, frames: int, form: PlaneLayout, box: Box) -> Planes:
        """Planes to be filled: `frames` frames of `form`, cut to `box`."""
        size = frames * frame_bytes(*box.size)
        if size > _MAX_BYTES:
            raise MediaError(
                f"{frames} frames of {form.width}x{form.height} take {size:,} bytes, expected at "
                f"most {_MAX_BYTES:,}; cut the video into parts"
            )
        return cls(form, box, np.empty(size, np.uint8), frames)

    @property
    def luma(self) -> NDArray[np.uint8]:
        """uint8 [T, H, W], a view."""
        height, width = self.box.size
        return self.flat[: self.frames * height * width].reshape(self.frames, height, width)

    @property
    def chroma(self) -> NDArray[np.uint8]:
        """uint8 [T, 2, ⌈H/2⌉, ⌈W/2⌉], a view; blue before red difference."""
        height, width = self.box.size
        rest = self.flat[self.frames * height * width :]
        return rest.reshape(self.frames, 2, half(height), half(width))

    def cut(self, box: Box, shown: NDArray[np.int64]) -> Planes:
        """A copy of a box of the frames numbered `shown`, of planes that hold whole frames."""
        found = Planes.empty(len(shown), self.form, box)
        for place, number in enumerate(shown.tolist()):
            found.luma[place] = self.luma[number][box.luma]
            found.chroma[place] = self.chroma[number][:, *box.chroma]
        return found


def decode_planes(
    reader: VideoReader,
    times_s: NDArray[np.float64],
    cut: Callable[[int, int], Box],
    size: tuple[int, int] | None = None,
) -> Planes:
    """A box of the frames on screen at the asked times.

    Args:
        reader: of the video.
        times_s: [T] seconds, at least one, in any order.
        cut: from the height and width of the frames to the box that is wanted.
        size: (H, W) that frames are first converted to, as shards store them; None keeps the
            video's own form where it can.

    Raises:
        MediaError: the video ends before a time, or cannot be decoded.
    """
    planes: Planes | None = None
    last: tuple[TimedFrame, int] | None = None
    for place, timed in reader.frames_at(times_s):
        if planes is None:
            copier = PlaneCopier(reader, timed.frame, size)
            form = copier.form
            planes = Planes.empty(len(times_s), form, cut(form.height, form.width))
            luma, chroma = planes.luma, planes.chroma
        if last is not None and last[0] is timed:
            luma[place], chroma[place] = luma[last[1]], chroma[last[1]]
        else:
            copier.copy(timed, planes.box, luma[place], chroma[place])
        last = timed, place
    assert planes is not None  # there is at least one time
    return planes


def decode_all_planes(reader: VideoReader) -> tuple[Planes, NDArray[np.float64]]:
    """All frames of a video, whole, and when each is first shown.

    Raises:
        MediaError: the video cannot be decoded, or is too long to hold in memory.
    """
    copier = PlaneCopier(reader, reader.first)
    starts_s, pieces, form = list[float](), list[Planes](), copier.form
    box = Box(0, 0, form.height, form.width)
    most = _MAX_BYTES // frame_bytes(form.height, form.width)
    for timed in reader.frames():
        if len(pieces) == most:
            raise MediaError(
                f"{describe(reader.source)}: more than {most} frames of {form.width}x{form.height} "
                "are too many to hold in memory; cut the video into parts"
            )
        piece = Planes.empty(1, form, box)
        copier.copy(timed, box, piece.luma[0], piece.chroma[0])
        pieces.append(piece)
        starts_s.append(timed.start_s)
    planes = Planes.empty(len(pieces), form, box)
    for place, piece in enumerate(pieces):
        planes.luma[place], planes.chroma[place] = piece.luma[0], piece.chroma[0]
    return planes, np.array(starts_s)


class PlaneCopier:
    """Copies boxes of decoded frames; all come out in one form, in their own shape."""

    def __init__(
        self, reader: VideoReader, example: VideoFrame, size: tuple[int, int] | None = None
    ) -> None:
        """Copy frames at `size` in BT.709, or as they are: their size, the colours of `example`.

        Frames with pixels that are not square are given square ones.
        """
        turned = orientation(example).quarter_turns
        if size is None and reader.sample_aspect != 1:
            height, width = map(round, shown_size(*reader.size, reader.sample_aspect, turned))
            size = at_most_largest(max(1, height), max(1, width))
        self._as_it_is = size is None and _is_direct(example)
        if self._as_it_is:
            bt709, full = color_matrix(example) == BT709, _is_full(example)
            self.form = PlaneLayout(*reader.size, bt709, full)
        else:
            size = size or at_most_largest(*(reader.size[::-1] if turned % 2 else reader.size))
            self.form = PlaneLayout(*size, bt709=True, full_range=False)
        self._convert = FrameConverter(
            (self.form.height, self.form.width),
            "yuv420p",
            filled_by=reader.aspect,
            over_white=reader.over_white,
            bt709=self.form.bt709,
            full_range=self.form.full_range,
        )

    def copy(
        self, timed: TimedFrame, box: Box, luma: NDArray[np.uint8], chroma: NDArray[np.uint8]
    ) -> None:
        """Copy a box of a frame into luma [H, W] and chroma [2, ⌈H/2⌉, ⌈W/2⌉]."""
        frame = timed.frame
        if not (self._as_it_is and self._has_form(timed)):
            frame = self._convert(frame, timed.sample_aspect)
        y, u, v = map(_pixels, frame.planes)
        luma[:] = y[box.luma]
        chroma[0], chroma[1] = u[box.chroma], v[box.chroma]

    def _has_form(self, timed: TimedFrame) -> bool:
        """Whether a frame has the form that is wanted; videos may change it on the way."""
        frame, form = timed.frame, self.form
        return (
            (frame.height, frame.width) == (form.height, form.width)
            and timed.sample_aspect == 1
            and _is_direct(frame)
            and (color_matrix(frame) == BT709, _is_full(frame)) == (form.bt709, form.full_range)
        )


def _is_direct(frame: VideoFrame) -> bool:
    return (
        frame.format.name in ("yuv420p", "yuvj420p")
        and min(frame.height, frame.width) <= LARGEST_SHORT_SIDE
        and color_matrix(frame) in SDR_MATRICES
        and not is_vivid(frame)
        and orientation(frame) == (False, 0)
    )


def _is_full(frame: VideoFrame) -> bool:
    return frame.format.name == "yuvj420p" or frame.color_range == ColorRange.JPEG


def _pixels(plane: VideoPlane) -> NDArray[np.uint8]:
    """[H, W] of a plane, a view; rows in memory may be longer."""
    memory: Any = plane  # a buffer, which PyAV's types do not say
    rows = np.frombuffer(memory, np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]
