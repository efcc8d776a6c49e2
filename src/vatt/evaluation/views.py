"""Views of a video at evaluation: clips × crops, whose logits are averaged (§4.3).

Done as the official code does: frames are resized without antialiasing, in whole grey levels, and
then cropped. H W are the sides of what is given, h w those of the result.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vatt.errors import DataError


def resize(frames: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resize between pixel centres, without antialiasing: [..., H, W, C] → [..., h, w, C].

    uint8 frames stay uint8: their grey levels are cut, not rounded.
    """
    *leading, H, W, C = frames.shape
    planes = frames.reshape(-1, H, W, C).permute(0, 3, 1, 2).float()
    resized = F.interpolate(planes, (height, width), mode="bilinear", align_corners=False)
    return resized.permute(0, 2, 3, 1).reshape(*leading, height, width, C).to(frames.dtype)


def resize_to_cover(frames: Tensor, height: int, width: int) -> Tensor:
    """Resize, keeping the aspect, until the frame just covers h × w.

    For a square this makes the smaller side as long as the square's. The longer one is cut to whole
    pixels.
    """
    H, W = frames.shape[-3:-1]
    if _is_taller(frames, height, width):
        return resize(frames, max(height, width * H // W), width)
    return resize(frames, height, max(width, height * W // H))


def central_crop(frames: Tensor, height: int, width: int) -> Tensor:
    """The box h × w in the middle of frames [..., H, W, C].

    Raises:
        DataError: the frames are smaller than the box.
    """
    H, W = frames.shape[-3:-1]
    return _box(frames, (H - height) // 2, (W - width) // 2, height, width)


def three_crops(frames: Tensor, height: int, width: int) -> Tensor:
    """Boxes h × w at the start, in the middle and at the end of the longer side.

    Args:
        frames: [..., T, H, W, C]; usually just covering the box, so that only one side has room.
            Where the other one has room too, the boxes are at its start, as in the official code.
        height: h.
        width: w.

    Returns:
        [..., 3, T, h, w, C].

    Raises:
        DataError: the frames are smaller than the box.
    """
    H, W = frames.shape[-3:-1]
    down = _is_taller(frames, height, width)
    side, wanted = (H, height) if down else (W, width)
    starts = (0, round(side / 2 - wanted // 2), side - wanted)  # of two middles, the even one
    places = [(start, 0) if down else (0, start) for start in starts]
    return torch.stack([_box(frames, *place, height, width) for place in places], dim=-5)


def crop_boxes(aspects: Tensor, aspect: float, crops: int) -> Tensor:
    """The boxes of the views of whole frames, as shares of them: top, left, height and width.

    Each is as large as fits and of the model's aspect: one in the middle; or several from the start
    of the longer side to its end, evenly, as the three of `three_crops`.

    Args:
        aspects: [B], width / height of each clip's frames.
        aspect: the model's.
        crops: how many.

    Returns:
        [crops, B, 4].
    """
    width = (aspect / aspects).clamp(max=1.0)
    height = (aspects / aspect).clamp(max=1.0)
    places = torch.linspace(0, 1, crops) if crops > 1 else torch.tensor([0.5])
    return torch.stack(
        [
            torch.stack([(1 - height) * place, (1 - width) * place, height, width], dim=1)
            for place in places
        ]
    )


def mean_over_views(logits: Tensor, num_views: int) -> Tensor:
    """Mean logits of each video: [B × views, classes] → [B, classes]; a video's views are together.

    Raises:
        DataError: the rows are not a multiple of the views.
    """
    if len(logits) % num_views:
        raise DataError(
            f"views: found logits of {len(logits)} views, expected a multiple of {num_views}; "
            "some view of a video is missing"
        )
    return logits.reshape(-1, num_views, logits.shape[1]).mean(1)


def _is_taller(frames: Tensor, height: int, width: int) -> bool:
    """Whether the frame is at least as tall, for its width, as the box."""
    H, W = frames.shape[-3:-1]
    return H * width >= W * height


def _box(frames: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    H, W = frames.shape[-3:-1]
    if min(H - height, W - width) < 0:
        raise DataError(
            f"views: found frames of {H} × {W}, expected at least {height} × {width}; "
            "resize them first"
        )
    return frames[..., top : top + height, left : left + width, :]
