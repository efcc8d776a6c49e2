"""Metrics against brute force over all orders of ties, and against recorded official numbers."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from tests.parity.recordings import FOLDER
from vatt.errors import DataError
from vatt.evaluation.metrics import (
    Ranks,
    balanced_accuracy,
    chance_recalls,
    rank_relevant,
    recalls,
    top_k_accuracy,
)


def first_relevant_ranks(scores: np.ndarray, relevant: np.ndarray) -> list[int]:
    """Rank of the first relevant item under every order that agrees with the scores."""
    orders = itertools.permutations(range(len(scores)))
    agreeing = [
        order
        for order in orders
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    return [1 + min(order.index(i) for i in np.flatnonzero(relevant)) for order in agreeing]


@given(
    scores=nps.arrays(np.int64, st.integers(1, 6), elements=st.integers(0, 2)),
    marks=st.integers(1, 2**6 - 1),
    k=st.integers(1, 8),
)
def test_ranks_and_recalls_are_the_mean_over_all_orders_of_tied_items(scores, marks, k):
    relevant = np.array([bool(marks >> i & 1) for i in range(len(scores))])
    relevant[0] |= not relevant.any()
    every = np.array(first_relevant_ranks(scores, relevant))
    ranks = rank_relevant(scores[None].astype(float), relevant[None])
    assert ranks.expected()[0] == pytest.approx(every.mean())
    assert ranks.within(k)[0] == pytest.approx((every <= k).mean())


@given(num_items=st.integers(1, 300))
def test_scores_that_know_nothing_measure_exactly_chance(num_items):
    ranks = rank_relevant(np.zeros((num_items, num_items)), np.eye(num_items, dtype=bool))
    assert recalls(ranks) == pytest.approx(chance_recalls(num_items))


def test_perfect_scores_are_found_first():
    found = recalls(rank_relevant(np.eye(20), np.eye(20, dtype=bool)))
    assert found == {"R@1": 100.0, "R@5": 100.0, "R@10": 100.0, "MedR": 1.0}


def test_infinite_scores_are_ranked_like_any_others():
    scores = np.array([[np.inf, 1.0, -np.inf]])
    relevant = np.array([[False, False, True]])
    assert rank_relevant(scores, relevant).expected()[0] == 3.0


def test_nan_scores_are_refused_with_their_count():
    scores = np.eye(3)
    scores[1, 2] = np.nan
    with pytest.raises(DataError, match="NaN in 1 of 3 rows"):
        rank_relevant(scores, np.eye(3, dtype=bool))


def test_a_query_without_a_relevant_item_is_refused():
    with pytest.raises(DataError, match="query 1 has no relevant item"):
        rank_relevant(np.eye(2), np.array([[True, False], [False, False]]))


def test_one_huge_tie_costs_no_more_than_k_steps():
    many = np.array([10**9])
    ranks = Ranks(better=np.array([0]), tied=many, relevant=np.array([1]))
    assert ranks.within(10)[0] == pytest.approx(1e-8)


def test_balanced_accuracy_counts_each_class_once():
    true = ["none"] * 98 + ["shot", "pain"]
    assert balanced_accuracy(["none"] * 100, true) == pytest.approx(1 / 3)
    assert balanced_accuracy(true, true) == 1.0


def test_balanced_accuracy_refuses_an_empty_set():
    with pytest.raises(DataError, match="no labelled clips"):
        balanced_accuracy([], [])


@given(nps.arrays(np.float64, (5, 4), elements=st.integers(0, 3)), st.integers(1, 4))
def test_top_k_over_all_classes_as_truth_adds_up_to_k(logits, k):
    """Each row has k places for its 4 classes, however the ties fall."""
    total = sum(top_k_accuracy(logits, np.full(5, label), k) for label in range(4))
    assert total == pytest.approx(k)


class TestOfficialNumbers:
    def arrays(self) -> dict[str, np.ndarray]:
        return dict(np.load(FOLDER / "misc" / "eval_and_classification_losses.npz"))

    def test_top_1_and_top_5(self):
        data = self.arrays()
        labels = data["topk/true"][:, 0].astype(int)
        for k in (1, 5):
            found = top_k_accuracy(data["topk/pred"], labels, k)
            assert found == pytest.approx(float(data[f"topk/top{k}"]))

    @pytest.mark.parametrize("variant", ["average_embeddings", "average_similarities"])
    def test_text_to_video_recalls(self, variant):
        data = self.arrays()
        scores = data[f"retrieval/{variant}/similarity"]
        found = recalls(rank_relevant(scores, np.eye(len(scores), dtype=bool)))
        scale = 100.0 if float(data[f"retrieval/{variant}/R10"]) <= 1 else 1.0
        for k in (1, 5, 10):
            official = float(data[f"retrieval/{variant}/R{k}"]) * scale
            assert found[f"R@{k}"] == pytest.approx(official, abs=1e-4)
        official = float(data[f"retrieval/{variant}/MedianRank"])
        assert found["MedR"] == pytest.approx(official)
