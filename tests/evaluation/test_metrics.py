"""Metrics against brute force over all orders of ties, and against recorded official numbers."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from tests.parity.recordings import arrays
from vatt.errors import DataError
from vatt.evaluation.metrics import (
    Ranks,
    balanced_accuracy,
    chance_recalls,
    d_prime,
    judge_labels,
    neighbour_accuracy,
    rank_relevant,
    recalls,
    top_k_accuracy,
)

RECORDED = arrays("misc/eval_and_classification_losses.npz")


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


@pytest.mark.parametrize("k", [1, 5])
def test_top_k_accuracy_is_that_of_the_official_code(k):
    labels = RECORDED["topk/true"][:, 0].numpy()
    found = top_k_accuracy(RECORDED["topk/pred"].numpy(), labels, k)
    assert found == pytest.approx(float(RECORDED[f"topk/top{k}"]), abs=1e-9)


def test_measures_of_several_labels_are_those_of_the_official_code():
    found = judge_labels(
        RECORDED["multilabel/pred"].numpy(), RECORDED["multilabel/true"].numpy() > 0, "abcdef"
    )
    assert found.mean_ap == pytest.approx(float(RECORDED["multilabel/mAP"]), abs=1e-9)
    assert found.mean_auc == pytest.approx(float(RECORDED["multilabel/AUC"]), abs=1e-9)
    official = float(RECORDED["multilabel/d-prime"])
    assert found.mean_of_d_primes == pytest.approx(official, abs=1e-9)
    assert found.d_prime_of_mean_auc != pytest.approx(official, abs=1e-4)  # the paper's is another
    assert found.d_prime_of_mean_auc == pytest.approx(d_prime(found.mean_auc))
    assert (found.num_evaluated, found.not_evaluated, found.d_prime_bounded) == (6, (), ())


def labelled(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties, and labels of which each class has some and lacks some."""
    rng = np.random.default_rng(seed)
    true = rng.random((12, 3)) < 0.4
    true[0], true[1] = True, False
    return rng.integers(0, 4, (12, 3)).astype(np.float32), true


@pytest.mark.parametrize("seed", range(8))
def test_auc_is_the_share_of_pairs_in_the_right_order_ties_counting_half(seed):
    scores, true = labelled(seed)
    shares = []
    for column, positive in zip(scores.T, true.T, strict=True):
        gaps = column[positive][:, None] - column[~positive]
        shares.append((np.sign(gaps) + 1).mean() / 2)
    assert judge_labels(scores, true, "abc").mean_auc == pytest.approx(np.mean(shares))


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_the_clips_and_any_increasing_function_of_scores_change_nothing(seed):
    scores, true = labelled(seed)
    order = np.random.default_rng(seed).permutation(len(scores))
    found = judge_labels(scores, true, "abc")
    for again in (
        judge_labels(scores[order], true[order], "abc"),
        judge_labels(scores**3 - 7, true, "abc"),
    ):
        assert again.mean_ap == pytest.approx(found.mean_ap)
        assert again.mean_of_d_primes == pytest.approx(found.mean_of_d_primes)


def test_constant_scores_measure_chance():
    true = np.arange(40).reshape(20, 2) % 5 < 2
    found = judge_labels(np.zeros((20, 2)), true, "ab")
    assert (found.mean_auc, found.mean_of_d_primes, found.d_prime_of_mean_auc) == (0.5, 0.0, 0.0)
    assert found.mean_ap == pytest.approx(true.mean())


def test_classes_without_positives_or_negatives_are_named_and_count_nowhere():
    scores, true = labelled(0)
    usable = judge_labels(scores, true, ["a", "b", "c"])
    never, always = np.zeros((12, 1), bool), np.ones((12, 1), bool)
    found = judge_labels(
        np.hstack([scores[:, :1], scores]),
        np.hstack([never, true]),
        ["never", "a", "b", "c"],
    )
    assert found == replace(usable, not_evaluated=("never",))
    found = judge_labels(scores[:, :2], np.hstack([true[:, :1], always]), ["a", "always"])
    assert (found.num_evaluated, found.not_evaluated) == (1, ("always",))
    assert found.mean_auc == judge_labels(scores[:, :1], true[:, :1], ["a"]).mean_auc
    with pytest.raises(DataError, match="each of the 2 classes is always or never true"):
        judge_labels(scores[:, :2], np.hstack([never, always]), ["never", "always"])


def test_perfect_scores_have_a_finite_d_prime_and_the_class_is_named():
    true = np.array([[1, 0], [1, 1], [0, 0], [0, 1], [0, 0]], dtype=bool)
    scores = np.stack([np.array([np.inf, 3, 2, 1, -np.inf]), np.array([1, 0, 1, 0, 1])], axis=1)
    found = judge_labels(scores, true, ["right", "wrong"])
    assert (found.mean_auc, found.d_prime_bounded) == (0.5, ("right", "wrong"))
    # of 2 x 3 pairs each: half a pair wrong in one class, half a pair right in the other
    assert found.mean_of_d_primes == pytest.approx(0.0)
    alone = judge_labels(scores[:, :1], true[:, :1], ["right"])
    assert (alone.mean_ap, alone.mean_auc) == (1.0, 1.0)
    assert alone.mean_of_d_primes == pytest.approx(d_prime(1 - 0.5 / 6))
    assert alone.d_prime_of_mean_auc == alone.mean_of_d_primes


def test_nan_label_scores_are_refused_also_where_the_class_is_not_evaluated():
    scores, true = labelled(0)
    scores[3, 1], true[:, 1] = np.nan, False
    with pytest.raises(DataError, match="label scores: NaN in 1 of 12 rows"):
        judge_labels(scores, true, "abc")


def test_d_prime_is_the_distance_of_two_gaussians():
    positives, negatives = np.random.default_rng(0).normal(size=(2, 200_000))
    auc = float((positives + 1.5 > negatives).mean())
    assert d_prime(auc) == pytest.approx(1.5, abs=0.02)
    assert d_prime(0.5) == 0.0


def test_neighbours_are_of_one_class_where_features_tell_classes_apart_and_else_by_chance():
    classes = np.repeat(np.arange(4), 50)
    ids = [str(n) for n in range(200)]
    apart = np.eye(4)[classes] + 0.1 * np.random.default_rng(0).normal(size=(200, 4))
    assert neighbour_accuracy(apart, classes, ids) == 1
    # Rows that are all alike are in no order, though rows of one class lie together.
    assert neighbour_accuracy(np.ones((200, 4)), classes, ids) == pytest.approx(0.25, abs=0.1)
    # Clips of one video are no neighbours: here each class is one video.
    assert neighbour_accuracy(apart, classes, [str(c) for c in classes]) == 0
    votes = np.array([[1.0, 0], [1, 0.1], [1, 0.2]])  # of two others, one of each class
    assert neighbour_accuracy(votes, np.array([0, 0, 1]), list("abc")) == pytest.approx(1 / 3)
