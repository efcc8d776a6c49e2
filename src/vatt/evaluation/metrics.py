"""Metrics: ranks, recalls, accuracies, mAP, AUC, d′. Pure functions of arrays, which refuse NaN.

Every rank, recall, top-k accuracy and AUC is its expectation over all orders of tied items; average
precision takes tied items together. Constant scores therefore measure exactly chance; a sort would
have measured the order of the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from vatt.errors import DataError

Floats = NDArray[np.float64]
Names = Sequence[str] | NDArray[np.str_]
RECALLS = (1, 5, 10)
RETRIEVAL_MEASURES = (*(f"R@{k}" for k in RECALLS), "MedR")  # what `recalls` gives


@dataclass(frozen=True, slots=True)
class Ranks:
    """The rank of the best relevant item of each query.

    better: int [Q], items that score strictly higher than the best relevant one.
    tied: int [Q], items with exactly its score, itself included.
    relevant: int [Q], how many of the tied items are relevant (1 or more).
    """

    better: NDArray[np.int64]
    tied: NDArray[np.int64]
    relevant: NDArray[np.int64]

    def expected(self) -> Floats:
        """Expected rank [Q] of the first relevant item, counted from 1.

        The wrong ones of the tied items come before the first right one with probability
        1 / (right ones + 1) each: half of them when one item is right.
        """
        wrong = self.tied - self.relevant
        return np.asarray(1.0 + self.better + wrong / (self.relevant + 1.0), dtype=np.float64)

    def within(self, k: int) -> Floats:
        """Probability [Q] that a relevant item is among the first k.

        Of the tied items the first `k - better` places are filled by drawing without return;
        none of them is relevant with probability Π_i (wrong - i) / (tied - i).
        """
        places = np.clip(k - self.better, 0, self.tied)
        missed = np.ones(len(self.better))
        for place in range(min(k, int(places.max(initial=0)))):
            drawn = place < places
            wrong_left = np.maximum(self.tied - self.relevant - place, 0)
            missed[drawn] *= (wrong_left / np.maximum(self.tied - place, 1))[drawn]
        return 1.0 - missed


def rank_relevant(scores: NDArray[np.floating], relevant: NDArray[np.bool_]) -> Ranks:
    """Rank the items of each query by score, high to low.

    Args:
        scores: [Q, M], higher is better.
        relevant: bool [Q, M], the items that answer the query; at least one for each.

    Raises:
        DataError: a score is NaN, or a query has no relevant item.
    """
    refuse_nan(scores, "retrieval scores")
    if not relevant.any(axis=1).all():
        query = int(np.flatnonzero(~relevant.any(axis=1))[0])
        raise DataError(f"retrieval: query {query} has no relevant item, expected one or more")
    best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
    tied = scores == best
    return Ranks(
        better=(scores > best).sum(axis=1),
        tied=tied.sum(axis=1),
        relevant=(tied & relevant).sum(axis=1),
    )


def recalls(ranks: Ranks) -> dict[str, float]:
    """R@1, R@5, R@10 in per cent, and the median of the expected ranks (MedR)."""
    numbers = {f"R@{k}": 100.0 * float(ranks.within(k).mean()) for k in RECALLS}
    return numbers | {"MedR": float(np.median(ranks.expected()))}


def chance_recalls(num_items: int) -> dict[str, float]:
    """What `recalls` gives for constant scores with one relevant item of `num_items`."""
    numbers = {f"R@{k}": 100.0 * min(1.0, k / num_items) for k in RECALLS}
    return numbers | {"MedR": (num_items + 1) / 2}


def top_k_accuracy(logits: NDArray[np.floating], labels: NDArray[np.integer], k: int) -> float:
    """Share of rows, in [0, 1], whose true class is among the k highest logits.

    Args:
        logits: [N, classes]; any increasing function of them gives the same number.
        labels: int [N], the true class of each row.
        k: 1 or more.

    Raises:
        DataError: a logit is NaN.
    """
    true = np.zeros(logits.shape, dtype=bool)
    true[np.arange(len(labels)), labels] = True
    return float(rank_relevant(logits, true).within(k).mean())


def neighbour_accuracy(
    features: NDArray[np.floating],
    classes: NDArray[np.integer],
    groups: Sequence[str],
    *,
    k: int = 5,
    seed: int = 0,
) -> float:
    """Share of rows, in [0, 1], whose k nearest rows by cosine are mostly of their class.

    Args:
        features: [N, D].
        classes: int [N].
        groups: of each row; rows of its own group, such as clips of one video, are not neighbours.
        k: neighbours; of classes with equally many of them each counts in part.
        seed: of the order of rows that are equally near.

    Raises:
        DataError: a feature is NaN.
    """
    refuse_nan(features, "features")
    order = np.random.default_rng(seed).permutation(len(features))
    features, classes, group = features[order], classes[order], np.array(groups)[order]
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    near = unit @ unit.T
    near[group[:, None] == group] = -np.inf
    nearest = np.argsort(-near, axis=1, kind="stable")[:, :k]
    votes = np.zeros((len(features), int(classes.max(initial=0)) + 1))
    for row, others in enumerate(nearest):
        np.add.at(votes[row], classes[others[np.isfinite(near[row, others])]], 1)
    most = votes.max(axis=1, keepdims=True)
    first = (votes == most) & (most > 0)
    found = first[np.arange(len(features)), classes] / np.maximum(first.sum(1), 1)
    return float(found.mean())


@dataclass(frozen=True, slots=True)
class MultiLabel:
    """How well scores tell several labels of each clip: means over the classes evaluated (§4.4.2).

    mean_ap: mAP; mean_auc: mean area under the ROC curve (AUC); both in [0, 1].
    d_prime_of_mean_auc: √2 Φ⁻¹(AUC), "directly calculated based on AUC" (paper).
    mean_of_d_primes: the mean of √2 Φ⁻¹(AUC_c) over classes (official code).
    num_evaluated: classes with both positives and negatives; the others have no AUC.
    not_evaluated: the names of those others.
    d_prime_bounded: classes whose AUC is exactly 0 or 1, where d′ would be infinite: both d′ take
        it as half a pair of clips in the wrong order, or half a pair in the right one.
    """

    mean_ap: float
    mean_auc: float
    d_prime_of_mean_auc: float
    mean_of_d_primes: float
    num_evaluated: int
    not_evaluated: tuple[str, ...]
    d_prime_bounded: tuple[str, ...]


def judge_labels(
    scores: NDArray[np.floating], true: NDArray[np.bool_], names: Sequence[str]
) -> MultiLabel:
    """Judge scores of several labels per clip.

    Args:
        scores: [N, classes]; any increasing function of a class's scores gives the same numbers.
        true: bool [N, classes], the labels of each clip.
        names: of the classes.

    Raises:
        DataError: a score is NaN, or no class has both positives and negatives.
    """
    refuse_nan(scores, "label scores")
    positives = true.sum(axis=0)
    usable = (positives > 0) & (positives < len(true))
    if not usable.any():
        raise DataError(
            f"label scores: found {len(true)} clips in which each of the {len(names)} classes is "
            "always or never true, expected a class with both; evaluate more clips"
        )
    scores = np.clip(scores[:, usable].astype(np.float64), -1e300, 1e300)  # scikit-learn: no inf
    true, positives = true[:, usable], positives[usable]
    aucs = np.asarray(roc_auc_score(true, scores, average=None), dtype=np.float64).reshape(-1)
    half_pair = 0.5 / (positives * (len(true) - positives))
    bounded = np.clip(aucs, half_pair, 1.0 - half_pair)
    return MultiLabel(
        mean_ap=float(average_precision_score(true, scores, average="macro")),
        mean_auc=float(aucs.mean()),
        d_prime_of_mean_auc=d_prime(float(bounded.mean())),
        mean_of_d_primes=float(np.mean([d_prime(auc) for auc in bounded.tolist()])),
        num_evaluated=int(usable.sum()),
        not_evaluated=tuple(compress(names, ~usable)),
        d_prime_bounded=tuple(compress(compress(names, usable), bounded != aucs)),
    )


def d_prime(auc: float) -> float:
    """Distance, in deviations, of two equal Gaussians that an AUC in (0, 1) tells apart."""
    return 2**0.5 * NormalDist().inv_cdf(auc)


def balanced_accuracy(predicted: Names, true: Names) -> float:
    """Mean over the classes that occur in `true` of the share found, in [0, 1].

    Raises:
        DataError: there is nothing to judge.
    """
    predicted, true = np.asarray(predicted), np.asarray(true)
    if not len(true):
        raise DataError("balanced accuracy: found no labelled clips, expected at least one")
    hits = predicted == true
    return float(np.mean([hits[true == name].mean() for name in np.unique(true)]))


def refuse_nan(values: NDArray[np.floating], what: str) -> None:
    """Stop before a NaN is silently ranked first or last.

    Raises:
        DataError: `values` holds a NaN; says in how many rows.
    """
    bad = np.isnan(values).any(axis=-1) if values.ndim > 1 else np.isnan(values)
    if bad.any():
        raise DataError(
            f"{what}: NaN in {int(bad.sum())} of {len(bad)} rows, expected numbers; "
            "the model or its input is broken: look at the training log"
        )
