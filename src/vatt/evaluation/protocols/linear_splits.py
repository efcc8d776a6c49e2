"""Protocols "paper", "official", "milnce", "averaged": linear evaluation by splits and folds.

Each classifier is fitted anew for every split or fold on the windows of its training examples; the
scores of the windows of a test example are averaged, or their features are. Plain top-1 accuracy,
as the field reports it, with balanced accuracy beside it, both in [0, 1], and the mean over splits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.svm import LinearSVC

from vatt.errors import DataError
from vatt.evaluation.classifiers import (
    DenseConfig,
    LowRankConfig,
    draw_per_class,
    train_dense,
    train_low_rank,
)
from vatt.evaluation.examples import LabelledSpan, find_examples, refuse_several
from vatt.evaluation.features import window_features
from vatt.evaluation.metrics import balanced_accuracy, refuse_nan
from vatt.evaluation.results import Measure, ids_hash
from vatt.evaluation.trained_run import TrainedRun
from vatt.shards.read import ShardFolder

Rows = NDArray[np.float32]
Score = Callable[[Rows], NDArray[np.floating]]  # [R, D] → [R, classes]
HELD_OUT = 5  # one in so many training examples chooses the cost of an SVM


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearProtocol:
    """What a linear evaluation fits, on which windows, and how it tests.

    says: where it is described, and what of it.
    classifiers: "lrc" is the paper's low-rank one, "dense" the official code's, "svm" linear.
    train_windows: of each training example, each a row with its label; one lies in the middle.
    test_windows: of each test example.
    over_windows: averaged over the windows of an example; "features" are in training, too.
    svm_costs: C; of several the best on held-out training examples.
    svm_standardised: whether the SVM is given features less their mean, over their deviation.
    """

    name: str
    says: str
    classifiers: tuple[Literal["lrc", "dense", "svm"], ...]
    train_windows: int
    test_windows: int
    over_windows: Literal["scores", "features"] = "scores"
    svm_costs: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0)
    svm_standardised: bool = True


PAPER = LinearProtocol(
    name="paper",
    says="§4.3: low-rank classifier, n = 128, a tenth of the components at each step, Adam 5e-4, "
    "batch 64, 50,000 steps; §4.4.5: linear SVM. Windows as in the official code: the central one "
    "to train, 4 to test, probabilities averaged",
    classifiers=("lrc", "svm"),
    train_windows=1,
    test_windows=4,
)
OFFICIAL = LinearProtocol(
    name="official",
    says="official code: Dense 128, dropout 0.9, Dense with L2 0.1, Adam 5e-4, batch 64, 1,000 "
    "epochs; the central window to train, 4 to test, probabilities averaged",
    classifiers=("dense",),
    train_windows=1,
    test_windows=4,
)
MILNCE = LinearProtocol(
    name="milnce",
    says="github.com/antoine77340/MIL-NCE_HowTo100M, eval_hmdb.py: linear SVM, C = 100, on "
    "features as they are; 10 windows, all of them train, scores summed at test (its loader "
    "mirrors them, too, and returns those that are not); here clips as the encoder takes them "
    "(there 16 successive frames of the file, centre square of 224)",
    classifiers=("svm",),
    train_windows=10,
    test_windows=10,
    svm_costs=(100.0,),
    svm_standardised=False,
)
AVERAGED = LinearProtocol(
    name="averaged",
    says="linear SVM on the mean features of 10 windows, standardised",
    classifiers=("svm",),
    train_windows=10,
    test_windows=10,
    over_windows="features",
)
LINEAR_PROTOCOLS = {one.name: one for one in (PAPER, OFFICIAL, MILNCE, AVERAGED)}


@dataclass(frozen=True, slots=True)
class OneSplit:
    """Which examples train and which test, each bool [N], in one split or fold; its number."""

    name: str
    train: NDArray[np.bool_]
    test: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LinearSettings:
    """Training of the classifiers."""

    low_rank: LowRankConfig
    dense: DenseConfig
    seed: int


def splits_of(
    folders: Mapping[str, ShardFolder],
    examples: Sequence[LabelledSpan],
    *,
    train_split: str,
    test_split: str,
) -> list[OneSplit]:
    """The splits or folds that the labels of public data sets name; else the shards' own.

    Args:
        folders: opened folders by name.
        examples: [N], of all of them.
        train_split: of the shards, where labels have neither `split1` … nor `fold`.
        test_split: the same.

    Raises:
        DataError: one of them has no example to train on, or to test.
    """
    members = [_member(folders[one.folder], one) for one in examples]
    columns = sorted({name for of in members for name in of if re.fullmatch(r"split\d+", name)})
    found = list[OneSplit]()
    if columns:
        for column in columns:
            use = np.array([of.get(column) for of in members])
            number = column.removeprefix("split")
            found.append(OneSplit(number, use == "train", use == "test"))
    elif folds := sorted({of["fold"] for of in members if "fold" in of}):
        fold = np.array([of.get("fold", "") for of in members])
        found += [OneSplit(one, (fold != one) & (fold != ""), fold == one) for one in folds]
    else:
        split = np.array([of["split"] for of in members])
        found.append(OneSplit(test_split, split == train_split, split == test_split))
    for one in found:
        if not (one.train.any() and one.test.any()):
            raise DataError(
                f"linear evaluation: split {one.name} has {one.train.sum()} examples to train on "
                f"and {one.test.sum()} to test, expected some of both"
            )
    return found


def _member(shards: ShardFolder, example: LabelledSpan) -> dict[str, str]:
    record = shards.read_record(example.row)
    own = [
        one
        for one in record.labels
        if max(0.0, float(one["start_s"])) <= example.start_s < float(one["end_s"])
    ]
    columns = {name: str(value) for one in own for name, value in one.items()}
    return columns | {"split": record.split}


def measure_splits(
    run: TrainedRun,
    protocol: LinearProtocol,
    column: str,
    modality: Literal["video", "audio"],
    settings: LinearSettings,
    *,
    train_split: str,
    test_split: str,
    listed: Mapping[str, int],
) -> Measure:
    """Accuracies of the protocol's classifiers on every split or fold, and their means.

    Args:
        run: the encoder, and the shards.
        protocol: what is fitted and tested, on which windows.
        column: of the labels; one is true of each example.
        modality: whose features.
        settings: of the classifiers.
        train_split: see `splits_of`.
        test_split: the same.
        listed: by the name of a split: test files that the official lists name.

    Raises:
        DataError: no such labels, several of an example, or too few.
    """
    folders = run.folders_of(None)
    by_folder = [
        (shards, find_examples(shards, None, column, folder=name))
        for name, shards in folders.items()
    ]
    examples = [one for _, of in by_folder for one in of]
    refuse_several(examples)
    splits = splits_of(folders, examples, train_split=train_split, test_split=test_split)
    labels = np.array([one.labels[0] for one in examples], dtype=np.str_)
    windows = partial(_windows, run, by_folder, modality)
    trained = windows(np.any([one.train for one in splits], axis=0), protocol.train_windows)
    tested = windows(np.any([one.test for one in splits], axis=0), protocol.test_windows)
    if protocol.over_windows == "features":
        trained, tested = ({at: rows.mean(0, keepdims=True) for at, rows in of.items()}
                           for of in (trained, tested))  # fmt: skip
    by_split: dict[str, Measure] = {}
    for one in splits:
        train = [at for at in np.flatnonzero(one.train).tolist() if at in trained]
        test = [at for at in np.flatnonzero(one.test).tolist() if at in tested]
        by_split[one.name] = _measure(
            protocol,
            _Set([trained[at] for at in train], labels[train]),
            _Set([tested[at] for at in test], labels[test]),
            settings,
        ) | {
            "n_train": len(train),
            "n_train_expected": int(one.train.sum()),
            "n_test": len(test),
            "n_test_expected": listed.get(one.name, int(one.test.sum())),
            "ids_hash": ids_hash(examples[at].id for at in test),
        }
    kinds = protocol.classifiers
    return {
        "mean": {
            kind: {
                name: float(np.mean([of[kind][name] for of in by_split.values()]))
                for name in ("top1", "balanced")
            }
            for kind in kinds
        },
        "splits": by_split,
        "classes": len(set(labels[np.any([one.train for one in splits], axis=0)].tolist())),
    }


def _windows(
    run: TrainedRun,
    by_folder: Sequence[tuple[ShardFolder, Sequence[LabelledSpan]]],
    modality: Literal["video", "audio"],
    wanted: NDArray[np.bool_],
    number: int,
) -> dict[int, Rows]:
    """Features [V, D] of the wanted examples, by their number, as far as they can be read."""
    some, first = list[tuple[ShardFolder, list[LabelledSpan]]](), 0
    for shards, of in by_folder:
        some.append((shards, [one for at, one in enumerate(of, start=first) if wanted[at]]))
        first += len(of)
    found = window_features(run, some, windows=number, modalities=(modality,))
    rows = found.of(f"{modality}_features")
    refuse_nan(rows.reshape(len(rows), -1), "features")
    numbers = np.flatnonzero(wanted)[found.positions]
    usable = found.has_audio if modality == "audio" else np.ones(len(rows), np.bool_)
    pairs = zip(numbers.tolist(), rows, usable.tolist(), strict=True)
    return {at: one for at, one, can in pairs if can}


class _Set:
    """Windows of examples as rows [R, D], the label and the example's number of each."""

    def __init__(self, windows: Sequence[Rows], labels: NDArray[np.str_]) -> None:
        if not windows:
            raise DataError("linear evaluation: no example could be read, expected some")
        self.rows, self.of_examples = np.concatenate(windows), labels
        counts = [len(one) for one in windows]
        self.owners = np.repeat(np.arange(len(windows)), counts)
        self.labels = np.repeat(labels, counts)

    def take(self, examples: NDArray[np.bool_]) -> _Set:
        """Some of the examples."""
        numbers = np.flatnonzero(examples).tolist()
        return _Set([self.rows[self.owners == at] for at in numbers], self.of_examples[examples])

    def accuracies(self, score: Score, names: NDArray[np.str_]) -> Measure:
        """Of the classes whose scores, added up over the windows of an example, are highest."""
        scores = score(self.rows)
        refuse_nan(scores, "scores")
        total = np.zeros((len(self.of_examples), scores.shape[1]))
        np.add.at(total, self.owners, scores)
        predicted = names[total.argmax(1)]
        top1 = float(np.mean(predicted == self.of_examples))
        return {"top1": top1, "balanced": balanced_accuracy(predicted, self.of_examples)}


