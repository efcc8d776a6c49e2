"""A trained model from Python: files, tensors or strings in, features and embeddings out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from vatt.contracts import ClipSpec
from vatt.data.sampling import clip_samples, clip_times, window_starts
from vatt.data.words import WordTokenizer
from vatt.errors import CheckpointError, ConfigError, MediaError
from vatt.media.audio import decode_audio, resample
from vatt.media.video import VideoFacts, decode_frames, probe
from vatt.models.vatt import Vatt
from vatt.models.weights import load_model

Name: TypeAlias = str | os.PathLike[str]
WINDOWS = 4  # of a file, evenly spread (§4.3)
CLIPS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the model makes of N videos, sounds or texts.

    features: float [N, D], output of the backbone.
    va: float [N, E_va], unit rows to compare video with audio; None for text.
    vt: float [N, E_vt], unit rows to compare video with text; None for audio.
    """

    features: Tensor
    va: Tensor | None
    vt: Tensor | None


class Encoder:
    """A model with all it needs to read files and strings; `load` makes one.

    Attributes:
        module: the network itself, in evaluation mode.
        spec: length, rate and size of the clips it was trained on.
        tokenizer: words → ids; None when the model folder has no tokenizer.json.
        folder: where it was loaded from.
    """

    def __init__(
        self, module: Vatt, spec: ClipSpec, tokenizer: WordTokenizer | None, folder: Path
    ) -> None:
        self.module = module.eval()
        self.spec = spec
        self.tokenizer = tokenizer
        self.folder = folder

    @property
    def device(self) -> torch.device:
        """Where the network is; results are there too."""
        return next(self.module.parameters()).device

    def encode_video(
        self, videos: Name | Sequence[Name] | Tensor | NDArray[np.floating]
    ) -> Encoded:
        """Encode videos.

        Args:
            videos: paths, of which each gives the mean of 4 windows spread over the file; or float
                frames [B, T, H, W, 3] in [-1, 1], of any length and size.

        Raises:
            MediaError: a file cannot be decoded.
            ConfigError: frames of another shape, type or range.
        """
        if isinstance(videos, Tensor | np.ndarray):
            frames = _checked(videos, "frames", "[B, T, H, W, 3]")
            return self._joined_video(map(self._run_video, torch.split(frames, CLIPS_AT_ONCE)))
        windows = (self._run_video(self._windows_of_video(path)) for path in _paths(videos))
        return self._joined_video(_mean(window) for window in windows)

    def encode_audio(
        self,
        sounds: Name | Sequence[Name] | Tensor | NDArray[np.floating],
        *,
        sample_rate_hz: int | None = None,
    ) -> Encoded:
        """Encode sounds.

        Args:
            sounds: paths, of which each gives the mean of 4 windows spread over the file; or mono
                waveforms, float [B, S] in [-1, 1], of any length; or, for a spectrogram model,
                log-mel values float [B, F, M] in [0, 1].
            sample_rate_hz: of waveforms; they are resampled to the model's rate.

        Raises:
            MediaError: a file cannot be decoded or has no sound.
            ConfigError: waveforms of another shape, type or range, or without their rate.
        """
        if isinstance(sounds, Tensor | np.ndarray):
            if sounds.ndim == 3 and self.module.config.audio.kind == "spectrogram":
                heard = _checked(sounds, "spectrogram", "[B, F, M]")
            else:
                heard = _checked(sounds, "waveform", "[B, S]")
                heard = self._at_model_rate(heard, sample_rate_hz)
            return self._joined_audio(map(self._run_audio, torch.split(heard, CLIPS_AT_ONCE)))
        windows = (self._run_audio(self._windows_of_sound(path)) for path in _paths(sounds))
        return self._joined_audio(_mean(window) for window in windows)

    def encode_text(self, texts: str | Sequence[str] | Tensor | NDArray[np.integer]) -> Encoded:
        """Encode texts.

        Args:
            texts: strings, cut to the model's number of words; or word ids int64 [B, L], 0 is
                padding.

        Raises:
            CheckpointError: strings, but the model has no vocabulary.
            ConfigError: word ids of another shape or type, or beyond the vocabulary.
        """
        ids = self._word_ids(texts)
        parts = [self._run_text(part) for part in torch.split(ids, 16 * CLIPS_AT_ONCE)]
        features, vt = _joined(parts)
        return Encoded(features, None, normalize(vt, dim=1))

    def _joined_video(self, parts: Iterable[tuple[Tensor, ...]]) -> Encoded:
        features, va, vt = _joined(parts)
        return Encoded(features, normalize(va, dim=1), normalize(vt, dim=1))

    def _joined_audio(self, parts: Iterable[tuple[Tensor, ...]]) -> Encoded:
        features, va = _joined(parts)
        return Encoded(features, normalize(va, dim=1), None)

    @torch.inference_mode()
    def _run_video(self, frames: Tensor) -> tuple[Tensor, ...]:
        features = self.module.video_features(frames.to(self.device))
        return features.float(), *(rows.float() for rows in self.module.heads.video(features))

    @torch.inference_mode()
    def _run_audio(self, waveforms: Tensor) -> tuple[Tensor, ...]:
        features = self.module.audio_features(waveforms.to(self.device))
        heard = torch.ones(len(features), dtype=torch.bool, device=features.device)
        return features.float(), self.module.heads.audio(features, heard).float()

    @torch.inference_mode()
    def _run_text(self, ids: Tensor) -> tuple[Tensor, ...]:
        features = self.module.text_features(ids.to(self.device))
        real = torch.ones(len(features), 1, dtype=torch.bool, device=features.device)
        return features.float(), self.module.heads.text(features[:, None], real)[:, 0].float()

    def _windows_of_video(self, path: Path) -> Tensor:
        """Frames [4, T, H, W, 3] in [-1, 1] of the largest centred box of the model's aspect."""
        facts = probe(path)
        if facts.video is None:
            raise MediaError(f"{path}: has no picture; encode_audio reads its sound")
        spec, duration_s = self.spec, facts.duration_s
        times_s = [
            clip_times(spec, start_s, duration_s)
            for start_s in window_starts(duration_s, spec, WINDOWS).tolist()
        ]
        size = _covering(spec, facts.video)
        frames = torch.from_numpy(decode_frames(path, np.concatenate(times_s), size=size))
        top, left = (size[0] - spec.height) // 2, (size[1] - spec.width) // 2
        boxes = frames[:, top : top + spec.height, left : left + spec.width]
        return boxes.float().mul_(2 / 255).sub_(1).reshape(WINDOWS, spec.frames, *boxes.shape[1:])

    def _windows_of_sound(self, path: Path) -> Tensor:
        """Waveforms [4, S] in [-1, 1] of the moments that `_windows_of_video` sees."""
        spec = self.spec
        track = decode_audio(path, sample_rate_hz=spec.sample_rate_hz)
        if track is None:
            raise MediaError(f"{path}: has no sound")
        facts = probe(path)
        duration_s = facts.duration_s if facts.video else len(track) / spec.sample_rate_hz
        starts_s = window_starts(duration_s, spec, WINDOWS).tolist()
        heard = [clip_samples(track, spec, start_s, duration_s) for start_s in starts_s]
        return torch.from_numpy(np.stack(heard)).float().div_(2**15)

    def _at_model_rate(self, waveforms: Tensor, sample_rate_hz: int | None) -> Tensor:
        if sample_rate_hz is None:
            raise ConfigError("encode_audio: say the waveform's rate: sample_rate_hz=48_000")
        if sample_rate_hz == self.spec.sample_rate_hz:
            return waveforms
        rows = [
            resample(row, from_hz=sample_rate_hz, to_hz=self.spec.sample_rate_hz)
            for row in waveforms.cpu().numpy()
        ]
        return torch.from_numpy(np.stack(rows))

    def _word_ids(self, texts: str | Sequence[str] | Tensor | NDArray[np.integer]) -> Tensor:
        if not isinstance(texts, Tensor | np.ndarray):
            if self.tokenizer is None:
                raise CheckpointError(
                    f"{self.folder / 'tokenizer.json'}: missing, so strings cannot be read; copy "
                    "it from the run's model/ folder, or give word ids [B, L]"
                )
            strings = [texts] if isinstance(texts, str) else list(texts)
            return torch.from_numpy(self.tokenizer.encode(strings, self.spec.words))
        ids, size = torch.as_tensor(texts), self.module.config.text.vocabulary
        if ids.ndim != 2 or ids.is_floating_point():
            raise ConfigError(
                f"word ids: found {ids.dtype} {list(ids.shape)}, expected integers [B, L]"
            )
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < size:
            raise ConfigError(
                f"word ids: found {int(ids.min())} to {int(ids.max())}, expected 0 to {size - 1}"
            )
        return ids.long()


