"""Trained models from Python: files, tensors or strings in; features, embeddings or logits out.

`load` opens a pre-trained model, `load_classifier` a classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from vatt.config import CONFIG_FILE, from_values, read_toml
from vatt.contracts import ClipSpec, FramePath
from vatt.data.tokenizer import WordTokenizer
from vatt.devices import AutocastSetting, pick_device
from vatt.devices import autocast as computing_in
from vatt.encoder_inputs import (
    CLIPS_AT_ONCE,
    FilePath,
    Input,
    Signal,
    Texts,
    as_list,
    as_tensor,
    read_audio,
    read_video,
)
from vatt.errors import CheckpointError, ConfigError
from vatt.hub import local_folder
from vatt.models.classifier import Classifier
from vatt.models.vatt import Vatt
from vatt.models.weights import load_model, read_frame_path


@dataclass(frozen=True, slots=True)
class EncodedVideo:
    """N videos.

    features: float [N, D], output of the backbone.
    va: float [N, E_va], unit rows, to compare with audio.
    vt: float [N, E_vt], unit rows, to compare with text.
    """

    features: Tensor
    va: Tensor
    vt: Tensor


@dataclass(frozen=True, slots=True)
class EncodedAudio:
    """N audio tracks.

    features: float [N, D], output of the backbone.
    va: float [N, E_va], unit rows, to compare with video.
    """

    features: Tensor
    va: Tensor


@dataclass(frozen=True, slots=True)
class EncodedText:
    """N texts.

    features: float [N, D], output of the backbone.
    vt: float [N, E_vt], unit rows, to compare with video.
    unknown: float [N], the share of each text's words (as far as the model reads them) that its
        vocabulary lacks; 1 for a text without words.
    """

    features: Tensor
    vt: Tensor
    unknown: Tensor


@dataclass(frozen=True, slots=True)
class Classified:
    """N videos or audio tracks.

    features: float [N, D], output of the backbone.
    logits: float [N, classes]; of video take the softmax (one class is true), of audio the sigmoid
        (several can be), or `ClipClassifier.predict`.
    """

    features: Tensor
    logits: Tensor


class Encoder:
    """A pre-trained model with all it needs to read files and strings; `load` makes one.

    Attributes:
        module: the network itself, in evaluation mode.
        spec: length, rate and size of the clips it was trained on.
        tokenizer: words → ids; None when the model folder has no tokenizer.json.
        folder: where it was loaded from.
        frame_path: how frames come to it, and in which numbers it computes: as in training.
    """

    def __init__(
        self,
        module: Vatt,
        spec: ClipSpec,
        tokenizer: WordTokenizer | None,
        folder: Path,
        frame_path: FramePath | None = None,
    ) -> None:
        self.module = module.eval()
        self.spec = spec
        self.tokenizer = tokenizer
        self.folder = folder
        self.frame_path = frame_path or FramePath()

    @property
    def device(self) -> torch.device:
        """Where the network is; results are there too."""
        return next(self.module.parameters()).device

    def encode_video(self, videos: Signal) -> EncodedVideo:
        """Encode videos.

        Args:
            videos: paths, of which each gives the mean of 4 clips spread over the file; or float
                frames [B, T, H, W, 3] in [-1, 1], of any length and size; or a list of B arrays.

        Raises:
            MediaError: a file cannot be decoded, or is mostly damaged.
            ConfigError: frames of another shape, type or range.
        """

        def network(frames: Tensor) -> tuple[Tensor, ...]:
            features = self.module.video_features(frames)
            return features, *self.module.heads.video(features)

        inputs = read_video(videos, self.spec, self.frame_path, self.device)
        features, va, vt = _run(network, inputs, self.frame_path, self.device)
        return EncodedVideo(features, normalize(va, dim=1), normalize(vt, dim=1))

    def encode_audio(self, audio: Signal, *, sample_rate_hz: int | None = None) -> EncodedAudio:
        """Encode audio tracks.

        Args:
            audio: paths, of which each gives the mean of 4 clips spread over the file; or mono
                waveforms, float [B, S] in [-1, 1], of any length; or, for a spectrogram model,
                log-mel values float [B, F, M] in [0, 1]; or a list of B arrays.
            sample_rate_hz: of waveforms; they are resampled to the model's rate.

        Raises:
            MediaError: a file cannot be decoded, has no audio, or is mostly damaged.
            ConfigError: waveforms of another shape, type or range, or without their rate.
        """

        def network(waveforms: Tensor) -> tuple[Tensor, ...]:
            features = self.module.audio_features(waveforms)
            has_audio = torch.ones(len(features), dtype=torch.bool, device=features.device)
            return features, self.module.heads.audio(features, has_audio)

        inputs = read_audio(audio, self.spec, self.module.config.audio.kind, sample_rate_hz)
        features, va = _run(network, inputs, self.frame_path, self.device)
        return EncodedAudio(features, normalize(va, dim=1))

    def encode_text(self, texts: Texts) -> EncodedText:
        """Encode texts.

        Args:
            texts: strings, cut to the model's number of words; or word ids int64 [B, L], 0 is
                padding.

        Raises:
            CheckpointError: strings, but the model has no vocabulary.
            ConfigError: no text at all, something else than strings, or word ids of another shape
                or type, or beyond the vocabulary.
        """

        def network(ids: Tensor) -> tuple[Tensor, ...]:
            features = self.module.text_features(ids)
            text_mask = torch.ones(len(features), 1, dtype=torch.bool, device=features.device)
            return features, self.module.heads.text(features[:, None], text_mask)[:, 0]

        all_ids = self._word_ids(texts)
        parts = torch.split(all_ids, 16 * CLIPS_AT_ONCE)
        inputs = (Input(ids) for ids in parts)
        features, vt = _run(network, inputs, self.frame_path, self.device)
        unknown_id = self.tokenizer.unknown_id if self.tokenizer else 1
        is_word, is_unknown = all_ids > 0, all_ids == unknown_id
        share = is_unknown.sum(1) / is_word.sum(1)
        unknown = torch.where(is_word.any(1), share, 1.0).to(self.device)
        return EncodedText(features, normalize(vt, dim=1), unknown)

    def _word_ids(self, texts: Texts) -> Tensor:
        if isinstance(texts, np.ndarray) and texts.dtype.kind in "UO":
            texts = texts.tolist()
        if not isinstance(texts, Tensor | np.ndarray):
            strings = [texts] if isinstance(texts, str) else as_list(texts, "texts")
            others = [type(one).__name__ for one in strings if not isinstance(one, str)]
            if others:
                raise ConfigError(
                    f"texts: found {others[0]}, expected strings, or word ids as one array [B, L]"
                )
            if self.tokenizer is None:
                raise CheckpointError(
                    f"{self.folder / 'tokenizer.json'}: missing, so strings cannot be read; copy "
                    "it from the run's model/ folder, or give word ids [B, L]"
                )
            return torch.from_numpy(self.tokenizer.encode(strings, self.spec.words))
        ids, size = as_tensor(texts, "word ids"), self.module.config.text.vocabulary
        if ids.ndim != 2 or 0 in ids.shape or ids.dtype.is_floating_point or ids.is_complex():
            raise ConfigError(
                f"word ids: found {ids.dtype} {list(ids.shape)}, expected integers [B, L]"
            )
        if not 0 <= int(ids.min()) <= int(ids.max()) < size:
            raise ConfigError(
                f"word ids: found {int(ids.min())} to {int(ids.max())}, expected 0 to {size - 1}"
            )
        return ids.long()


class ClipClassifier:
    """A classifier of videos or of audio with all it needs to read files; see `load_classifier`.

    Attributes:
        module: the network itself, in evaluation mode; `module.config.modality` is what it takes.
        spec: length, rate and size of the clips it was trained on.
        folder: where it was loaded from.
        frame_path: how frames come to it, and in which numbers it computes: as in training.
    """

    def __init__(
        self, module: Classifier, spec: ClipSpec, folder: Path, frame_path: FramePath | None = None
    ) -> None:
        self.module = module.eval()
        self.spec = spec
        self.folder = folder
        self.frame_path = frame_path or FramePath()

    @property
    def device(self) -> torch.device:
        """Where the network is; results are there too."""
        return next(self.module.parameters()).device

    def classify(self, clips: Signal, *, sample_rate_hz: int | None = None) -> Classified:
        """Features and logits of videos or of audio tracks, whichever the classifier takes.

        Args:
            clips: paths, of which each gives the mean of 4 clips spread over the file (mean logits,
                as in the official evaluation); or what `Encoder.encode_video` or
                `Encoder.encode_audio` takes.
            sample_rate_hz: of waveforms; they are resampled to the model's rate.

        Raises:
            MediaError: a file cannot be decoded, or lacks what the classifier takes.
            ConfigError: tensors of another modality, shape, type or range.
        """

        def network(signal: Tensor) -> tuple[Tensor, ...]:
            features = self.module.features(signal)
            return features, self.module.classify(features)

        config = self.module.config
        if config.modality == "video":
            inputs = read_video(clips, self.spec, self.frame_path, self.device)
        else:
            inputs = read_audio(clips, self.spec, config.model.audio.kind, sample_rate_hz)
        return Classified(*_run(network, inputs, self.frame_path, self.device))

    def predict(self, clips: Signal, topk: int = 5, **rate: int) -> list[dict[str, float]]:
        """The likeliest classes, as name (else number) → probability, of what `classify` takes."""
        names = self.module.config.names or [str(n) for n in range(self.module.config.classes)]
        shares = self.module.probabilities(self.classify(clips, **rate).logits)
        values, numbers = shares.topk(min(topk, len(names)))
        rows = zip(numbers.tolist(), values.tolist(), strict=True)
        return [{names[n]: share for n, share in zip(*row, strict=True)} for row in rows]


def load(
    path: FilePath,
    device: str | torch.device | None = None,
    *,
    autocast: AutocastSetting | None = None,
) -> Encoder:
    """Load a pre-trained model.

    Args:
        path: a run folder, the model/ folder in it, the folder of a converted checkpoint, or a name
            on a hub, `hf://owner/name@revision`.
        device: where to compute; a CUDA device when there is one, else the CPU.
        autocast: "off" computes in float32, "bfloat16" as far as it is exact enough, "auto" where
            the device is faster so; as in training if not given.

    Raises:
        CheckpointError: there is no model, it is a classifier, damaged, or of a newer format.
    """
    folder = model_folder(path)
    module, spec = load_model(Vatt, folder, device or pick_device("auto"))
    words = folder / "tokenizer.json"
    tokenizer = WordTokenizer.load(words) if words.is_file() else None
    return Encoder(module, spec, tokenizer, folder, _frame_path(folder, autocast))


def load_classifier(
    path: FilePath,
    device: str | torch.device | None = None,
    *,
    autocast: AutocastSetting | None = None,
) -> ClipClassifier:
    """Load a classifier; the arguments are those of `load`.

    Raises:
        CheckpointError: there is no model, it is no classifier, damaged, or of a newer format.
    """
    folder = model_folder(path)
    module, spec = load_model(Classifier, folder, device or pick_device("auto"))
    return ClipClassifier(module, spec, folder, _frame_path(folder, autocast))


def model_folder(path: FilePath) -> Path:
    """Where the model is: `path` itself or the model/ folder in it; one on a hub is fetched.

    Raises:
        CheckpointError: there is none.
    """
    given = local_folder(path)
    folder = given / "model" if (given / "model" / "config.json").is_file() else given
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{given}: no model here (neither config.json nor model/config.json); expected the "
            "folder of a run that has ended or saved, or of a model"
        )
    return folder


def _frame_path(folder: Path, autocast: AutocastSetting | None) -> FramePath:
    """As the model folder says; one of an older version stands in a run folder that says it."""
    path, settings = read_frame_path(folder), folder.parent / CONFIG_FILE
    if path is None and settings.is_file():
        parts = read_toml(settings)
        known = {
            ("data", "decode"), ("data", "decode_size"), ("data", "frame_step"),
            ("augment", "antialias"), ("train", "autocast"),
        }  # fmt: skip
        found = {name: parts[part][name] for part, name in known if name in parts.get(part, {})}
        path = from_values(FramePath, found, where=str(settings))
    path = path or FramePath()
    return path if autocast is None else replace(path, autocast=autocast)


def _run(
    network: Callable[[Tensor], tuple[Tensor, ...]],
    inputs: Iterable[Input],
    path: FramePath,
    device: torch.device,
) -> list[Tensor]:
    """All rows of each of the network's outputs; of the clips of one file their mean."""
    parts: list[list[Tensor]] = []
    for values, of_one_file in inputs:
        with torch.inference_mode(), computing_in(path.autocast, device):
            rows = [output.float() for output in network(values.to(device))]
        parts.append([one.mean(0, keepdim=True) if of_one_file else one for one in rows])
    # Joined outside inference mode: the results may be part of a computation that has gradients.
    return [torch.cat(outputs) for outputs in zip(*parts, strict=True)]
