"""Augmentation (§4.3 Inputs): drawn with each clip, applied to the whole batch on its device.

The crop is the same for all frames of a clip, and so is its colour. Everything random is drawn
before (`draw`); `apply` is a function of the batch alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vatt.contracts import Augmentation, Batch, ClipSpec, Crop, Inputs
from vatt.data.resize import centre_crop, resize_frames
from vatt.errors import ConfigError

CROP_ATTEMPTS = 10
JITTER_PROBABILITY, JITTER = 0.8, (0.8, 1.2)  # of crop_style "smaller_side" (official code)
TEXT_SHAPES = 8
CLIPS_AT_ONCE = 4  # what is worked on stays in the cache of a CPU
UNCHANGED = (0.0, 1.0, 1.0, 0.0)  # brightness, saturation, contrast, hue


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentConfig:
    """How far frames and waveform may be changed; 0 (for crop_area: 1 1) switches a part off."""

    crop_style: Literal["area", "smaller_side"] = "area"
    """area: a box of random area and aspect (§4.3). smaller_side: a box of the model's aspect, as
    large as fits, after both sides were stretched by 0.8 to 1.2 (the official code's default); the
    next two settings are then not used."""
    crop_area: tuple[float, float] = (0.08, 1.0)
    """Share of the frame (§4.3); 1 1 takes the centred box that evaluation takes."""
    crop_aspect: tuple[float, float] = (0.5, 2.0)  # width / height of the crop, in pixels (§4.3)
    antialias: bool = True
    """Average where a crop is made smaller; the official code does not."""
    flip: bool = True  # left for right, every second clip (§4.3)
    brightness: float = 32 / 255  # added, at most this much either way (§4.3)
    saturation: float = 0.4  # multiplied by 1 ± this (§4.3)
    contrast: float = 0.4  # multiplied by 1 ± this (§4.3)
    hue: float = 0.2  # turned by this share of the colour circle either way (§4.3)
    colour_probability: float = 0.8  # clips whose colour is changed (official code)
    gain: float = 0.0  # loudness, in doublings either way; neither paper nor code changes it
    audio_noise: float = 0.01  # standard deviation, as a share of the clip's peak (official code)

    def __post_init__(self) -> None:
        self._check("crop_area", 0.0 < self.crop_area[0] <= self.crop_area[1] <= 1.0, "0 < a ≤ 1")
        self._check("crop_aspect", 0.0 < self.crop_aspect[0] <= self.crop_aspect[1], "0 < a ≤ b")
        self._check("colour_probability", 0.0 <= self.colour_probability <= 1.0, "0 to 1")
        for name in ("brightness", "saturation", "contrast"):
            self._check(name, 0.0 <= getattr(self, name) <= 1.0, "0 to 1")
        self._check("hue", 0.0 <= self.hue <= 0.5, "0 to 0.5")
        for name in ("gain", "audio_noise"):
            self._check(name, getattr(self, name) >= 0.0, "0 or more")

    def _check(self, name: str, good: bool, expected: str) -> None:
        if not good:
            raise ConfigError(f"augment.{name}: found {getattr(self, name)}, expected {expected}")


def draw(
    config: AugmentConfig, rng: np.random.Generator, aspect: float, spec: ClipSpec
) -> Augmentation:
    """Draw the changes of one clip.

    Args:
        config: their ranges.
        rng: where the randomness comes from; how much is taken depends on `config` alone.
        aspect: width / height of the video as it is shown.
        spec: gives the model's aspect.
    """
    spots = rng.random((CROP_ATTEMPTS, 4))
    flip, colour, brightness, saturation, contrast, hue, gain = rng.random(7)
    if config.crop_style == "area":
        crop = _draw_area(config, spots, aspect, spec)
    else:
        crop = _draw_smaller_side(spots[0], aspect, spec)
    flipped = config.flip and bool(flip < 0.5)
    loudness = 2.0 ** _between(-config.gain, config.gain, gain)
    if colour >= config.colour_probability:
        return Augmentation(crop=crop, flip=flipped, gain=loudness)
    return Augmentation(
        crop=crop,
        flip=flipped,
        brightness=_between(-config.brightness, config.brightness, brightness),
        saturation=_between(1.0 - config.saturation, 1.0 + config.saturation, saturation),
        contrast=_between(1.0 - config.contrast, 1.0 + config.contrast, contrast),
        hue=_between(-config.hue, config.hue, hue),
        gain=loudness,
    )


def _between(low: float, high: float, position: float) -> float:
    return low + (high - low) * float(position)


def _draw_area(
    config: AugmentConfig, spots: NDArray[np.float64], aspect: float, spec: ClipSpec
) -> Crop:
    """Area and aspect uniform, then the place; boxes larger than the frame are drawn again.

    Where only the whole frame is asked for it is the box of evaluation, so that nothing is
    stretched.
    """
    if config.crop_area == (1.0, 1.0):
        return centre_crop(aspect, spec).crop
    for area_spot, aspect_spot, top_spot, left_spot in spots:
        area = _between(*config.crop_area, area_spot)
        shape = _between(*config.crop_aspect, aspect_spot) / aspect
        height, width = math.sqrt(area / shape), math.sqrt(area * shape)
        if height <= 1.0 and width <= 1.0:
            top, left = float(top_spot) * (1.0 - height), float(left_spot) * (1.0 - width)
            return Crop(top=top, left=left, height=height, width=width)
    return Crop()  # as TensorFlow's sampler does when nothing fits


def _draw_smaller_side(spots: NDArray[np.float64], aspect: float, spec: ClipSpec) -> Crop:
    """The official crop as a box of the frame before its sides are stretched.

    Stretched, the smaller side is resized to the model's, and a box of the model's size is cut at a
    random place. Of the two stretches only their ratio is left in the end: a change of the aspect.
    """
    jitters, stretch_height, stretch_width, place = spots.tolist()
    if jitters < JITTER_PROBABILITY:
        aspect *= _between(*JITTER, stretch_width) / _between(*JITTER, stretch_height)
    share = spec.width / spec.height / aspect
    if share <= 1.0:
        return Crop(left=place * (1.0 - share), width=share)
    return Crop(top=place * (1.0 - 1.0 / share), height=1.0 / share)


def add_noise(
    waveform: NDArray[np.int16], level: float, rng: np.random.Generator
) -> NDArray[np.int16]:
    """Gaussian noise whose deviation is `level` × the peak, so that silence stays silent."""
    noisy = waveform.astype(np.float32)
    noisy += np.float32(level * np.abs(noisy).max()) * rng.standard_normal(len(noisy), np.float32)
    return np.clip(np.rint(noisy), -(2**15), 2**15 - 1).astype(np.int16)


@torch.no_grad()
def apply(
    batch: Batch,
    spec: ClipSpec,
    *,
    antialias: bool = True,
    clips: slice | None = None,
    all_texts: bool = False,
) -> Inputs:
    """Turn a batch into the model's inputs, on the device of its frames.

    Frames are cropped, resized, flipped and coloured, in this order; frames and waveform end in
    [-1, 1]. Parts that no clip of the batch asks for are skipped, at the same result.

    Args:
        batch: frames of any size, RGB or planes.
        spec: height and width of the result.
        antialias: how to resize; see `AugmentConfig`.
        clips: only these of the batch; None takes all.
        all_texts: whether a model looks at masked texts, too, so that its shapes stay the same.
    """
    device = batch.frames.device
    first, end, _ = (clips or slice(None)).indices(len(batch))
    chosen = slice(first, end)
    frames = torch.empty((end - first, spec.frames, spec.height, spec.width, 3), device=device)
    # What decides which work is done is asked on the host; then the device gets it (see Batch.to).
    _, saturates, contrasts, turns = (
        any(value != unchanged for value in column)
        for column, unchanged in zip(
            zip(*batch.colour.tolist(), strict=True), UNCHANGED, strict=True
        )
    )
    colour = batch.colour.to(device, non_blocking=True)
    with torch.autocast(device.type, enabled=False):
        for at in range(first, end, CLIPS_AT_ONCE):
            part = slice(at, min(at + CLIPS_AT_ONCE, end))
            out = frames[at - first : part.stop - first]
            resize_frames(batch, part, out=out, antialias=antialias)
            _colour(out, colour[part], saturates, contrasts, turns)
        gain = batch.gain[chosen, None] / 2**15
        waveform = batch.waveform[chosen].float().mul_(gain).clamp_(-1.0, 1.0)
    text_mask = batch.text_mask[chosen]
    rows = None if all_texts else rows_with_text(text_mask)
    return Inputs(
        frames=frames,
        audio=waveform,
        has_audio=batch.has_audio[chosen],
        word_ids=batch.word_ids[chosen],
        text_mask=text_mask.to(device, non_blocking=True),
        draw=batch.draw[chosen],
        text_rows=None if rows is None else rows.to(device, non_blocking=True),
    )


def rows_with_text(text_mask: Tensor) -> Tensor | None:
    """Which of the B × K texts a model must look at, int64 [R]; None where few are masked.

    As many as an eighth of all, or two, three …: masked ones fill the rest, so that an accelerator
    meets eight shapes at most, and can use again the memory that it has.

    Args:
        text_mask: bool [B, K], on the host.
    """
    flat = text_mask.flatten()
    piece = -(-len(flat) // TEXT_SHAPES)
    number = max(1, -(-int(flat.sum()) // piece)) * piece
    if number >= len(flat):
        return None
    return flat.logical_not().to(torch.uint8).argsort(stable=True)[:number].sort().values


def _colour(values: Tensor, colour: Tensor, saturates: bool, contrasts: bool, turns: bool) -> None:
    """Frames [b, T, H, W, 3] in [0, 255] → coloured, clipped, in [-1, 1]; in place.

    Brightness, saturation, contrast, hue, in the order of the official code. All but saturation
    and hue together are one multiplication and one addition.

    Args:
        values: changed in place.
        colour: [b, 4], the four changes of each clip.
        saturates: whether any clip changes its saturation; so the others.
        contrasts: whether any clip changes its contrast.
        turns: whether any clip turns its hue.
    """
    b, T, H, W, C = values.shape
    brightness, saturation, contrast, hue = colour[:, :, None, None, None].unbind(1)
    if saturates:
        bright = values.div_(255.0).add_(brightness[..., None])
        saturated = saturate(bright, saturation[..., None]).sub_(brightness[..., None])
        values.copy_(saturated.mul_(255.0))
    lines = values.view(b, T, H, W * C)
    offset = 2.0 * brightness - 1.0
    if contrasts:
        mean = lines.mean(dim=2).view(b, T, W, C).mean(dim=2, keepdim=True)  # per frame, channel
        offset = offset + (1.0 - contrast) * (2.0 / 255.0) * mean
    lines.mul_(contrast * (2.0 / 255.0)).add_(offset.expand(b, T, W, C).reshape(b, T, 1, W * C))
    if turns:
        values.copy_(turn_hue(values, hue[..., None]))
    values.clamp_(-1.0, 1.0)


def saturate(values: Tensor, factor: Tensor) -> Tensor:
    """Multiply the saturation of RGB values (last axis) by `factor`, at most up to 1.

    As in HSV, with hue and value kept; values of 0 or less are black and turn grey.
    """
    brightest = values.amax(-1, keepdim=True)
    darkest = values.amin(-1, keepdim=True)
    spread = brightest - darkest
    saturation = torch.where(brightest > 0, spread / brightest, 0.0)
    wanted = (saturation * factor).clamp_(0.0, 1.0)
    share = torch.where(saturation > 0, wanted / saturation, 0.0)
    return brightest - (brightest - values) * share


def turn_hue(values: Tensor, share: Tensor) -> Tensor:
    """Turn the hue of RGB values (last axis) by that share of the colour circle.

    Brightest and darkest channel keep their values, as in TensorFlow's adjust_hue.
    """
    brightest = values.amax(-1, keepdim=True)
    darkest = values.amin(-1, keepdim=True)
    spread = brightest - darkest
    red, green, blue = values[..., :1], values[..., 1:2], values[..., 2:]
    safe = torch.where(spread > 0, spread, 1.0)
    sextant = torch.where(
        red == brightest,
        (green - blue) / safe,
        torch.where(green == brightest, 2.0 + (blue - red) / safe, 4.0 + (red - green) / safe),
    )
    channel = torch.arange(5.0, 0.0, -2.0, device=values.device)  # 5, 3, 1
    place = torch.remainder(channel + sextant + 6.0 * share, 6.0)
    return brightest - spread * torch.minimum(place, 4.0 - place).clamp_(0.0, 1.0)