def _measure(
    protocol: LinearProtocol, train: _Set, test: _Set, settings: LinearSettings
) -> Measure:
    """Accuracies of every classifier of the protocol on one split."""
    names, targets = np.unique(train.labels, return_inverse=True)
    if len(names) < 2:
        raise DataError(f"linear evaluation: found the labels {names.tolist()}, expected 2 or more")
    numbers: Measure = {}
    for kind in protocol.classifiers:
        if kind == "svm":
            score, cost = _svm(protocol, train, settings.seed)
            numbers[kind] = test.accuracies(score, names) | {"C": cost}
            continue
        features, labels = torch.from_numpy(train.rows).float(), torch.from_numpy(targets)
        if kind == "lrc":
            same = torch.ones(len(names))
            score = _low_rank(
                train_low_rank(features, labels, same, settings.low_rank, seed=settings.seed)
            )
        else:
            score = _dense(
                train_dense(features, labels, len(names), settings.dense, seed=settings.seed)
            )
        numbers[kind] = test.accuracies(score, names)
    return numbers


def _low_rank(classifier: torch.Tensor) -> Score:
    return lambda rows: (torch.from_numpy(rows).float() @ classifier).softmax(1).numpy()


def _dense(layers: tuple[torch.nn.Linear, torch.nn.Linear]) -> Score:
    def score(rows: Rows) -> NDArray[np.floating]:
        with torch.no_grad():
            hidden = layers[0](torch.from_numpy(rows).float())
            shares: NDArray[np.floating] = layers[1](hidden).softmax(1).numpy()
        return shares

    return score


