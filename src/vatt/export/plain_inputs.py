"""Inputs of exported towers in NumPy, as `encoder_inputs` makes them with PyTorch.

Files are decoded by the same functions; what is done to their frames in NumPy is what
`data/resize.py` and `data/augment.py` do in PyTorch, for one clip that is not augmented.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vatt.contracts import Clip, ClipSpec, PlaneLayout
from vatt.data.file_clips import CLIPS_OF_FILE, spread_clip, spread_waveforms
from vatt.data.resize import KR_KB
from vatt.errors import ConfigError, MediaError
from vatt.export.tower_card import TowerCard
from vatt.media.audio import resample
from vatt.media.media_file import open_media
from vatt.media.planes import frame_bytes, half

CLIPS_AT_ONCE = 32
Floats = NDArray[np.float32]


class PlainInput(NamedTuple):
    """What a tower takes at once: several clips, or the clips of one file."""

    values: NDArray[Any]
    of_one_file: bool = False


def video_inputs(videos: Any, card: TowerCard) -> Iterator[PlainInput]:
    """Frames [n, T, H, W, 3] in [-1, 1], of whole patches."""
    if holds_arrays(videos):
        frames = _checked(videos, "frames", "[B, T, H, W, 3]")
        yield from _parts(whole(frames, card))
        return
    for name in paths_of(videos):
        with open_media(name, damaged=True, sparsely=True) as media:
            if media.facts.video is None:
                raise MediaError(f"{name}: has no video, only audio")
            clip, spec = spread_clip(media, card.clip, card.frame_path)
        frames = frames_of(clip, spec, antialias=card.frame_path.antialias)
        frames = frames.reshape(CLIPS_OF_FILE, card.clip.frames, *frames.shape[1:])
        yield PlainInput(whole(frames, card), of_one_file=True)


def audio_inputs(audio: Any, card: TowerCard, sample_rate_hz: int | None) -> Iterator[PlainInput]:
    """Waveforms [n, S] in [-1, 1], of whole patches; of a file, of the clips of its video."""
    spec = card.clip
    if holds_arrays(audio):
        values = _checked(audio, "waveform", "[B, S]")
        if sample_rate_hz is None:
            raise ConfigError("waveform: give its rate, as in sample_rate_hz=48_000")
        if sample_rate_hz != spec.sample_rate_hz:
            rates = {"from_hz": int(sample_rate_hz), "to_hz": spec.sample_rate_hz}
            values = np.stack([resample(row, **rates) for row in values], dtype=np.float32)
        yield from _parts(whole(values, card))
        return
    for name in paths_of(audio):
        with open_media(name, damaged=True, sparsely=True) as media:
            clips = spread_waveforms(media, spec)
        if clips is None:
            raise MediaError(f"{name}: has no audio")
        yield PlainInput(whole(clips.astype(np.float32) / 2**15, card), of_one_file=True)


def _parts(values: Floats) -> Iterator[PlainInput]:
    for first in range(0, len(values), CLIPS_AT_ONCE):
        yield PlainInput(values[first : first + CLIPS_AT_ONCE])


def holds_arrays(values: Any) -> bool:
    """Whether values are given, in one array or several; else they are paths."""
    several = isinstance(values, list | tuple) and len(values) > 0
    return _is_array(values) or (several and all(map(_is_array, values)))


def _is_array(value: Any) -> bool:
    numbers = hasattr(value, "__array__") and hasattr(value, "shape") and not isinstance(value, str)
    return numbers and np.asarray(value).dtype.kind not in "UO"


def _checked(values: Any, name: str, shape: str) -> Floats:
    """Values as an array, once they are floats in [-1, 1] of the right number of axes."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ConfigError(f"{name}: cannot be taken as one array: {error}") from error
    channels_last = not shape.endswith("3]") or array.shape[-1:] == (3,)
    if array.ndim != shape.count(",") + 1 or not channels_last or 0 in array.shape:
        raise ConfigError(f"{name}: found shape {list(array.shape)}, expected {shape} without a 0")
    if array.dtype.kind != "f" or not bool((np.abs(array) <= 1 + 1e-3).all()):
        raise ConfigError(
            f"{name}: found {array.dtype} from {array.min():g} to {array.max():g}, expected floats "
            "in [-1, 1]"
        )
    return np.ascontiguousarray(array, np.float32)


def paths_of(names: Any) -> list[Path]:
    """One path, or several, as a list.

    Raises:
        ConfigError: none, or something else than paths.
    """
    listed = [names] if isinstance(names, str | os.PathLike) else list(names)
    if not listed or not all(isinstance(name, str | os.PathLike) for name in listed):
        found = type(listed[0]).__name__ if listed else "nothing"
        raise ConfigError(f"found {found}, expected paths, or float arrays of one shape")
    return [Path(name) for name in listed]


