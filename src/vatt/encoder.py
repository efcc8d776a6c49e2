"""A trained model from Python: files, tensors or strings in, features and embeddings out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from vatt.contracts import ClipSpec
from vatt.data.clip_timing import clip_samples, clip_times, window_starts
from vatt.data.tokenizer import WordTokenizer
from vatt.devices import pick_device
from vatt.errors import CheckpointError, ConfigError, MediaError
from vatt.media.audio import resample
from vatt.media.facts import VideoFacts
from vatt.media.media_file import decode_audio, decode_frames, probe
from vatt.models.classifier import Classifier, ClassifierConfig
from vatt.models.model_config import ModelConfig
from vatt.models.vatt import Vatt
from vatt.models.weights import load_any

Name: TypeAlias = str | os.PathLike[str]
WINDOWS = 4  # of a file, evenly spread (§4.3)
CLIPS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the model makes of N videos, sounds or texts.

    features: float [N, D], output of the backbone.
    va: float [N, E_va], unit rows to compare video with audio; None for text.
    vt: float [N, E_vt], unit rows to compare video with text; None for audio.
    logits: float [N, classes], of a classifier, which has neither `va` nor `vt`.
    """

    features: Tensor
    va: Tensor | None = None
    vt: Tensor | None = None
    logits: Tensor | None = None


class Encoder:
    """A model with all it needs to read files and strings; `load` makes one.

    Attributes:
        module: the network itself, in evaluation mode: a pre-trained model or a classifier.
        spec: length, rate and size of the clips it was trained on.
        tokenizer: words → ids; None when the model folder has no tokenizer.json.
        folder: where it was loaded from.
    """

    def __init__(
        self,
        module: Vatt | Classifier,
        spec: ClipSpec,
        tokenizer: WordTokenizer | None,
        folder: Path,
    ) -> None:
        self.module = module.eval()
        self.spec = spec
        self.tokenizer = tokenizer
        self.folder = folder

    @property
    def vatt(self) -> Vatt:
        """The network of a pre-trained model.

        Raises:
            CheckpointError: it is a classifier.
        """
        if isinstance(self.module, Classifier):
            raise CheckpointError(
                f"{self.folder}: is a classifier of {self.module.config.modality}, expected a "
                "pre-trained model with both common spaces"
            )
        return self.module

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
            return _joined(map(self._run_video, torch.split(frames, CLIPS_AT_ONCE)))
        windows = (self._run_video(self._windows_of_video(path)) for path in _paths(videos))
        return _joined(map(_mean, windows))

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
            if sounds.ndim == 3 and self._model_config.audio.kind == "spectrogram":
                heard = _checked(sounds, "spectrogram", "[B, F, M]")
            else:
                heard = _checked(sounds, "waveform", "[B, S]")
                heard = self._at_model_rate(heard, sample_rate_hz)
            return _joined(map(self._run_audio, torch.split(heard, CLIPS_AT_ONCE)))
        windows = (self._run_audio(self._windows_of_sound(path)) for path in _paths(sounds))
        return _joined(map(_mean, windows))

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
        return _joined(map(self._run_text, torch.split(ids, 16 * CLIPS_AT_ONCE)))

    @property
    def _model_config(self) -> ModelConfig:
        config = self.module.config
        return config.model if isinstance(config, ClassifierConfig) else config

    @torch.inference_mode()
    def _run_video(self, frames: Tensor) -> Encoded:
        if isinstance(self.module, Classifier):
            return self._run_classifier("video", frames)
        features = self.module.video_features(frames.to(self.device))
        va, vt = self.module.heads.video(features)
        return Encoded(features.float(), va=va.float(), vt=vt.float())

    @torch.inference_mode()
    def _run_audio(self, waveforms: Tensor) -> Encoded:
        if isinstance(self.module, Classifier):
            return self._run_classifier("audio", waveforms)
        features = self.module.audio_features(waveforms.to(self.device))
        heard = torch.ones(len(features), dtype=torch.bool, device=features.device)
        return Encoded(features.float(), va=self.module.heads.audio(features, heard).float())

    @torch.inference_mode()
    def _run_text(self, ids: Tensor) -> Encoded:
        features = self.vatt.text_features(ids.to(self.device))
        real = torch.ones(len(features), 1, dtype=torch.bool, device=features.device)
        rows = self.vatt.heads.text(features[:, None], real)[:, 0]
        return Encoded(features.float(), vt=rows.float())

    def _run_classifier(self, modality: Literal["video", "audio"], signal: Tensor) -> Encoded:
        assert isinstance(self.module, Classifier)
        if self.module.config.modality != modality:
            raise ConfigError(
                f"{self.folder}: is a classifier of {self.module.config.modality}, found {modality}"
            )
        features = self.module.features(signal.to(self.device))
        return Encoded(features.float(), logits=self.module.classify(features).float())

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
        ids, size = torch.as_tensor(texts), self.vatt.config.text.vocabulary
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
    where = pick_device("auto") if device is None else torch.device(device)
    module, spec = load_any(folder, where)
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


def _mean(windows: Encoded) -> Encoded:
    """One row for all windows of a file; of logits too, as in the official evaluation."""
    return _for_each(lambda columns: columns[0].mean(0, keepdim=True), [windows])


def _joined(parts: Iterable[Encoded]) -> Encoded:
    """All rows, those of the common spaces with length one."""
    encoded = _for_each(torch.cat, list(parts))
    va, vt = (None if z is None else normalize(z, dim=1) for z in (encoded.va, encoded.vt))
    return replace(encoded, va=va, vt=vt)


def _for_each(function: Callable[[list[Tensor]], Tensor], parts: list[Encoded]) -> Encoded:
    """What `function` makes of each field that is there."""
    columns = {item.name: [getattr(part, item.name) for part in parts] for item in fields(Encoded)}
    return Encoded(
        **{name: function(found) for name, found in columns.items() if found[0] is not None}
    )
