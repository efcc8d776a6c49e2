"""`vatt export`: a trained model as ONNX or torch.export files, checked against the model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from tyro.conf import Positional

from vatt.devices import cpu_threads, cpus_of_rank
from vatt.encoder import ClipClassifier, Encoder, load, load_classifier, model_folder
from vatt.errors import CheckpointError, ConfigError, DataError
from vatt.evaluation.results import file_hash
from vatt.export import faithful, towers
from vatt.export.onnx_encoder import SUFFIX, OnnxTower
from vatt.export.onnx_file import Opset, needs, quantize, write_onnx
from vatt.export.tower_card import Tower, TowerCard
from vatt.models.classifier import ClassifierConfig
from vatt.models.weights import WEIGHTS, read_settings
from vatt.storage import atomic_folder
from vatt.workers.progress import ProgressBar

logger = logging.getLogger(__name__)
MODALITIES: tuple[Tower, ...] = ("video", "audio", "text")
SPEED_CLIPS = 8
SUFFIXES = {"onnx": SUFFIX, "torch": ".pt2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """Write the towers of a model as files that other programs run, once they agree with it."""

    model: Positional[Path]
    """Run folder or model folder of a pre-trained model or of a classifier, or name on a hub
    (hf://owner/name@revision)."""
    out: Path
    """Folder to write: a file for each tower; must not exist yet."""
    format: Literal["onnx", "torch"] = "onnx"
    """onnx: for ONNX Runtime and others. torch: .pt2 files, which torch.export.load opens."""
    opset: Opset = 20
    """Of ONNX: 20 writes attention out in small steps, 23 as one operation."""
    towers: tuple[Tower, ...] = MODALITIES
    """Which to write; of a classifier the one there is."""
    quantize: Literal["none", "int8"] = "none"
    """int8: weights as 8-bit integers; only if R@10 on the shards falls by at most one point."""
    shards: tuple[Path, ...] = ()
    """Prepared folder whose clips are compared; without one only noise is."""
    split: str = "test"
    pool: int = 500
    """Most clips to compare and to retrieve from."""
    max_fall: float = 1.0
    """Points of R@10 that int8 may cost."""
    threads: int = 0
    """For the comparison of speeds; 0: one for each core."""

    def __post_init__(self) -> None:
        if self.quantize != "none" and (self.format != "onnx" or not self.shards):
            raise ConfigError(
                "quantize: found int8, which needs --format onnx, and --shards FOLDER to measure "
                "what it costs"
            )
        if len(self.shards) > 1:
            raise ConfigError(f"shards: found {len(self.shards)} folders, expected one")
        if not self.towers:
            raise ConfigError("towers: found none, expected some of video, audio, text")
        if self.pool < 2:
            raise ConfigError(f"pool: found {self.pool}, expected 2 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What was written, and how it compares with the model.

    sizes: which input sizes each file takes, besides any batch.
    largest_difference: between numbers of unit embeddings (of classifiers: probabilities), by tower
        and batch size.
    retrieval: R@10 in per cent, and for how many queries the ten best are the same.
    ms_a_clip: medians of five runs, of 8 inputs at once, and how many times as fast as PyTorch in
        float32 the exported file is.
    """

    out: Path
    files: Mapping[str, str]
    sizes: Mapping[str, str]
    compared_on: str
    largest_difference: Mapping[str, Mapping[str, float]]
    retrieval: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ms_a_clip: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    threads: int

    def shown(self) -> dict[str, Any]:
        """For people: rounded, each tower one line."""
        gaps = {
            name: {size: f"{gap:.1e}" for size, gap in each.items()}
            for name, each in self.largest_difference.items()
        }
        times = {
            name: {key: f"{value:.3g}" for key, value in each.items()}
            for name, each in self.ms_a_clip.items()
        }
        return {
            "out": self.out,
            "compared_on": self.compared_on,
            "threads": self.threads,
            "files": [
                {"file": file, "takes": self.sizes[name]} for name, file in self.files.items()
            ],
            "largest difference from the model": gaps,
            "retrieval, R@10 in %": self.retrieval,
            "milliseconds a clip": times,
        }


def run(config: ExportConfig) -> ExportResult:
    """Write the files; they appear together, or not at all.

    Raises:
        CheckpointError: there is no model, or `out` exists.
        DataError: what was written differs from the model, or int8 costs too much.
        MissingExtraError: ONNX is not installed.
    """
    if config.out.exists():
        raise CheckpointError(f"{config.out}: is there already; give --out a new folder")
    if config.format == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            needs(package)
    opened = _open(config.model)
    threads = config.threads or cpus_of_rank()
    config.out.parent.mkdir(parents=True, exist_ok=True)
    with cpu_threads(threads), atomic_folder(config.out) as folder:
        return _export(config, opened, folder, threads)


def _open(path: Path) -> Encoder | ClipClassifier:
    settings, _, _ = read_settings(model_folder(path))
    opener = load_classifier if isinstance(settings, ClassifierConfig) else load
    return opener(path, "cpu", autocast="off")


def _export(
    config: ExportConfig, opened: Encoder | ClipClassifier, folder: Path, threads: int
) -> ExportResult:
    names = config.towers
    if isinstance(opened, ClipClassifier):
        names = (opened.module.config.modality,)
    cards = {name: _card(opened, name) for name in names}
    modules = {name: towers.tower_of(opened.module, name) for name in names}
    suffix = SUFFIXES[config.format]
    files = {name: folder / f"{name}{suffix}" for name in names}
    with ProgressBar("export", 2 * len(names)) as bar:
        for number, name in enumerate(names):
            bar.update(2 * number, f"tracing {name}")
            program = towers.trace(modules[name], cards[name])
            bar.update(2 * number + 1, f"writing {name}")
            if config.format == "onnx":
                write_onnx(program, files[name], cards[name], config.opset)
            else:
                towers.write_torch(program, files[name], cards[name])
            bar.update(2 * number + 2)
    clips = _clips(config, opened)
    exported = {name: _opened(file, threads) for name, file in files.items()}
    compared, peaks, example = compare(modules, exported, cards, clips, opened)
    faithful.refuse_difference(compared)
    retrieval = _retrieval(config, opened, compared, clips, peaks)
    _refuse_other_top(retrieval)
    if config.quantize == "int8":
        for name, file in files.items():
            cards[name] = replace(cards[name], numbers="int8")
            quantize(file, cards[name])
        exported = {name: _opened(file, threads) for name, file in files.items()}
        compared, peaks, example = compare(modules, exported, cards, clips, opened)
        retrieval = _retrieval(config, opened, compared, clips, peaks)
        _refuse_fall(retrieval, config.max_fall)
    times: dict[str, dict[str, float]] = {
        name: faithful.speeds(modules[name], exported[name], example[name], cards[name])
        for name in names
    }
    compared_on = "noise: give --shards to compare on real clips"
    if config.shards:
        compared_on = f"{clips.number} clips of {config.shards[0]}, split {config.split}"
    return ExportResult(
        out=config.out,
        files={name: file.name for name, file in files.items()},
        sizes={name: _takes(card, config.format) for name, card in cards.items()},
        compared_on=compared_on,
        largest_difference={name: one.gaps for name, one in compared.items()},
        retrieval={
            name: {
                "model": one.model,
                "exported": one.exported,
                "queries": one.queries,
                "with the same ten best": one.top10,
            }
            for name, one in retrieval.items()
        },
        ms_a_clip=times,
        threads=threads,
    )


def _card(opened: Encoder | ClipClassifier, name: Tower) -> TowerCard:
    return towers.card_of(
        opened.module,
        name,
        opened.spec,
        replace(opened.frame_path, autocast="off"),
        model_hash=file_hash(opened.folder / WEIGHTS),
        tokenizer=opened.tokenizer if isinstance(opened, Encoder) else None,
    )


def _opened(file: Path, threads: int) -> faithful.Exported:
    """What runs an exported file."""
    if file.suffix == SUFFIX:
        return OnnxTower(file, "cpu", threads).run
    module, _ = towers.read_torch(file)

    def call(values: Any) -> list[faithful.Floats]:
        with torch.inference_mode():
            return [one.numpy() for one in module(torch.from_numpy(np.ascontiguousarray(values)))]

    return call


def _clips(config: ExportConfig, opened: Encoder | ClipClassifier) -> faithful.RealClips:
    if not config.shards:
        return faithful.random_clips(opened.spec)
    return faithful.clips_of(
        config.shards[0],
        config.split,
        opened.spec,
        opened.frame_path,
        at_most=config.pool,
        workers=0,
    )


def compare(
    modules: Mapping[Tower, nn.Module],
    exported: Mapping[Tower, faithful.Exported],
    cards: Mapping[Tower, TowerCard],
    clips: faithful.RealClips,
    opened: Encoder | ClipClassifier,
) -> tuple[dict[str, faithful.Compared], faithful.Floats, dict[str, Tensor]]:
    """Run each tower as the model's own and as exported.

    Returns:
        What both gave, by tower; the peaks of the clips' audio; a few inputs of each tower.
    """
    comparisons = {
        name: faithful.Comparison(module, exported[name], cards[name])
        for name, module in modules.items()
    }
    peaks, positions, example = [], [], dict[str, Tensor]()
    with ProgressBar("compare with the model, clips", clips.number) as bar:
        for part in clips.parts():
            peaks.append(part["peaks"].numpy())
            positions.append(part["positions"].numpy())
            for name, comparison in comparisons.items():
                if name != "text":
                    comparison.add(part[name])
                    example.setdefault(name, part[name][:SPEED_CLIPS])
            bar.update(sum(map(len, peaks)))
    if not peaks:
        raise DataError("no clip could be decoded, expected at least one")
    order = np.argsort(np.concatenate(positions))
    compared: dict[str, faithful.Compared] = {
        name: one.end() for name, one in comparisons.items() if name != "text"
    }
    for one in compared.values():
        one.rows = {key: (own[order], other[order]) for key, (own, other) in one.rows.items()}
    if "text" in comparisons:
        assert isinstance(opened, Encoder)
        ids = _word_ids(opened, clips.captions, np.sort(np.concatenate(positions)))
        comparisons["text"].add(ids)
        compared["text"] = comparisons["text"].end()
        example["text"] = ids[:SPEED_CLIPS]
    return compared, np.concatenate(peaks)[order], example


def _word_ids(opened: Encoder, captions: Any, rows: Any) -> Tensor:
    """Of the clips' captions; where there are none, random words."""
    if opened.tokenizer is not None and any(captions):
        texts = [captions[row] for row in rows.tolist()]
        return torch.from_numpy(opened.tokenizer.encode(texts, opened.spec.words))
    size = (8, opened.spec.words)
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, opened.module.config.text.vocabulary, size, generator=rng)


def _retrieval(
    config: ExportConfig,
    opened: Encoder | ClipClassifier,
    compared: Mapping[str, faithful.Compared],
    clips: faithful.RealClips,
    peaks: faithful.Floats,
) -> dict[str, faithful.RetrievalCheck]:
    if not config.shards or not isinstance(opened, Encoder):
        return {}
    return faithful.check_retrieval(
        compared,
        clips.captions,
        peaks,
        opened.tokenizer,
        opened.spec.words,
        pool=config.pool,
    )


def _refuse_other_top(retrieval: Mapping[str, faithful.RetrievalCheck]) -> None:
    for name, one in retrieval.items():
        if one.top10 < one.queries:
            raise DataError(
                f"{name}: the ten best clips differ from the model's for "
                f"{one.queries - one.top10} of {one.queries} queries; nothing was written: please "
                "report this model"
            )


def _refuse_fall(retrieval: Mapping[str, faithful.RetrievalCheck], most: float) -> None:
    if not retrieval:
        raise DataError(
            "quantize: the towers and the shards allow no retrieval (it takes the video tower with "
            "the text or the audio tower, and clips with captions or audio), so what int8 costs "
            "cannot be measured; nothing was written"
        )
    for name, one in retrieval.items():
        if one.model - one.exported > most:
            raise DataError(
                f"{name}: R@10 falls from {one.model:.1f} to {one.exported:.1f} with int8, "
                f"expected at most {most:g} points less; nothing was written: leave --quantize out"
            )


def _takes(card: TowerCard, form: str) -> str:
    names = {"video": "frames, rows, columns", "audio": "samples", "text": "words"}[card.tower]
    if not card.any_size:
        return f"{names}: {', '.join(map(str, card.sizes))} only"
    # torch.export takes an axis of one patch for one that is always of one.
    least = ", twice or more" if form == "torch" and card.tower != "text" else ""
    return f"{names}: multiples of {', '.join(map(str, card.patch))}{least}"
