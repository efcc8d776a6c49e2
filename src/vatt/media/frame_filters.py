"""Converting frames: whatever a decoder gives becomes upright, progressive, in SDR colours.

Colours follow the stream's tags (BT.601, BT.709, BT.2020; full or limited range). HDR (PQ, HLG)
and wide gamut are mapped to BT.709 by libswscale's perceptual intent. What is transparent is
shown over black. Interlaced frames are made progressive by FFmpeg's `bwdif`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Literal, NamedTuple

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.reformatter import (
    ColorPrimaries,
    ColorRange,
    Colorspace,
    ColorTrc,
    Interpolation,
    VideoReformatter,
)
from numpy.typing import NDArray

BT709, BT601, BT2020, _BT2020_CONSTANT = 1, 6, 9, 10  # matrices as H.273, and FFmpeg, number them
SDR_MATRICES = (BT709, BT601, 5)  # 5 is BT.601 too, of 625 lines
_MATRICES = {*SDR_MATRICES, 4, 7, BT2020}  # that libswscale knows
_CURVES, _PRIMARIES = {*ColorTrc}, {*ColorPrimaries}
_HDR = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)
_ROUNDED = 2  # pixels that rounding may take from a side
_GRAPH_TIME = Fraction(1, 1000)  # any: frames pass through one by one


class Orientation(NamedTuple):
    """How a stored frame is set upright: mirrored left to right first, then turned."""

    mirrored: bool
    quarter_turns: int  # counter-clockwise, 0 to 3


def orientation(frame: VideoFrame) -> Orientation:
    """What the display matrix of a frame asks for, to the nearest quarter turn.

    Not for every frame: PyAV's side data and their frame refer to each other, so that the frame
    stays in memory until Python looks for cycles.
    """
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # it has side data that PyAV does not know, such as Exif
        return Orientation(mirrored=False, quarter_turns=round(frame.rotation / 90) % 4)
    if not isinstance(matrix, SideData):
        return Orientation(mirrored=False, quarter_turns=0)
    # A point (x, y) of the frame, y downwards, is shown at (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    mirrored = a * d - b * c < 0
    right, down = (-a, -b) if mirrored else (a, b)  # where the frame's right side goes
    return Orientation(mirrored, round(math.atan2(-down, right) / (math.pi / 2)) % 4)


def shown_size(
    height: int, width: int, aspect: Fraction, quarter_turns: int
) -> tuple[float, float]:
    """(H, W) of a frame as it is shown: upright, with square pixels, never scaled up."""
    sides = height / max(float(aspect), 1.0), width * min(float(aspect), 1.0)
    return sides[::-1] if quarter_turns % 2 else sides


def color_matrix(frame: VideoFrame) -> int:
    """The YUV matrix of a frame (as in H.273); untagged ones are BT.709 from 720p on, else BT.601.

    This is what players do with files that do not say, or say what no decoder understands.
    """
    if frame.colorspace in _MATRICES:
        return frame.colorspace
    if frame.colorspace == _BT2020_CONSTANT:  # libswscale lacks it; BT.2020 comes near
        return BT2020
    return BT709 if frame.width >= 1280 or frame.height > 576 else BT601


def _settle_tags(frame: VideoFrame) -> None:
    """Give a frame tags that libswscale understands: files hold any number."""
    frame.colorspace = color_matrix(frame)
    if frame.color_trc not in _CURVES:
        frame.color_trc = ColorTrc.UNSPECIFIED
    if frame.color_primaries not in _PRIMARIES:
        frame.color_primaries = ColorPrimaries.UNSPECIFIED


def is_vivid(frame: VideoFrame) -> bool:
    """Whether its colours are beyond BT.709: HDR, or a wide gamut."""
    return frame.color_trc in _HDR or frame.color_primaries == ColorPrimaries.BT2020


class FrameConverter:
    """Decoded frame → upright SDR frame of one size; one scaler for all frames of a video.

    Each frame is converted alone, averaged over the area that each new pixel covers, so that the
    same frame gives the same bytes however it was reached.
    """

    def __init__(
        self,
        size: tuple[int, int],
        pix_fmt: Literal["rgb24", "yuv420p"],
        *,
        filled_by: float | None = None,
        are_upright: bool = False,
        over_white: bool = False,
        bt709: bool = True,
        full_range: bool = False,
    ) -> None:
        """Make frames of one size.

        Args:
            size: (H, W).
            pix_fmt: RGB, or planes.
            filled_by: W / H of the frames, as shown but before they are turned, that fill `size`.
                Others keep their own shape, in the middle of black. None: all fill it.
            are_upright: of converted frames, which still carry the display matrix of their source.
            over_white: what is transparent is shown over white, not black.
            bt709: of planes: in BT.709, else BT.601.
            full_range: of planes.
        """
        self._size, self._pix_fmt, self._are_upright = size, pix_fmt, are_upright
        self._filled_by, self._bt709 = filled_by, bt709
        self._full_range, self._over_white = full_range, over_white
        self._filled_by_upright: float | None = None
        self._form: tuple[object, ...] | None = None
        self._graph: Graph | None = None  # for what scaling alone does not do
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame, sample_aspect: Fraction = Fraction(1)) -> VideoFrame:
        """The converted frame; the frame itself when nothing is to be done.

        `sample_aspect`: W / H of its pixels.
        """
        _settle_tags(frame)
        tags = frame.color_trc, frame.color_primaries, frame.rotation, sample_aspect
        form = (*_form(frame), *tags)
        if form != self._form:
            steps = self._steps(frame, sample_aspect)
            self._graph = _graph(frame, steps) if steps else None
            self._form = form
        if self._graph is not None:
            self._graph.vpush(frame)
            return self._graph.vpull()
        height, width = self._size
        return self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format=self._pix_fmt,
            dst_colorspace=Colorspace.ITU709 if self._bt709 else Colorspace.ITU601,
            dst_color_range=self._range if self._pix_fmt == "yuv420p" else None,
            interpolation=Interpolation.AREA,
            threads=1,
        )

    @property
    def _range(self) -> ColorRange:
        return ColorRange.JPEG if self._full_range else ColorRange.MPEG

    def _fitting(
        self, frame: VideoFrame, sample_aspect: Fraction, *, turned: bool
    ) -> tuple[int, int]:
        """(H, W) that a frame takes of the size, upright."""
        height, width = self._size
        if self._filled_by is None:
            return height, width
        aspect = frame.width / frame.height * float(sample_aspect)
        aspect, filled_by = (1 / aspect if turned else aspect), self._filled_by_upright
        if filled_by is None:  # frames are turned like the first one
            filled_by = 1 / self._filled_by if turned else self._filled_by
            self._filled_by_upright = filled_by
        fitting = height * min(1.0, filled_by / aspect), width * min(1.0, aspect / filled_by)
        sides = [
            side if side - fit <= _ROUNDED else max(2, 2 * round(fit / 2))
            for side, fit in zip((height, width), fitting, strict=True)
        ]
        return sides[0], sides[1]

    def _steps(self, frame: VideoFrame, sample_aspect: Fraction) -> list[tuple[str, str]]:
        """The filters (name, options) for what scaling alone does not do; none for most videos."""
        upright = Orientation(False, 0) if self._are_upright else orientation(frame)
        turned = upright.quarter_turns % 2 == 1
        size = self._fitting(frame, sample_aspect, turned=turned)
        transparent = frame.format.has_palette or any(
            component.is_alpha for component in frame.format.components
        )
        vivid = is_vivid(frame)
        if not transparent and not vivid and upright == (False, 0) and size == self._size:
            return []
        height, width = size[::-1] if turned else size
        scale = f"{width}:{height}:flags=area"
        if self._pix_fmt == "yuv420p":
            matrix = "bt709" if self._bt709 else "bt601"
            scale += f":out_color_matrix={matrix}:out_range={'pc' if self._full_range else 'tv'}"
        if vivid:
            scale += ":intent=perceptual:out_transfer=bt709:out_primaries=bt709"
        solid = [("format", "gbrap"), ("premultiply", "inplace=1")] if transparent else []
        if transparent and self._over_white:  # its negative, over black
            solid = [solid[0], ("negate", ""), solid[1], ("negate", "")]
        mirror = [("hflip", "")] if upright.mirrored else []
        turn = [("transpose", "cclock")] * upright.quarter_turns
        (high, wide), (top, left) = (
            self._size,
            ((a - b) // 4 * 2 for a, b in zip(self._size, size, strict=True)),
        )
        pad = [("pad", f"{wide}:{high}:{left}:{top}:black")] if size != self._size else []
        return [*solid, ("scale", scale), ("format", self._pix_fmt), *mirror, *turn, *pad]


class RgbConverter:
    """Decoded frame → uint8 [H, W, 3], RGB, upright; one scaler for all frames of a video."""

    def __init__(
        self,
        size: tuple[int, int],
        *,
        filled_by: float | None = None,
        are_upright: bool = False,
        over_white: bool = False,
    ) -> None:
        """Arguments as of `FrameConverter`."""
        self._convert = FrameConverter(
            size, "rgb24", filled_by=filled_by, are_upright=are_upright, over_white=over_white
        )

    def __call__(
        self, frame: VideoFrame, sample_aspect: Fraction = Fraction(1)
    ) -> NDArray[np.uint8]:
        """The frame at `size` (H, W), averaged over the area that each new pixel covers."""
        return np.asarray(self._convert(frame, sample_aspect).to_ndarray(), np.uint8)


def _graph(frame: VideoFrame, steps: Iterable[tuple[str, str]]) -> Graph:
    graph = Graph()
    graph.threads = 1
    source = graph.add(
        "buffer",
        f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}"
        f":time_base={frame.time_base or _GRAPH_TIME}"
        f":colorspace={color_matrix(frame)}:range={frame.color_range}",
    )
    filters = [graph.add(name, options or None) for name, options in steps]
    graph.link_nodes(source, *filters, graph.add("buffersink")).configure()
    return graph


def deinterlaced(frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
    """The frames, of which interlaced ones are made progressive, at their own times.

    Each of these is made from itself and its neighbours. Progressive frames stay as they are.
    """
    deinterlacer: _Deinterlacer | None = None
    before: VideoFrame | None = None
    for frame in frames:
        _settle_tags(frame)
        if deinterlacer is not None and not deinterlacer.fits(frame):
            yield from deinterlacer.finish()
            deinterlacer, before = None, None
        if deinterlacer is None and frame.interlaced_frame:
            deinterlacer = _Deinterlacer(frame, after=before)
        before = frame
        if deinterlacer is None:
            yield frame
        else:
            yield from deinterlacer.add(frame)
    if deinterlacer is not None:
        yield from deinterlacer.finish()


class _Deinterlacer:
    """`bwdif` for frames of one form."""

    def __init__(self, frame: VideoFrame, *, after: VideoFrame | None) -> None:
        self._form = _form(frame)
        self._graph = _graph(frame, [("bwdif", "mode=send_frame:deint=interlaced")])
        self._waiting: deque[VideoFrame] = deque()
        self._skipped = 0
        if after is not None and self.fits(after):  # only to be the neighbour of the first
            self._skipped = 1
            self._waiting.append(after)
            self._graph.vpush(after)

    def fits(self, frame: VideoFrame) -> bool:
        return _form(frame) == self._form

    def add(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        self._waiting.append(frame)
        self._graph.vpush(frame)
        return self._ready()

    def finish(self) -> Iterator[VideoFrame]:
        self._graph.vpush(None)
        return self._ready()

    def _ready(self) -> Iterator[VideoFrame]:
        while self._waiting:
            try:
                progressive = self._graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return
            source = self._waiting.popleft()
            if self._skipped:
                self._skipped -= 1
                continue
            progressive.pts, progressive.time_base = source.pts, source.time_base
            progressive.duration = source.duration
            yield progressive if source.interlaced_frame else source


def _form(frame: VideoFrame) -> tuple[object, ...]:
    return frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range
