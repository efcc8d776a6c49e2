"""Exported ONNX models from Python, by ONNX Runtime alone: PyTorch need not be installed.

`open_onnx` gives the three methods of `vatt.load`, `open_onnx_classifier` the two of
`vatt.load_classifier`; what they return are NumPy arrays.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vatt.data.tokenizer import WordTokenizer
from vatt.errors import CheckpointError, ConfigError, MissingExtraError
from vatt.export.plain_inputs import (
    Floats,
    PlainInput,
    audio_inputs,
    strings_of,
    video_inputs,
    whole,
    word_ids_of,
)
from vatt.export.tower_card import KEY, Tower, TowerCard, read_card

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

logger = logging.getLogger(__name__)

SUFFIX = ".onnx"
TEXTS_AT_ONCE = 512


class VideoRows(NamedTuple):
    """N videos: features [N, D], unit rows va [N, E_va] and vt [N, E_vt]."""

    features: Floats
    va: Floats
    vt: Floats


class AudioRows(NamedTuple):
    """N audio tracks: features [N, D], unit rows va [N, E_va]."""

    features: Floats
    va: Floats


class TextRows(NamedTuple):
    """N texts: features [N, D], unit rows vt [N, E_vt], share of unknown words [N]."""

    features: Floats
    vt: Floats
    unknown: Floats


class ClassRows(NamedTuple):
    """N videos or audio tracks: features [N, D] and logits [N, classes]."""

    features: Floats
    logits: Floats


class OnnxTower:
    """One file: its session and what it says of itself."""

    def __init__(self, path: Path, device: str | None = None, threads: int = 0) -> None:
        """Open a file.

        Raises:
            MissingExtraError: ONNX Runtime is not installed.
            CheckpointError: the file is damaged, or not one of `vatt export`.
            ConfigError: there is no such device.
        """
        self.path = path
        self.session = open_session(path, device, threads)
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.card: TowerCard = read_card(metadata.get(KEY), str(path))

    def run(self, values: NDArray[Any]) -> list[Floats]:
        """All outputs, in the order of the card."""
        name = self.session.get_inputs()[0].name
        found: list[Floats] = self.session.run(list(self.card.outputs), {name: values})
        return found

    def rows(self, inputs: Iterable[PlainInput]) -> dict[str, Floats]:
        """Outputs of all inputs by name; of the clips of one file their mean."""
        parts: list[list[Floats]] = []
        for values, of_one_file in inputs:
            found = self.run(values)
            parts.append([one.mean(0, keepdims=True) if of_one_file else one for one in found])
        joined = (np.concatenate(outputs) for outputs in zip(*parts, strict=True))
        return dict(zip(self.card.outputs, joined, strict=True))


class OnnxEncoder:
    """The towers of an exported model, opened when they are first needed.

    Attributes:
        spec: length, rate and size of the clips it was trained on.
        folder: where its files are.
    """

    def __init__(self, files: dict[Tower, OnnxTower], folder: Path) -> None:
        self._towers, self.folder = files, folder
        first = next(iter(files.values())).card
        self.spec, self.frame_path = first.clip, first.frame_path
        self.tokenizer: WordTokenizer | None = None
        if "text" in files and (words := files["text"].card.tokenizer):
            self.tokenizer = WordTokenizer.from_json(words, where=str(files["text"].path))

    def encode_video(self, videos: Any) -> VideoRows:
        """Encode paths (each the mean of 4 clips spread over the file) or frames [B, T, H, W, 3].

        Raises:
            MediaError: a file cannot be decoded, or is mostly damaged.
            ConfigError: frames of another shape, type or range.
        """
        tower = self._tower("video")
        rows = tower.rows(video_inputs(videos, tower.card))
        return VideoRows(rows["features"], _unit(rows["va_rows"]), _unit(rows["vt_rows"]))

    def encode_audio(self, audio: Any, *, sample_rate_hz: int | None = None) -> AudioRows:
        """Encode paths, or mono waveforms [B, S] in [-1, 1] of that rate.

        Raises:
            MediaError: a file cannot be decoded, has no audio, or is mostly damaged.
            ConfigError: waveforms of another shape, type or range, or without their rate.
        """
        tower = self._tower("audio")
        rows = tower.rows(audio_inputs(audio, tower.card, sample_rate_hz))
        return AudioRows(rows["features"], _unit(rows["va_rows"]))

    def encode_text(self, texts: Any) -> TextRows:
        """Encode strings, or word ids int64 [B, L].

        Raises:
            CheckpointError: strings, but the model has no vocabulary.
            ConfigError: something else, or word ids beyond the vocabulary.
        """
        tower = self._tower("text")
        ids = word_ids_of(texts)
        if ids is None:
            strings = strings_of(texts)
            if self.tokenizer is None:
                raise CheckpointError(
                    f"{tower.path}: holds no vocabulary, so strings cannot be read; give word ids "
                    "[B, L], or export a model folder that has tokenizer.json"
                )
            ids = self.tokenizer.encode(strings, self.spec.words)
        if not 0 <= ids.min() <= ids.max() < tower.card.vocabulary:
            raise ConfigError(
                f"word ids: found {ids.min()} to {ids.max()}, expected 0 to "
                f"{tower.card.vocabulary - 1}"
            )
        if not tower.card.any_size:
            whole(ids, tower.card)
        steps = range(0, len(ids), TEXTS_AT_ONCE)
        rows = tower.rows(PlainInput(ids[at : at + TEXTS_AT_ONCE]) for at in steps)
        unknown_id = self.tokenizer.unknown_id if self.tokenizer else 1
        words, unknown = (ids > 0).sum(1), (ids == unknown_id).sum(1)
        share = np.where(words > 0, unknown / np.maximum(words, 1), 1.0).astype(np.float32)
        return TextRows(rows["features"], _unit(rows["vt_rows"]), share)

    def _tower(self, name: Tower) -> OnnxTower:
        if name not in self._towers:
            has = ", ".join(f"{one}{SUFFIX}" for one in self._towers)
            raise CheckpointError(
                f"{self.folder}: no {name}{SUFFIX} here, only {has}; export the {name} tower too"
            )
        return self._towers[name]


class OnnxClassifier:
    """An exported classifier of videos or of audio.

    Attributes:
        spec: length, rate and size of the clips it was trained on.
        names: of the classes, or their numbers.
    """

    def __init__(self, tower: OnnxTower) -> None:
        self._tower, card = tower, tower.card
        self.spec, self.folder, self.frame_path = card.clip, tower.path.parent, card.frame_path
        self.names = card.names or tuple(str(n) for n in range(card.classes))

    def classify(self, clips: Any, *, sample_rate_hz: int | None = None) -> ClassRows:
        """Features and logits of paths or arrays; see `ClipClassifier.classify`."""
        card = self._tower.card
        if card.tower == "video":
            inputs = video_inputs(clips, card)
        else:
            inputs = audio_inputs(clips, card, sample_rate_hz)
        rows = self._tower.rows(inputs)
        return ClassRows(rows["features"], rows["logits"])

    def predict(self, clips: Any, topk: int = 5, **rate: int) -> list[dict[str, float]]:
        """The likeliest classes, as name → probability, of what `classify` takes."""
        logits = self.classify(clips, **rate).logits.astype(np.float64)
        if self._tower.card.several:
            shares = 1 / (1 + np.exp(-logits))
        else:
            powers = np.exp(logits - logits.max(1, keepdims=True))
            shares = powers / powers.sum(1, keepdims=True)
        likeliest = np.argsort(-shares, axis=1, kind="stable")[:, :topk]
        return [
            {self.names[n]: float(row[n]) for n in order}
            for row, order in zip(shares, likeliest.tolist(), strict=True)
        ]


def is_onnx(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an exported ONNX file, or a folder of such."""
    given = Path(path)
    return given.suffix == SUFFIX or any(given.glob(f"*{SUFFIX}"))


