"""Protocol "linear-frozen": classifiers on the features of frozen backbones (§4.3, §4.4.5).

Fitted on training videos, settings chosen on validation videos, tested once on test videos. Beside
the trained network: the same one before training and one that is given a still frame, both of ours
only; and the most frequent class. All accuracies are balanced (the mean over classes), in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from vatt.errors import DataError
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
from vatt.evaluation.features import SplitFeatures
from vatt.evaluation.results import Measure, take

PROTOCOL = "linear-frozen"
Modality = Literal["video", "audio"]


@dataclass(frozen=True, slots=True)
class FeaturesOfSplits:
    """Features of the clips to fit on, to choose settings on, and to test on."""

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


def measure(
    parts: FeaturesOfSplits,
    *,
    video: Sequence[str],
    audio: Sequence[str],
    few_labels: int,
    draws: int,
    config: LowRankConfig,
    seed: int,
) -> tuple[dict[str, Measure], dict[str, str]]:
    """All measures of the protocol, and the reasons of those that the data has too little for.

    Args:
        parts: features of the three splits.
        video: label columns to predict from video features.
        audio: label columns to predict from audio features, with all labels and with few.
        few_labels: labels of each class in the measure with few labels.
        draws: times these few are drawn; the mean is reported.
        config: training of the low-rank classifier.
        seed: of the draws and of that training.
    """
    measures: dict[str, Callable[[], Measure]] = {}
    for column in video:
        measures[f"video_{column}"] = partial(all_labels, parts, column, "video", config, seed=seed)
    for column in audio:
        measures[column] = partial(all_labels, parts, column, "audio", config, seed=seed)
        measures[f"{column}_{few_labels}"] = partial(
            with_few_labels, parts, column, "audio", config,
            count=few_labels, draws=draws, seed=seed,
        )  # fmt: skip
    return take(measures)


def all_labels(
    parts: FeaturesOfSplits, column: str, modality: Modality, config: LowRankConfig, *, seed: int
) -> Measure:
    """Classifiers fitted on every training label.

    Raises:
        DataError: a split has no clip with this label, or only one class.
    """
    numbers: Measure = {}
    settings: dict[str, Any] = {}
    for network in parts.train.networks(f"{modality}_features"):
        splits = parts.labelled(column, modality, network)
        verdicts = classify(splits, config, seed=seed)
        numbers[network] = {name: verdict.test for name, verdict in verdicts.items()}
        settings[network] = {name: verdict.setting for name, verdict in verdicts.items()}
    return numbers | about(splits, parts, column) | {"settings": settings}


def with_few_labels(
    parts: FeaturesOfSplits,
    column: str,
    modality: Modality,
    config: LowRankConfig,
    *,
    count: int,
    draws: int,
    seed: int,
) -> Measure:
    """Classifiers fitted on `count` labels of each class: the mean over several draws of them.

    Raises:
        DataError: a split has no clip with this label, or only one class.
    """
    numbers: Measure = {}
    for network in parts.train.networks(f"{modality}_features"):
        splits = parts.labelled(column, modality, network)
        drawn = [few(splits, count, seed=seed * draws + draw) for draw in range(draws)]
        verdicts = [classify(part, config, seed=seed) for part in drawn]
        numbers[network] = {
            name: float(np.mean([verdict[name].test for verdict in verdicts]))
            for name in verdicts[0]
        }
    return numbers | about(drawn[0], parts, column) | {"draws": draws}


def few(splits: Splits, count: int, *, seed: int) -> Splits:
    """The same splits with `count` training rows of each class."""
    rows = draw_per_class(splits.train.labels, count, seed=seed)
    return Splits(splits.train.take(rows), splits.val, splits.test)


def classify(splits: Splits, config: LowRankConfig, *, seed: int) -> dict[str, Verdict]:
    """Low-rank classifier, linear SVM (the headline number) and nearest neighbours."""
    with ThreadPoolExecutor(1) as pool:  # the SVM's solver leaves a core to the others
        svm = pool.submit(linear_svm, splits)
        lrc = low_rank(splits, config, seed=seed)
        return {"lrc": lrc, "svm": svm.result(), "knn": nearest_neighbours(splits)}


def about(splits: Splits, parts: FeaturesOfSplits, column: str) -> Measure:
    """Numbers of clips and classes, and the accuracy of constant answers."""
    classes = set(splits.train.labels.tolist())
    unreadable = sum(bool(clip.labels.get(column)) for clip in parts.test.unreadable)
    return {
        "majority": majority(splits),
        "chance": 1 / len(classes),
        "n_train": len(splits.train.labels),
        "n_val": len(splits.val.labels),
        "n_test": len(splits.test.labels),
        "n_expected": len(splits.test.labels) + unreadable,
        "classes": len(classes),
    }
