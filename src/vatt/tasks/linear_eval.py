"""`vatt linear-eval`: classifiers on the features of frozen backbones (§4.3, §4.4.5).

Fitted on training videos, settings chosen on validation videos, tested once on test videos. Beside
the trained network: the same one before training, one that sees a still frame, and the most
frequent class. All accuracies are balanced (the mean over classes) and in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tyro.conf import Positional

from vatt.devices import autocast
from vatt.errors import ConfigError, DataError
from vatt.evaluation.classifiers import (
    Labelled,
    LowRankConfig,
    Splits,
    Verdict,
    draw_per_class,
    linear_svm,
    low_rank,
    majority,
    nearest_neighbours,
)
from vatt.evaluation.features import PRETRAINED, RANDOM_INIT, STILL_FRAME, SplitFeatures
from vatt.evaluation.results import ids_hash, take, write_result
from vatt.evaluation.trained_run import open_run

PROTOCOL = "linear-frozen"
Modality = Literal["video", "audio"]
NETWORKS = {
    "video": (PRETRAINED, RANDOM_INIT, STILL_FRAME),
    "audio": (PRETRAINED, RANDOM_INIT),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearEvalConfig:
    """Judge frozen features by classifiers trained on them."""

    run: Positional[Path]
    """Run folder (or model folder); results/linear-eval.json is written into it."""
    shards: tuple[Path, ...] = ()
    """Prepared folders with labels; those of the run's config.toml when left out."""
    train_split: str = "train"
    val_split: str = "val"
    test_split: str = "test"
    video: tuple[str, ...] = ("action",)
    """Label columns to predict from video features."""
    audio: tuple[str, ...] = ("sound_event",)
    """Label columns to predict from audio features, with all labels and with few."""
    train_clips: int | None = None
    """Take whole videos, drawn by the seed, until there are this many clips; all if left out."""
    few_labels: int = 10
    """Labels of each class in the measure with few labels."""
    draws: int = 3
    """Times these few are drawn; the mean is reported."""
    low_rank: LowRankConfig = field(default_factory=LowRankConfig)
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        for name in ("few_labels", "draws"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected 1 or more")
        if self.train_clips is not None and self.train_clips < 2:
            raise ConfigError(f"train_clips: found {self.train_clips}, expected 2 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearEvalResult:
    """Where the numbers are, and the numbers: balanced accuracies in [0, 1]."""

    path: Path
    measures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parts:
    """Features of the three splits."""

    train: SplitFeatures
    val: SplitFeatures
    test: SplitFeatures

    def labelled(self, column: str, modality: Modality, network: str) -> Splits:
        """The clips whose label is known, standardised by all of the training ones.

        Raises:
            DataError: a split has no such clip.
        """
        splits: dict[str, Labelled] = {}
        for name, part in (("train", self.train), ("val", self.val), ("test", self.test)):
            labels = part.labels(column)
            known = labels != ""
            if not known.any():
                raise DataError(f"no clip of the {name} split has the label {column!r}")
            features = part.of(network, f"{modality}_features")
            splits[name] = Labelled(features[known], labels[known])
        return Splits(**splits).standardised()


def run(config: LinearEvalConfig) -> LinearEvalResult:
    """Measure, and write results/linear-eval.json.

    Raises:
        CheckpointError: there is no model.
        DataError: a split has no clips, or too many cannot be decoded.
    """
    precision = partial(autocast, "auto")
    subject = open_run(config.run, precision=precision, shards=config.shards, device=config.device)
    parts = Parts(
        subject.features(config.train_split, at_most=config.train_clips, seed=config.seed),
        subject.features(config.val_split, seed=config.seed),
        subject.features(config.test_split, seed=config.seed),
    )
    measures, left_out = take(_measures(config, parts))
    result = {
        "protocol": PROTOCOL,
        "splits": [config.train_split, config.val_split, config.test_split],
        "seed": config.seed,
        "model_hash": subject.model_hash,
        "low_rank_steps": config.low_rank.steps,
        "ids_hash": ids_hash(moment.id for moment in parts.test.moments),
        **measures,
        "left_out": left_out,
    }
    path = write_result(config.run, "linear-eval", result)
    return LinearEvalResult(path=path, measures=measures, left_out=left_out)


def _measures(config: LinearEvalConfig, parts: Parts) -> dict[str, partial[dict[str, Any]]]:
    measures = {
        f"video_{column}": partial(all_labels, config, parts, column, "video")
        for column in config.video
    }
    for column in config.audio:
        measures[column] = partial(all_labels, config, parts, column, "audio")
        measures[f"{column}_{config.few_labels}"] = partial(
            with_few_labels, config, parts, column, "audio"
        )
    return measures


def all_labels(
    config: LinearEvalConfig, parts: Parts, column: str, modality: Modality
) -> dict[str, Any]:
    """Classifiers that see every training label.

    Raises:
        DataError: a split has no clip with this label, or only one class.
    """
    numbers: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for network in NETWORKS[modality]:
        splits = parts.labelled(column, modality, network)
        verdicts = classify(splits, config)
        numbers[network] = {name: verdict.test for name, verdict in verdicts.items()}
        settings[network] = {name: verdict.setting for name, verdict in verdicts.items()}
    return numbers | _about(splits, parts, column) | {"settings": settings}


def with_few_labels(
    config: LinearEvalConfig, parts: Parts, column: str, modality: Modality
) -> dict[str, Any]:
    """Classifiers that see few labels of each class: the mean over several draws of them.

    Raises:
        DataError: a split has no clip with this label, or only one class.
    """
    numbers: dict[str, Any] = {}
    for network in NETWORKS[modality]:
        splits = parts.labelled(column, modality, network)
        drawn = [few(splits, config, draw) for draw in range(config.draws)]
        verdicts = [classify(part, config) for part in drawn]
        numbers[network] = {
            name: float(np.mean([verdict[name].test for verdict in verdicts]))
            for name in verdicts[0]
        }
    return numbers | _about(drawn[0], parts, column) | {"draws": config.draws}


def few(splits: Splits, config: LinearEvalConfig, draw: int) -> Splits:
    """The same splits with few training rows of each class; validation and test rows stay."""
    seed = config.seed * config.draws + draw
    rows = draw_per_class(splits.train.labels, config.few_labels, seed=seed)
    return Splits(splits.train.take(rows), splits.val, splits.test)


def classify(splits: Splits, config: LinearEvalConfig) -> dict[str, Verdict]:
    """Low-rank classifier, linear SVM (the headline number) and nearest neighbours."""
    return {
        "lrc": low_rank(splits, config.low_rank, seed=config.seed),
        "svm": linear_svm(splits),
        "knn": nearest_neighbours(splits),
    }


def _about(splits: Splits, parts: Parts, column: str) -> dict[str, Any]:
    classes = set(splits.train.labels.tolist())
    failed = sum(bool(moment.labels.get(column)) for moment in parts.test.failed)
    return {
        "majority": majority(splits),
        "chance": 1 / len(classes),
        "n_train": len(splits.train.labels),
        "n_val": len(splits.val.labels),
        "n_test": len(splits.test.labels),
        "n_expected": len(splits.test.labels) + failed,
        "classes": len(classes),
    }
