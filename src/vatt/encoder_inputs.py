"""What users give to encoders: paths, arrays or lists, checked and made tensors of clips."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vatt.contracts import AudioKind, ClipSpec, FramePath
from vatt.data.file_clips import spread_frames, spread_waveforms
from vatt.errors import ConfigError, MediaError
from vatt.media.audio import resample
from vatt.media.media_file import open_media

FilePath: TypeAlias = str | os.PathLike[str]
Floats: TypeAlias = Tensor | NDArray[np.floating]
Signal: TypeAlias = FilePath | Sequence[FilePath] | Floats | Sequence[Floats]
Texts: TypeAlias = str | Sequence[str] | Tensor | NDArray[np.integer]
CLIPS_AT_ONCE = 32
MAX_RATE_HZ = 768_000  # of waveforms


class Input(NamedTuple):
    """What a network takes at once: several clips, or the clips of one file."""

    values: Tensor
    of_one_file: bool = False


def read_video(
    videos: Signal, spec: ClipSpec, path: FramePath, device: torch.device
) -> Iterator[Input]:
    """Frames [n, T, H, W, 3] in [-1, 1]."""
    if _holds_arrays(videos):
        frames = _checked(videos, "frames", "[B, T, H, W, 3]")
        yield from map(Input, torch.split(frames, CLIPS_AT_ONCE))
        return
    for name in _paths(videos):
        with open_media(name, damaged=True, sparsely=True) as media:
            if media.facts.video is None:
                raise MediaError(f"{name}: has no video, only audio")
            frames = spread_frames(media, spec, path, device)
        yield Input(frames, of_one_file=True)


def read_audio(
    audio: Signal, spec: ClipSpec, kind: AudioKind, sample_rate_hz: int | None
) -> Iterator[Input]:
    """Waveforms [n, S] in [-1, 1], or log-mel values; of a file, of the clips of `read_video`."""
    if _holds_arrays(audio):
        found = as_tensor(audio, "waveform")
        if found.ndim == 3 and kind == "spectrogram":
            values = _checked(found, "spectrogram", "[B, F, M]")
        else:
            values = _at_rate(_checked(found, "waveform", "[B, S]"), sample_rate_hz, spec)
        yield from map(Input, torch.split(values, CLIPS_AT_ONCE))
        return
    for path in _paths(audio):
        with open_media(path, damaged=True, sparsely=True) as media:
            clips = spread_waveforms(media, spec)
        if clips is None:
            raise MediaError(f"{path}: has no audio")
        yield Input(torch.from_numpy(clips).float().div_(2**15), of_one_file=True)


def _at_rate(waveforms: Tensor, rate_hz: int | None, spec: ClipSpec) -> Tensor:
    """Waveforms [B, S] at the model's rate."""
    if rate_hz is None:
        raise ConfigError("waveform: give its rate, as in sample_rate_hz=48_000")
    if not isinstance(rate_hz, int | float | np.number) or not (
        0 < rate_hz <= MAX_RATE_HZ and rate_hz == int(rate_hz)
    ):
        raise ConfigError(
            f"sample_rate_hz: found {rate_hz!r}, expected a whole number from 1 to {MAX_RATE_HZ:,}"
        )
    if rate_hz == spec.sample_rate_hz:
        return waveforms
    rows, to_hz = waveforms.detach().cpu().numpy(), spec.sample_rate_hz
    try:
        resampled = np.stack([resample(row, from_hz=int(rate_hz), to_hz=to_hz) for row in rows])
    except (ValueError, OSError):  # libswresample gives nothing
        resampled = np.zeros((len(rows), 0), np.float32)
    if not resampled.size:
        raise ConfigError(
            f"waveform: found {waveforms.shape[1]} samples at {rate_hz} Hz, too few to resample "
            f"them to the model's {to_hz} Hz; give more, or another sample_rate_hz"
        )
    return torch.from_numpy(resampled)


def _holds_arrays(values: Any) -> TypeGuard[Floats | Sequence[Floats]]:
    """Whether values are given, in one array or several; else they are paths."""
    several = isinstance(values, list | tuple) and len(values) > 0
    arrays = Tensor | np.ndarray
    return isinstance(values, arrays) or (several and all(isinstance(v, arrays) for v in values))


def as_tensor(values: Any, name: str) -> Tensor:
    """An array or a list of arrays as one tensor.

    Raises:
        ConfigError: torch cannot take it, or the arrays of the list differ in shape.
    """
    try:
        if isinstance(values, list | tuple):
            return torch.stack([as_tensor(one, name) for one in values])
        if isinstance(values, np.ndarray):  # torch takes no negative strides, nor other byte orders
            values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{name}: cannot be taken as one tensor: {error}") from error


def as_list(values: Any, name: str) -> list[Any]:
    """The items of a list, at least one; else a ConfigError."""
    try:
        listed = list(values)
    except TypeError as error:
        raise ConfigError(f"{name}: found {type(values).__name__}, expected a list") from error
    if not listed:
        raise ConfigError(f"found no {name}, expected at least one")
    return listed


def _paths(names: Any) -> list[Path]:
    listed = [names] if isinstance(names, str | os.PathLike) else as_list(names, "paths")
    for name in listed:
        if not isinstance(name, str | os.PathLike):
            raise ConfigError(
                f"found {type(name).__name__}, expected paths, or float arrays of one shape"
            )
    return [Path(name) for name in listed]


def _checked(values: Floats | Sequence[Floats], name: str, shape: str) -> Tensor:
    """Values as a tensor, once they are floats in [-1, 1] of the right number of axes."""
    tensor = as_tensor(values, name)
    channels_last = not shape.endswith("3]") or tensor.shape[-1:] == (3,)
    if tensor.ndim != shape.count(",") + 1 or not channels_last or 0 in tensor.shape:
        raise ConfigError(f"{name}: found shape {list(tensor.shape)}, expected {shape} without a 0")
    if not tensor.is_floating_point():
        raise ConfigError(f"{name}: found {tensor.dtype}, expected floats in [-1, 1]")
    low, high = map(float, tensor.aminmax())
    if not (low >= -1 - 1e-3 and high <= 1 + 1e-3):  # nor NaN
        raise ConfigError(f"{name}: found values from {low:g} to {high:g}, expected [-1, 1]")
    return tensor.float()
