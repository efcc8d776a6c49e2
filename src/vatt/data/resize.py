"""Crop, resize and flip decoded frames to RGB at the model's size, on the batch's device.

Frames come as RGB, or as the luma and chroma planes that videos are stored in. Both are resized by
two matrix products, of rows and of columns; planes become RGB after that, at the smaller size.
Chroma samples are taken to lie in the middle of their four pixels, as libswscale takes them.
Training and evaluation resize here alone: a faster way to do it would replace `resize_frames`.
PyTorch is imported where it is used: what is needed of a frame is known without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vatt.contracts import Augmentation, Batch, ClipSpec, Crop, PlaneLayout
from vatt.media.planes import Box, Planes, frame_bytes, half

if TYPE_CHECKING:
    from torch import Tensor

_SPARE = 2  # luma pixels beyond those that are needed, against rounding
KR_KB = ((0.299, 0.114), (0.2126, 0.0722))  # shares of red and blue in luma: BT.601, BT.709


def resize_frames(batch: Batch, part: slice, *, out: Tensor, antialias: bool) -> None:
    """Crop, resize and flip the frames of some clips of a batch.

    Args:
        batch: its frames are RGB, or bytes of planes.
        part: which clips.
        out: float [b, T, h, w, 3], filled with RGB values in [0, 255].
        antialias: see `resize_weights`.
    """
    import torch

    if batch.frames.ndim == 1:
        _resize_planes(batch, part, out=out, antialias=antialias)
        return
    frames, size = batch.frames[part], batch.frames.shape[2:4]
    W, C = frames.shape[3:]
    own = [(row[1] or size[0], row[2] or size[1]) for row in batch.layout[part].tolist()]
    whole = all(box == [0.0, 0.0, 1.0, 1.0] for box in batch.crop.tolist())
    if not whole or size != out.shape[2:4] or any(sides != size for sides in own):
        sizes = torch.tensor(own).to(out.device, non_blocking=True)
        rows, columns = _axes(batch, part, sizes, size, out.shape[2:4], antialias=antialias)
        lines = (rows[:, None] @ frames.float().flatten(3)).view(len(rows), -1, W, C)
        # Columns by one large product for each clip: one for each line would be many small ones.
        found = columns @ lines.transpose(1, 2).flatten(2)  # [b, w, T h C]
        out.copy_(found.view(*columns.shape[:2], -1, C).transpose(1, 2).view(out.shape))
    elif any(batch.flip.tolist()):
        flip = batch.flip[part].to(out.device, non_blocking=True)[:, None, None, None, None]
        out.copy_(torch.where(flip, frames.flip(3), frames))
    else:
        out.copy_(frames)


def _resize_planes(batch: Batch, part: slice, *, out: Tensor, antialias: bool) -> None:
    """As `resize_frames`: the planes of each clip have a size of their own."""
    import torch

    flat, T, layout = batch.frames, out.shape[1], batch.layout[part].tolist()
    H, W = (max(row[axis] for row in layout) for axis in (1, 2))
    luma = flat.new_zeros((len(layout), T, 1, H, W), dtype=torch.float32)
    chroma = flat.new_zeros((len(layout), T, 2, half(H), half(W)), dtype=torch.float32)
    for clip, (first, height, width, *_) in enumerate(layout):  # zeros beside the smaller ones
        middle, end = first + T * height * width, first + T * frame_bytes(height, width)
        luma[clip, :, 0, :height, :width] = flat[first:middle].view(T, height, width)
        size = (half(height), half(width))
        chroma[clip, :, :, : size[0], : size[1]] = flat[middle:end].view(T, 2, *size)

    there = batch.layout[part].to(out.device, non_blocking=True)
    planes = []
    for plane, sizes in ((luma, there[:, 1:3]), (chroma, there[:, 1:3] / 2)):
        rows, columns = _axes(
            batch, part, sizes, plane.shape[-2:], out.shape[2:4], antialias=antialias
        )
        planes.append(rows[:, None, None] @ plane @ columns.mT[:, None, None])
    y, blue, red = planes[0], planes[1][:, :, :1], planes[1][:, :, 1:]

    bt709, full = there[:, 3:, None, None, None, None].bool().unbind(1)
    y = torch.where(full, y, (y - 16) * (255 / 219))
    scale = torch.where(full, 1.0, 255 / 224)
    blue, red = (blue - 128) * scale, (red - 128) * scale
    kr, kb = (torch.where(bt709, hd, sd) for sd, hd in zip(*KR_KB, strict=True))
    out[..., 0] = (y + 2 * (1 - kr) * red)[:, :, 0]
    out[..., 2] = (y + 2 * (1 - kb) * blue)[:, :, 0]
    green = 2 / (1 - kr - kb) * (kb * (1 - kb) * blue + kr * (1 - kr) * red)
    out[..., 1] = (y - green)[:, :, 0]
    out.clamp_(0.0, 255.0)


def _axes(
    batch: Batch,
    part: slice,
    sizes: Tensor,
    size_in: Sequence[int],
    size_out: Sequence[int],
    *,
    antialias: bool,
) -> tuple[Tensor, Tensor]:
    """Weights of rows [b, h, H] and columns [b, w, W]; `sizes` [b, 2] of each clip's own frame."""
    import torch

    crop = batch.crop[part].to(sizes.device, non_blocking=True)
    flip = batch.flip[part].to(sizes.device, non_blocking=True)
    top, left, height, width = (crop * sizes.repeat(1, 2)).unbind(1)
    ends = sizes.ceil().unbind(1)
    rows = resize_weights(top, height, ends[0], size_in[0], size_out[0], antialias=antialias)
    columns = resize_weights(left, width, ends[1], size_in[1], size_out[1], antialias=antialias)
    return rows, torch.where(flip[:, None, None], columns.flip(1), columns)


