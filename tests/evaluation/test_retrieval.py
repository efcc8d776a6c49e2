"""Pools hold each text once, and the oracle's ceiling is what its knowledge allows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.parity.recordings import arrays, assert_near
from vatt.errors import DataError
from vatt.evaluation.metrics import chance_recalls
from vatt.evaluation.retrieval import (
    RetrievalPool,
    ViewAverage,
    ceiling,
    draw_pool,
    judge,
    num_sharing,
    one_clip_per_text,
    similarities,
)

RECORDED = arrays("misc/eval_and_classification_losses.npz")


def pool_of(n: int) -> RetrievalPool:
    return RetrievalPool(np.arange(n), n, n)


@given(st.lists(st.sampled_from(["", "a", "b", "c d"]), max_size=12), st.integers(0, 5))
def test_each_text_is_in_the_pool_once_and_empty_texts_never(texts, seed):
    rows = one_clip_per_text(texts, seed=seed)
    assert sorted(texts[row] for row in rows) == sorted(set(texts) - {""})


def test_which_of_several_clips_stands_for_a_text_is_drawn_by_the_seed():
    chosen = {int(one_clip_per_text(["same"] * 5, seed=seed)[0]) for seed in range(40)}
    assert chosen == {0, 1, 2, 3, 4}
    assert one_clip_per_text(["same"] * 5, seed=3) == one_clip_per_text(["same"] * 5, seed=3)


def test_clips_that_share_a_text_are_counted():
    assert num_sharing(["a", "b", "a", "", "", "c", "a"]) == 3


def test_a_pool_larger_than_the_candidates_takes_them_all_and_says_so():
    pool = draw_pool(np.array([7, 3, 5]), 500, seed=0)
    assert pool.rows.tolist() == [3, 5, 7]
    assert (pool.num_candidates, pool.num_expected) == (3, 500)


def test_every_candidate_is_drawn_equally_often():
    counts = np.zeros(10)
    for seed in range(600):
        counts[draw_pool(np.arange(10), 4, seed=seed).rows] += 1
    assert counts.min() > 190  # 240 expected, one standard deviation is 12


def test_a_pool_of_one_is_refused():
    with pytest.raises(DataError, match="found 1 clips that qualify"):
        draw_pool(np.array([4]), 500, seed=0)


def test_the_same_vectors_at_any_length_are_retrieved_first():
    rng = np.random.default_rng(0)
    items = rng.normal(size=(30, 8)).astype(np.float32)
    queries = items * rng.uniform(0.1, 9, size=(30, 1)).astype(np.float32)
    found = judge(similarities(queries, items), pool_of(30))
    assert found["R@1"] == 100.0
    assert found["MedR"] == 1.0
    assert found["n"] == 30
    assert found["chance_R@10"] == pytest.approx(100 / 3)


def test_zero_vectors_tie_instead_of_failing():
    zeros = np.zeros((30, 8), np.float32)
    found = judge(similarities(zeros, zeros), pool_of(30))
    assert {name: found[name] for name in chance_recalls(30)} == pytest.approx(chance_recalls(30))


def test_the_ceiling_of_texts_that_say_nothing_is_chance():
    found = ceiling([""] * 40, [f"fact{i}" for i in range(40)])
    assert found == pytest.approx({f"ceiling_{k}": v for k, v in chance_recalls(40).items()})


def test_the_ceiling_of_texts_that_tell_clips_apart_is_perfect():
    facts = [f"action:walk place:{i} light:dark" for i in range(40)]
    assert ceiling([f"place:{i}" for i in range(40)], facts)["ceiling_R@1"] == 100.0


def test_the_ceiling_of_four_clips_that_fit_is_one_in_four():
    facts = [f"kind:{i // 4} other:{i}" for i in range(40)]
    found = ceiling([f"kind:{i // 4}" for i in range(40)], facts)
    assert found["ceiling_R@1"] == pytest.approx(25.0)
    assert found["ceiling_R@5"] == 100.0
    assert found["ceiling_MedR"] == 2.5


@pytest.mark.parametrize("average", ["embeddings", "similarities"])
def test_retrieval_over_several_views_is_that_of_the_official_code(average: ViewAverage):
    key = f"retrieval/average_{average}"
    texts, views = RECORDED["retrieval/text"].numpy(), RECORDED["retrieval/video"].numpy()
    videos = views.reshape(-1, int(RECORDED["retrieval/num_windows"]), views.shape[1])
    scores = similarities(texts, videos, average)
    expected = RECORDED[f"{key}/similarity"]
    assert_near(torch.from_numpy(scores), expected, f"{key}/similarity", atol=1e-6, rtol=1e-5)
    found = judge(scores, pool_of(len(scores)))
    for k in (1, 5, 10):
        assert found[f"R@{k}"] == pytest.approx(100 * float(RECORDED[f"{key}/R{k}"]))
    assert found["MedR"] == float(RECORDED[f"{key}/MedianRank"])


def test_views_that_see_the_same_are_as_one_view_in_both_ways():
    rng = np.random.default_rng(0)
    queries, items = rng.normal(size=(6, 4)), rng.normal(size=(5, 1, 4))
    same = np.repeat(items, 3, axis=1).astype(np.float32)
    one_window = similarities(queries.astype(np.float32), same[:, 0])
    for average in ("embeddings", "similarities"):
        found = similarities(queries.astype(np.float32), same, average)
        np.testing.assert_allclose(found, one_window, atol=1e-6)


def test_a_longer_view_counts_more_only_in_the_mean_of_embeddings():
    views = np.array([[[9.0, 0.0], [0.0, 1.0]]], np.float32)
    query = np.array([[1.0, 0.0]], np.float32)
    assert similarities(query, views)[0, 0] == pytest.approx(9 / 82**0.5)
    assert similarities(query, views, "similarities")[0, 0] == pytest.approx(0.5)