def _svm(protocol: LinearProtocol, train: _Set, seed: int) -> tuple[Score, float]:
    """One-against-rest linear SVM, and its C: of several the best on held-out training examples."""
    mean, scale = np.zeros(1, np.float32), np.ones(1, np.float32)
    if protocol.svm_standardised:
        mean, scale = train.rows.mean(0), np.maximum(train.rows.std(0), 1e-6)

    def fit(cost: float, part: _Set) -> Score:
        svm = LinearSVC(C=cost, tol=1e-3, max_iter=10_000, random_state=0)
        svm.fit((part.rows - mean) / scale, part.labels)

        def score(rows: Rows) -> NDArray[np.floating]:
            values: NDArray[np.floating] = svm.decision_function((rows - mean) / scale)
            return values if values.ndim == 2 else np.stack([-values, values], axis=1)

        return score

    cost = protocol.svm_costs[0]
    if len(protocol.svm_costs) > 1:
        held = _held_out(train.of_examples, seed)
        rest, judge = train.take(~held), train.take(held)
        names = np.unique(rest.labels)

        def top1(candidate: float) -> float:
            return float(judge.accuracies(fit(candidate, rest), names)["top1"])

        with ThreadPoolExecutor() as pool:  # the solver releases Python's lock
            found = list(pool.map(top1, protocol.svm_costs))
        cost = protocol.svm_costs[int(np.argmax(found))]
    return fit(cost, train), cost


def _held_out(labels: NDArray[np.str_], seed: int) -> NDArray[np.bool_]:
    """About one in five examples of each class of which there are two or more, at least one."""
    held = np.zeros(len(labels), np.bool_)
    for name in np.unique(labels):
        own = np.flatnonzero(labels == name)
        count = max(1, len(own) // HELD_OUT) if len(own) > 1 else 0
        drawn = draw_per_class(labels[own], count, seed=seed) if count else own[:0]
        held[own[drawn]] = True
    return held
