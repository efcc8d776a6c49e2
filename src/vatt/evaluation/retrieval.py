"""Retrieval among a pool of clips: drawing the pool, similarities, recalls, the best possible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vatt.contracts import draw_bits
from vatt.errors import DataError
from vatt.evaluation.metrics import (
    RETRIEVAL_MEASURES,
    Ranks,
    chance_recalls,
    rank_relevant,
    recalls,
)

Rows = NDArray[np.int64]
ViewAverage = Literal["embeddings", "similarities"]


@dataclass(frozen=True, slots=True)
class RetrievalPool:
    """The clips that are queries and answers at once.

    rows: int [n], which of the candidates, in ascending order.
    num_candidates: how many could have been drawn.
    num_expected: how many were asked for.
    """

    rows: Rows
    num_candidates: int
    num_expected: int


def draw_pool(candidates: Rows, size: int, *, seed: int) -> RetrievalPool:
    """At most `size` of the candidates, each as likely, a function of the seed.

    Raises:
        DataError: fewer than two candidates.
    """
    if len(candidates) < 2:
        raise DataError(
            f"retrieval: found {len(candidates)} clips that qualify, expected at least 2; "
            "evaluate a split with more clips"
        )
    drawn = np.random.default_rng(draw_bits(seed, size)).permutation(candidates)[:size]
    return RetrievalPool(np.sort(drawn), len(candidates), size)


def one_clip_per_text(texts: Sequence[str], *, seed: int) -> Rows:
    """Row numbers of one clip for each different text; "" is no text.

    Where several clips have the same text, which of them stands for it is drawn by the seed: the
    others would be right answers that the measure calls wrong.
    """
    order = np.random.default_rng(draw_bits(seed)).permutation(len(texts))
    chosen: dict[str, int] = {}
    for row in order.tolist():
        if texts[row]:
            chosen.setdefault(texts[row], row)
    return np.array(sorted(chosen.values()), dtype=np.int64)


def num_sharing(texts: Sequence[str]) -> int:
    """How many clips have a text that another clip has too."""
    return sum(count for text, count in Counter(texts).items() if text and count > 1)


def similarities(
    queries: NDArray[np.float32],
    items: NDArray[np.float32],
    average: ViewAverage = "embeddings",
) -> NDArray[np.float32]:
    """Cosines [Q, M] of raw vectors.

    Args:
        queries: [Q, E].
        items: [M, E], or [M, V, E] of V views each.
        average: what is averaged over the views: their raw embeddings, before they are scaled to
            length one (paper, §4.3), or the cosines of each (the official code's other way).
    """
    views = items if items.ndim == 3 else items[:, None]
    if average == "embeddings":
        views = views.mean(axis=1, keepdims=True)
    mean_rows = unit_rows(views).mean(axis=1)  # a mean of cosines is the product with the mean
    scores: NDArray[np.float32] = unit_rows(queries) @ mean_rows.T
    return scores


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to length one; a zero row stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(lengths, 1e-12)
    return unit


def judge(scores: NDArray[np.floating], pool: RetrievalPool) -> dict[str, float | int]:
    """R@k in per cent and MedR of scores [n, n] whose diagonal is right, with chance beside."""
    n = len(scores)
    chance = chance_recalls(n)
    return {
        **recalls(rank_relevant(scores, np.eye(n, dtype=bool))),
        **{f"chance_{name}": value for name, value in chance.items()},
        "n": n,
        "n_expected": pool.num_expected,
        "n_candidates": pool.num_candidates,
    }


def oracle_ranks(said: Sequence[str], facts: Sequence[str]) -> Ranks:
    """Ranks reached by knowing every fact of every clip and nothing else.

    A clip fits a text when all that the text says is true of it; among the clips that fit, the
    choice is a guess. No model that uses these facts alone can be expected to do better.

    Args:
        said: [n] the facts each text states, separated by spaces.
        facts: [n] the facts of each clip; clip i belongs to text i.
    """
    known = [frozenset(text.split()) for text in facts]
    fits = np.array([[frozenset(text.split()) <= clip for clip in known] for text in said])
    return rank_relevant(fits.astype(np.float64), np.eye(len(known), dtype=bool))


def ceiling(said: Sequence[str], facts: Sequence[str]) -> dict[str, float]:
    """The oracle's R@k in per cent and MedR, named `ceiling_…`."""
    numbers = recalls(oracle_ranks(said, facts))
    return {f"ceiling_{name}": numbers[name] for name in RETRIEVAL_MEASURES}
