"""Videos of four known colours, made without swscale: each plane is computed here."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from tests.media.clips import write_frames

COLOURS = np.array([[200, 30, 40], [30, 180, 60], [20, 50, 210], [230, 225, 220]], np.float64)
MATRICES = {"601": (0.299, 0.114), "709": (0.2126, 0.0722), "2020": (0.2627, 0.0593)}  # Kr, Kb
H273 = {"601": 6, "709": 1, "2020": 9}  # numbers that H.273 gives them; 2 is "not said"


@dataclass(frozen=True, kw_only=True)
class Swatches:
    """How the colours are coded and tagged; the four lie in quarters, row by row."""

    codec: str = "ffv1"
    pix_fmt: str = "yuv444p"
    matrix: str = "709"
    full_range: bool = False
    tagged: bool = True
    primaries: int = 1
    curve: int = 1
    size: tuple[int, int] = (48, 64)
    first: int = 0  # number of the first frame, at 10 a second
    frames: int = 2
    options: dict[str, str] = field(default_factory=dict)
    turn: int = 0
    mirrored: bool = False
    aspect: Fraction | None = None


def planes(rgb: NDArray[np.float64], recipe: Swatches) -> list[NDArray[np.uint16]]:
    """Y, U and V [H, W] of RGB [H, W, 3] in 0..1, as H.273 defines them; rounded to integers."""
    kr, kb = MATRICES[recipe.matrix]
    red, green, blue = np.moveaxis(rgb, -1, 0)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = [(blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))]
    bits = 10 if "10le" in recipe.pix_fmt else 8
    unit, most = 2 ** (bits - 8), 2**bits - 1
    if recipe.full_range:
        coded = [most * luma, *(128 * unit + most * c for c in chroma)]
    else:
        coded = [unit * (16 + 219 * luma), *(unit * (128 + 224 * c) for c in chroma)]
    return [np.round(plane).astype(np.uint16) for plane in coded]


def quarters(colours: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """A picture [H, W, 3] with a colour in each quarter."""
    height, width = size
    rows = np.repeat([0, 1], [height // 2, height - height // 2])
    columns = np.repeat([0, 1], [width // 2, width - width // 2])
    return colours.reshape(2, 2, 3)[rows[:, None], columns]


def seen(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The four colours in the middle of the quarters of a frame [H, W, 3]."""
    height, width, _ = frame.shape
    points = [(y, x) for y in (1, 3) for x in (1, 3)]
    spots = [
        frame[y * height // 4 - 2 : y * height // 4 + 2, x * width // 4 - 2 : x * width // 4 + 2]
        for y, x in points
    ]
    return np.array([spot.reshape(-1, 3).mean(0) for spot in spots])


def yuv_frame(picture: NDArray[np.float64], recipe: Swatches) -> av.VideoFrame:
    """A frame of RGB [H, W, 3] in 0..1."""
    height, width = picture.shape[:2]
    frame = av.VideoFrame(width, height, recipe.pix_fmt)
    for plane, values in zip(frame.planes, planes(picture, recipe), strict=False):
        step_y, step_x = -(-height // plane.height), -(-width // plane.width)
        values = values[::step_y, ::step_x]  # quarters are flat: any sample of a block will do
        bytes_each = 2 if "10le" in recipe.pix_fmt else 1
        row = np.zeros((plane.height, plane.line_size // bytes_each), f"<u{bytes_each}")
        row[:, : values.shape[1]] = values
        plane.update(row.tobytes())
    return frame


def write_swatches(
    path: Path, recipe: Swatches, colours: NDArray[np.float64] = COLOURS / 255
) -> Path:
    """Write the video; every frame is the same, unless colours are [frames, 4, 3]."""
    each = np.broadcast_to(colours, (recipe.frames, 4, 3))
    computed = recipe.pix_fmt.startswith("yuv") or recipe.pix_fmt == "gray"
    frames = [
        yuv_frame(picture, recipe)
        if computed
        else av.VideoFrame.from_ndarray(np.round(255 * picture).astype(np.uint8), "rgb24").reformat(
            format=recipe.pix_fmt
        )
        for picture in (quarters(colours, recipe.size) for colours in each)
    ]
    if computed and recipe.tagged:
        for frame in frames:
            frame.colorspace, frame.color_range = H273[recipe.matrix], 1 + recipe.full_range

    def configure(stream: VideoStream) -> None:
        context = stream.codec_context
        if recipe.turn or recipe.mirrored:
            stream.set_display_rotation(recipe.turn, hflip=recipe.mirrored)
        if recipe.aspect:
            context.sample_aspect_ratio = recipe.aspect
        if recipe.tagged:
            context.colorspace = H273[recipe.matrix]
            context.color_range = 1 + recipe.full_range
            context.color_trc, context.color_primaries = recipe.curve, recipe.primaries

    return write_frames(
        path,
        frames,
        codec=recipe.codec,
        first=recipe.first,
        options=recipe.options,
        configure=configure,
    )
