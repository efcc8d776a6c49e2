"""Videos whose planes are known to the byte: stored without loss."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

FPS = 10


def smooth_planes(
    frames: int, height: int, width: int, *, seed: int = 0
) -> list[NDArray[np.uint8]]:
    """Luma [T, H, W], blue and red difference [T, H/2, W/2]: soft patterns that move."""
    random = np.random.default_rng(seed)
    planes = []
    for rows, columns, low, high in (
        (height, width, 30, 220),
        ((height + 1) // 2, (width + 1) // 2, 90, 166),
        ((height + 1) // 2, (width + 1) // 2, 90, 166),
    ):
        y, x = np.mgrid[:rows, :columns]
        t = np.arange(frames)[:, None, None]
        down, right, speed = random.uniform(1, 3, 3)
        wave = np.sin(6 * (down * y / rows + right * x / columns) + speed * t)
        planes.append(np.round(low + (high - low) * (wave + 1) / 2).astype(np.uint8))
    return planes


def write_planes(
    path: Path,
    planes: list[NDArray[np.uint8]],
    *,
    colorspace: int = 2,
    full_range: bool = False,
    times_s: list[float] | None = None,
    starts_s: float = 0.0,
    options: dict[str, str] | None = None,
    rotation: int = 0,
) -> Path:
    """Write them as lossless H.264 with these tags (colorspace as in H.273)."""
    frames, height, width = planes[0].shape
    with av.open(str(path), "w") as output:
        stream = output.add_stream(
            "libx264", rate=FPS, options={"qp": "0", "bf": "0", "g": "12"} | (options or {})
        )
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        context = stream.codec_context
        context.time_base, context.thread_count = Fraction(1, 1000), 1
        context.colorspace, context.color_range = colorspace, 2 if full_range else 1
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(frames):
            rows = [plane[number].reshape(-1) for plane in planes]
            packed = np.concatenate(rows).reshape(height * 3 // 2, width)
            frame = av.VideoFrame.from_ndarray(packed, format="yuv420p")
            frame.colorspace, frame.color_range = colorspace, 2 if full_range else 1
            own_s = times_s[number] if times_s else number / FPS
            frame.time_base = context.time_base
            frame.pts = round((starts_s + own_s) * 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path
