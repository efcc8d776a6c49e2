"""What frozen networks make of a split's clips: extracted once, shared by all tasks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from vatt.contracts import Batch, ClipSpec, Inputs, draw_bits
from vatt.data.augment import apply
from vatt.devices import seeded
from vatt.errors import DataError
from vatt.evaluation.clips import EvalClip
from vatt.models.model_config import ModelConfig
from vatt.models.spectrogram import log_mel
from vatt.models.tokens import PatchTokens
from vatt.models.vatt import Vatt
from vatt.storage import atomic_file

logger = logging.getLogger(__name__)

Arrays = Mapping[str, NDArray[Any]]
PRETRAINED, RANDOM_INIT, STILL_FRAME = "pretrained", "random_init", "still_frame"
_RANDOM_INIT_STREAM = 1  # tells the draw of untrained weights from the others of one seed


@dataclass(frozen=True, slots=True)
class SplitFeatures:
    """Vectors of all clips of a split, of three kinds of network.

    split: its name.
    moments: [N], the clips that could be decoded.
    vectors: "<network>/<name>" → float32 [N, …]; network is pretrained, random_init (the same one
        before training) or still_frame (the pretrained one seeing the middle frame only); name is
        video_features, audio_features, video_va, audio_va or video_vt (still_frame: the first;
        pretrained: video_input and audio_input too).
    peaks: [N], loudest sample of each clip in [0, 1]; 0 without a sound track.
    failed: the clips that could not.
    """

    split: str
    moments: tuple[EvalClip, ...]
    vectors: Arrays
    peaks: NDArray[np.float32]
    failed: tuple[EvalClip, ...]

    def of(self, network: str, name: str) -> NDArray[np.float32]:
        """One kind of vector, [N, …]."""
        found: NDArray[np.float32] = self.vectors[f"{network}/{name}"]
        return found

    def labels(self, column: str) -> NDArray[np.str_]:
        """One label of each clip, [N]; "" where it is not known."""
        return np.array([moment.labels.get(column, "") for moment in self.moments], dtype=np.str_)

    @property
    def captions(self) -> list[str]:
        """The caption of each clip; "" where there is none."""
        return [moment.caption for moment in self.moments]


def untrained(config: ModelConfig, *, seed: int) -> Vatt:
    """The same network before training, from a fresh seed."""
    with seeded(draw_bits(seed, _RANDOM_INIT_STREAM)):
        return Vatt(config).eval()


def extract(
    module: Vatt,
    random_init: Vatt,
    batches: Iterable[Batch],
    spec: ClipSpec,
    precision: AbstractContextManager[Any],
) -> dict[str, NDArray[Any]]:
    """Run the networks over clips without augmentation.

    Args:
        module: trained, in evaluation mode.
        random_init: the same before training.
        batches: their clips; those whose positions never come cannot be read.
        spec: of the clips.
        precision: autocast, or nothing.

    Returns:
        "positions" int64 [N] ascending, "peaks" float32 [N], and the vectors of `SplitFeatures`.

    Raises:
        DataError: no clip came.
    """
    parts: list[dict[str, Tensor]] = []
    for batch in batches:
        inputs = apply(batch, spec)
        peaks = batch.waveform.float().abs().amax(1) / 2**15 * batch.has_audio
        part = {"positions": torch.tensor(batch.positions), "peaks": peaks}
        with torch.inference_mode(), precision:
            part |= _named(PRETRAINED, _vectors(module, inputs) | input_space(module, inputs))
            part |= _named(RANDOM_INIT, _vectors(random_init, inputs))
            part[f"{STILL_FRAME}/video_features"] = module.video_features(still(inputs.frames))
        parts.append({name: _plain(rows) for name, rows in part.items()})
    if not parts:
        raise DataError("evaluation: no clip could be decoded, expected at least one")
    joined = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
    order = np.argsort(joined["positions"])
    return {name: rows[order] for name, rows in joined.items()}


def still(frames: Tensor) -> Tensor:
    """The middle frame in place of all: the same pictures [B, T, H, W, 3] without any motion."""
    middle = frames.shape[1] // 2
    return frames[:, middle : middle + 1].expand_as(frames)


def _vectors(module: Vatt, inputs: Inputs) -> dict[str, Tensor]:
    video = module.video_features(inputs.frames)
    audio = module.audio_features(inputs.audio)
    video_va, video_vt = module.heads.video(video)
    return {
        "video_features": video,
        "audio_features": audio,
        "video_va": video_va,
        "video_vt": video_vt,
        "audio_va": module.heads.audio(audio, inputs.has_audio),
    }


def input_space(module: Vatt, inputs: Inputs) -> dict[str, Tensor]:
    """Mean token of each clip [B, D] where it enters the backbone (§4.4.6, "input space")."""
    config = module.config.audio
    audio = inputs.audio
    if config.kind == "spectrogram":
        audio = log_mel(audio, config.sample_rate_hz, config.spectrogram)
    return {
        "video_input": _mean_token(module.video_tokens, inputs.frames),
        "audio_input": _mean_token(module.audio_tokens, audio[..., None]),
    }


def _mean_token(tokens: PatchTokens, signal: Tensor) -> Tensor:
    every: Tensor = tokens(signal, draw=None, rate=0.0, stream=0, scope="sample")
    return every[:, 1:].mean(1)


def _named(network: str, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{network}/{name}": rows for name, rows in vectors.items()}


def _plain(rows: Tensor) -> Tensor:
    return (rows.float() if rows.is_floating_point() else rows).cpu()


def cached(path: Path, make: Callable[[], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """The arrays of a file, made and written when there is none (or a damaged one)."""
    if path.is_file():
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            logger.warning("%s: damaged (%s); extracting the features again", path, error)
    started = time.perf_counter()
    arrays = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as aside:
        save_file(arrays, aside)
    seconds = time.perf_counter() - started
    logger.info("%s: %d clips in %.1f s", path.name, len(arrays["positions"]), seconds)
    return arrays