def resize_weights(
    start: Tensor, extent: Tensor, end: Tensor, size_in: int, size_out: int, *, antialias: bool
) -> Tensor:
    """Weights of a linear resize of one axis.

    Args:
        start: [b], where the box begins, in pixels.
        extent: [b], how long it is, in pixels.
        end: [b], how many of the axis' pixels are there; the others have no weight.
        size_in: pixels of the axis.
        size_out: pixels wanted from the box.
        antialias: wider where the box shrinks, to average over all that a pixel covers, as Pillow
            does; else only between neighbours, as TensorFlow does by default.

    Returns:
        [b, size_out, size_in], rows adding to 1; the identity where nothing is to be done.
    """
    import torch

    outputs = (torch.arange(size_out, device=start.device) + 0.5) / size_out
    inputs = torch.arange(size_in, device=start.device) + 0.5
    centres = start[:, None] + outputs * extent[:, None]
    reach = (extent / size_out if antialias else torch.zeros_like(extent)).clamp(min=1.0)
    weights = (1.0 - (inputs - centres[..., None]).abs() / reach[:, None, None]).clamp_(min=0.0)
    weights *= inputs < end[:, None, None]
    return weights / weights.sum(dim=2, keepdim=True)


def centre_crop(aspect: float, spec: ClipSpec) -> Augmentation:
    """What evaluation does: the largest centred box of the model's own aspect, nothing else.

    Args:
        aspect: width / height of the video as it is shown.
        spec: gives the model's aspect.
    """
    share = spec.width / spec.height / aspect
    if abs(share - 1.0) < 1e-3:
        return Augmentation()
    if share < 1.0:
        return Augmentation(crop=Crop(left=(1.0 - share) / 2, width=share))
    return Augmentation(crop=Crop(top=(1.0 - 1.0 / share) / 2, height=1.0 / share))


def needed(crop: Crop, spec: ClipSpec, height: int, width: int) -> Box:
    """The pixels that have weight when this crop of a frame is resized, and a few more.

    Args:
        crop: of the frame.
        spec: gives the size that the crop becomes.
        height: of the frame.
        width: of the frame.
    """
    top, bottom = _needed(crop.top * height, crop.height * height, height, spec.height)
    left, right = _needed(crop.left * width, crop.width * width, width, spec.width)
    return Box(top, left, bottom, right)


def _needed(start: float, extent: float, size_in: int, size_out: int) -> tuple[int, int]:
    """Twice the reach of chroma, which has half the pixels, is the reach in luma pixels."""
    reach = max(2.0, extent / size_out) + _SPARE
    first = 2 * math.floor((start - reach) / 2)
    return max(0, first), min(size_in, 2 * math.ceil((start + extent + reach) / 2))


def as_clip(
    frames: NDArray[np.uint8] | Planes, changes: Augmentation
) -> tuple[NDArray[np.uint8], Augmentation, PlaneLayout | None]:
    """Decoded frames, and changes of the whole frame, as `Clip` takes them."""
    if not isinstance(frames, Planes):
        return frames, changes, None
    height, width, *colours = frames.form
    layout = PlaneLayout(*frames.box.size, *colours)
    return frames.flat, within(changes, frames.box, height, width), layout


def within(augmentation: Augmentation, box: Box, height: int, width: int) -> Augmentation:
    """The same changes when only `box` of a frame of that height and width is left of it."""
    crop, (rows, columns) = augmentation.crop, box.size
    inner = Crop(
        top=(crop.top * height - box.top) / rows,
        left=(crop.left * width - box.left) / columns,
        height=crop.height * height / rows,
        width=crop.width * width / columns,
    )
    return replace(augmentation, crop=inner)