def load(path: Name, device: str | torch.device | None = None) -> Encoder:
    """Load a trained model.

    Args:
        path: a run folder, the model/ folder in it, or the folder of a converted checkpoint.
        device: where to compute; a CUDA device when there is one, else the CPU.

    Raises:
        CheckpointError: there is no model, it is damaged, or of a newer format.
    """
    folder = model_folder(path)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    module, _, spec, _ = load_model(folder, torch.device(device))
    words = folder / "tokenizer.json"
    tokenizer = WordTokenizer.load(words) if words.is_file() else None
    return Encoder(module, spec, tokenizer, folder)


def model_folder(path: Name) -> Path:
    """Where the model is: `path` itself or the model/ folder in it.

    Raises:
        CheckpointError: there is none.
    """
    given = Path(path)
    folder = given / "model" if (given / "model" / "config.json").is_file() else given
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{given}: no model here (neither config.json nor model/config.json); expected a run "
            "folder of `vatt pretrain` or a model folder"
        )
    return folder


def _paths(names: Name | Sequence[Name]) -> list[Path]:
    listed = [names] if isinstance(names, str | os.PathLike) else list(names)
    if not listed:
        raise ConfigError("encode: found no paths, expected at least one")
    return [Path(name) for name in listed]


def _checked(values: Tensor | NDArray[np.floating], name: str, shape: str) -> Tensor:
    """Values as a tensor, once they are floats in [-1, 1] of the right number of axes."""
    tensor = torch.as_tensor(values)
    channels_last = not shape.endswith("3]") or tensor.shape[-1:] == (3,)
    if tensor.ndim != shape.count(",") + 1 or not channels_last or not len(tensor):
        raise ConfigError(f"{name}: found shape {list(tensor.shape)}, expected {shape}")
    if not tensor.is_floating_point():
        raise ConfigError(f"{name}: found {tensor.dtype}, expected floats in [-1, 1]")
    if not bool((tensor.abs() <= 1 + 1e-3).all()):
        low, high = float(tensor.min()), float(tensor.max())
        raise ConfigError(f"{name}: found values from {low:g} to {high:g}, expected [-1, 1]")
    return tensor.float()


def _covering(spec: ClipSpec, video: VideoFacts) -> tuple[int, int]:
    """The smallest (H, W) of the video's own aspect that covers the model's frame."""
    aspect = float(video.width * video.sample_aspect / video.height)
    if video.rotation % 180:
        aspect = 1 / aspect
    if aspect >= spec.width / spec.height:
        return spec.height, max(spec.width, round(spec.height * aspect))
    return max(spec.height, round(spec.width / aspect)), spec.width


def _mean(windows: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(rows.mean(0, keepdim=True) for rows in windows)


def _joined(parts: Iterable[tuple[Tensor, ...]]) -> list[Tensor]:
    return [torch.cat(columns) for columns in zip(*parts, strict=True)]