def whole(values: NDArray[Any], card: TowerCard) -> NDArray[Any]:
    """Values [B, *grid, …] filled up or cut to whole patches, as the model itself does.

    Raises:
        ConfigError: less than one patch is left, or the tower takes clips of one size only.
    """
    sizes = values.shape[1 : 1 + len(card.patch)]
    if not card.any_size:
        if sizes != card.sizes:
            raise ConfigError(
                f"{card.tower}: found size {tuple(sizes)}, expected {card.sizes}: this exported "
                "model takes clips of its own size only"
            )
        return values
    if card.edges == "cut":
        if any(n < p for n, p in zip(sizes, card.patch, strict=True)):
            raise ConfigError(
                f"{card.tower}: found size {tuple(sizes)}, expected at least {card.patch}"
            )
        return values[
            (slice(None), *(slice(n - n % p) for n, p in zip(sizes, card.patch, strict=True)))
        ]
    filled = [math.ceil(n / p) * p for n, p in zip(sizes, card.patch, strict=True)]
    if filled == list(sizes):
        return values
    channels = values.shape[1 + len(card.patch) :]
    padded = np.empty((len(values), *filled, *channels), np.float32)
    padded[...] = card.padding if channels else card.padding[0]
    padded[(slice(None), *map(slice, sizes))] = values
    return padded


def frames_of(clip: Clip, spec: ClipSpec, *, antialias: bool) -> Floats:
    """Decoded frames cropped, resized and in colours: [T, H, W, 3] in [-1, 1]."""
    size = spec.height, spec.width
    if clip.layout is None:
        rgb = _resized(clip, clip.frames, size, antialias=antialias, scale=1)
    else:
        rgb = _from_planes(clip, clip.layout, size, antialias=antialias)
    frames: Floats = np.clip(rgb * np.float32(2 / 255) - np.float32(1), -1.0, 1.0)
    return frames


def _from_planes(
    clip: Clip, layout: PlaneLayout, size: tuple[int, int], *, antialias: bool
) -> Floats:
    height, width, flat = layout.height, layout.width, clip.frames
    T = len(flat) // frame_bytes(height, width)
    middle = T * height * width
    luma = flat[:middle].reshape(T, height, width, 1)
    chroma = flat[middle:].reshape(T, 2, half(height), half(width)).transpose(0, 2, 3, 1)
    y = _resized(clip, luma, size, antialias=antialias, scale=1)[..., 0]
    colours = _resized(clip, chroma, size, antialias=antialias, scale=2)
    if not layout.full_range:
        y = (y - 16) * np.float32(255 / 219)
    colours = (colours - 128) * np.float32(1 if layout.full_range else 255 / 224)
    blue, red = colours[..., 0], colours[..., 1]
    kr, kb = KR_KB[layout.bt709]
    green = 2 / (1 - kr - kb) * (kb * (1 - kb) * blue + kr * (1 - kr) * red)
    rgb = np.stack([y + 2 * (1 - kr) * red, y - green, y + 2 * (1 - kb) * blue], -1)
    clipped: Floats = np.clip(rgb, 0.0, 255.0, dtype=np.float32)
    return clipped


def _resized(
    clip: Clip, pixels: NDArray[np.uint8], size: tuple[int, int], *, antialias: bool, scale: int
) -> Floats:
    """[T, H, W, C] → the clip's crop of it at `size`; `scale` luma pixels are one of these."""
    crop, (H, W) = clip.augmentation.crop, pixels.shape[1:3]
    own = (clip.layout.height, clip.layout.width) if clip.layout else (H, W)
    rows = _weights(crop.top, crop.height, own[0] / scale, H, size[0], antialias=antialias)
    columns = _weights(crop.left, crop.width, own[1] / scale, W, size[1], antialias=antialias)
    T, C = len(pixels), pixels.shape[3]
    lines = rows @ pixels.astype(np.float32).reshape(T, H, W * C)
    resized: Floats = columns @ lines.reshape(T, size[0], W, C)
    return resized


def _weights(
    start: float, extent: float, length: float, size_in: int, size_out: int, *, antialias: bool
) -> Floats:
    """As `resize_weights`, [size_out, size_in], of a box in shares of the axis."""
    first, pixels = np.float32(start * length), np.float32(extent * length)
    outputs = (np.arange(size_out, dtype=np.float32) + np.float32(0.5)) / np.float32(size_out)
    inputs = np.arange(size_in, dtype=np.float32) + np.float32(0.5)
    centres = first + outputs * pixels
    reach = max(pixels / np.float32(size_out), np.float32(1)) if antialias else np.float32(1)
    weights = np.maximum(1 - np.abs(inputs - centres[:, None]) / reach, 0)
    weights *= inputs < math.ceil(length)
    shares: Floats = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return shares


def word_ids_of(texts: Any) -> NDArray[np.int64] | None:
    """Word ids, int64 [B, L], if that is what is given.

    Raises:
        ConfigError: they are of another shape or type.
    """
    if not holds_arrays(texts):
        return None
    ids = np.asarray(texts)
    if ids.ndim != 2 or 0 in ids.shape or ids.dtype.kind not in "iu":
        raise ConfigError(
            f"word ids: found {ids.dtype} {list(ids.shape)}, expected integers [B, L]"
        )
    return ids.astype(np.int64)


def strings_of(texts: Any) -> Sequence[str]:
    """One string, or several, as a list.

    Raises:
        ConfigError: none, or something else than strings.
    """
    listed = [texts] if isinstance(texts, str) else list(texts)
    if not listed or not all(isinstance(one, str) for one in listed):
        found = type(listed[0]).__name__ if listed else "nothing"
        raise ConfigError(
            f"texts: found {found}, expected strings, or word ids as one array [B, L]"
        )
    return listed