def open_onnx(
    path: str | os.PathLike[str], device: str | None = None, *, threads: int = 0
) -> OnnxEncoder:
    """Open an exported model: a folder of towers, or one of them with those beside it.

    Args:
        path: the folder, or a file.
        device: "cpu" or "cuda"; a GPU if ONNX Runtime has one, else the CPU.
        threads: of each tower; 0: as ONNX Runtime chooses.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        CheckpointError: there is no such file, it is damaged, or a classifier.
    """
    given = Path(path)
    folder = given if given.is_dir() else given.parent
    files = [given] if given.is_file() else []
    files += [one for one in sorted(folder.glob(f"*{SUFFIX}")) if one not in files]
    if not files or (given.suffix == SUFFIX and not given.is_file()):
        raise CheckpointError(f"{given}: not found; expected a file that `vatt export` has written")
    towers: dict[Tower, OnnxTower] = {}
    for file in files:
        tower = OnnxTower(file, device, threads)
        first = next(iter(towers.values()), tower).card
        if tower.card.classifier:
            if file == files[0]:
                raise CheckpointError(f"{file}: is a classifier; open it with vatt.load_classifier")
        elif tower.card.model_hash == first.model_hash:
            towers.setdefault(tower.card.tower, tower)
        else:
            logger.warning("%s: is of another model than %s: left out", file, files[0])
    return OnnxEncoder(towers, folder)


def open_onnx_classifier(
    path: str | os.PathLike[str], device: str | None = None, *, threads: int = 0
) -> OnnxClassifier:
    """Open an exported classifier; the arguments are those of `open_onnx`.

    Raises:
        CheckpointError: there is no such file, it is damaged, or no classifier.
    """
    given = Path(path)
    files = sorted(given.glob(f"*{SUFFIX}")) if given.is_dir() else [given]
    if len(files) != 1 or not files[0].is_file():
        raise CheckpointError(f"{given}: found {len(files)} files, expected one {SUFFIX} file")
    tower = OnnxTower(files[0], device, threads)
    if not tower.card.classifier:
        raise CheckpointError(f"{files[0]}: is no classifier; open it with vatt.load")
    return OnnxClassifier(tower)


def open_session(path: Path, device: str | None, threads: int) -> InferenceSession:
    """A session of ONNX Runtime."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingExtraError("onnxruntime", "onnx", f"{path.name}") from error
    known = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
    has = [name for name, full in known.items() if full in onnxruntime.get_available_providers()]
    wanted = has if device in (None, "auto") else [str(device).partition(":")[0]]
    if not set(wanted) <= set(has):
        raise ConfigError(f"device: found {device!r}, expected one that ONNX Runtime has: {has}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    providers = [known[name] for name in dict.fromkeys([*wanted, "cpu"])]
    try:
        return onnxruntime.InferenceSession(os.fspath(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime has classes of its own, which share no base
        raise CheckpointError(f"{path}: cannot be opened: {error}; export it again") from error


def _unit(rows: Floats) -> Floats:
    """Rows scaled to length one, as torch's normalize does."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Floats = rows / np.maximum(lengths, np.float32(1e-12))
    return unit
