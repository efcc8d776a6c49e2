"""Classifiers learn what is there, choose on validation rows only, and repeat by seed."""

import numpy as np
import pytest
import torch

from vatt.errors import ConfigError, DataError
from vatt.evaluation.classifiers import (
    Labelled,
    LowRankConfig,
    Splits,
    choose,
    draw_per_class,
    linear_svm,
    low_rank,
    majority,
    nearest_neighbours,
    train_low_rank,
)

SHORT = LowRankConfig(steps=400)


def clusters(seed: int, counts: tuple[int, ...] = (60, 60, 60), spread: float = 1.0) -> Labelled:
    """Gaussian clusters around fixed centres in 12 dimensions; one class per count."""
    centres = np.random.default_rng(0).normal(size=(len(counts), 12)) * 2
    rng = np.random.default_rng(seed)
    rows = [rng.normal(centres[c], spread, (n, 12)) for c, n in enumerate(counts)]
    labels = np.repeat([f"class {c}" for c in range(len(counts))], counts)
    return Labelled(np.concatenate(rows).astype(np.float32), labels)


@pytest.fixture(scope="module")
def separable() -> Splits:
    return Splits(clusters(1), clusters(2), clusters(3)).standardised()


@pytest.fixture(scope="module")
def meaningless() -> Splits:
    """Labels that have nothing to do with the features."""
    parts = [clusters(seed, (100, 100, 100)) for seed in (4, 5, 6)]
    rng = np.random.default_rng(7)
    shuffled = [Labelled(part.features, rng.permutation(part.labels)) for part in parts]
    return Splits(*shuffled).standardised()


JUDGES = {
    "svm": linear_svm,
    "knn": nearest_neighbours,
    "lrc": lambda splits: low_rank(splits, SHORT, seed=0),
}


@pytest.mark.parametrize("name", JUDGES)
def test_separable_classes_are_found(name, separable):
    assert JUDGES[name](separable).test > 0.95


@pytest.mark.parametrize("name", JUDGES)
def test_labels_without_meaning_stay_at_chance(name, meaningless):
    """0.333 expected; three standard deviations of 300 rows are 0.08."""
    assert JUDGES[name](meaningless).test == pytest.approx(1 / 3, abs=0.085)


@pytest.mark.parametrize("name", JUDGES)
def test_rare_classes_are_not_given_up(name):
    """By plain error, overlapping classes at 20 to 1 would all be called the frequent one."""
    parts = [clusters(seed, (400, 20), spread=3.0) for seed in (1, 2, 3)]
    assert JUDGES[name](Splits(*parts).standardised()).test > 0.6


def test_the_setting_is_chosen_without_looking_at_test_rows(separable):
    """The classifier that is right on validation rows and wrong on test rows must win."""
    val, test = separable.val, separable.test
    answers = {len(val.labels): val.labels, -1: test.labels}

    def right_on_val(features):
        same = np.array_equal(features, val.features)
        return answers[len(val.labels)] if same else np.roll(test.labels, 60)

    def right_on_test(features):
        same = np.array_equal(features, test.features)
        return answers[-1] if same else np.roll(val.labels, 60)

    verdict = choose(separable, [(1, right_on_test), (2, right_on_val)])
    assert (verdict.setting, verdict.val, verdict.test) == (2, 1.0, 0.0)


def test_low_rank_weight_has_at_most_n_components():
    data = clusters(1, (40,) * 6)
    labels = torch.from_numpy(np.unique(data.labels, return_inverse=True)[1])
    config = LowRankConfig(components=2, sampled_fraction=0.5, steps=50)
    weight = train_low_rank(torch.from_numpy(data.features), labels, torch.ones(6), config, seed=0)
    assert weight.shape == (12, 6)
    assert torch.linalg.matrix_rank(weight) == 2


def test_low_rank_repeats_by_seed_and_only_by_seed(separable):
    features = torch.from_numpy(separable.train.features)
    labels = torch.from_numpy(np.unique(separable.train.labels, return_inverse=True)[1])
    config = LowRankConfig(steps=20)
    first, again, other = (
        train_low_rank(features, labels, torch.ones(3), config, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_majority_of_unequal_classes_scores_one_class():
    part = clusters(1, (50, 10, 10, 10))
    assert majority(Splits(part, part, part)) == pytest.approx(0.25)


def test_standardising_uses_training_statistics_only():
    train, test = clusters(1), clusters(2)
    moved = Labelled(test.features + 100.0, test.labels)
    splits = Splits(train, moved, moved).standardised()
    np.testing.assert_allclose(splits.train.features.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(splits.train.features.std(axis=0), 1.0, atol=1e-5)
    assert splits.test.features.mean() > 10.0


def test_a_constant_feature_does_not_divide_by_zero():
    part = clusters(1)
    features = np.concatenate([part.features, np.ones((len(part.labels), 1), np.float32)], axis=1)
    same = Labelled(features, part.labels)
    assert np.isfinite(Splits(same, same, same).standardised().test.features).all()


def test_a_single_class_is_refused():
    part = clusters(1, (20,))
    with pytest.raises(DataError, match="expected 2 or more"):
        Splits(part, part, part).standardised()


def test_nan_features_are_refused():
    features = np.zeros((2, 3), np.float32)
    features[1] = np.nan
    with pytest.raises(DataError, match="NaN in 1 of 2 rows"):
        Labelled(features, np.array(["a", "b"]))


def test_few_labels_are_drawn_equally_and_by_seed():
    labels = np.array(["a"] * 50 + ["b"] * 30 + ["c"] * 4)
    rows = draw_per_class(labels, 10, seed=1)
    assert np.unique(labels[rows], return_counts=True)[1].tolist() == [10, 10, 4]
    assert np.array_equal(rows, draw_per_class(labels, 10, seed=1))
    assert not np.array_equal(rows, draw_per_class(labels, 10, seed=2))


def test_impossible_settings_are_named():
    with pytest.raises(ConfigError, match=r"low_rank\.sampled_fraction: found 1\.5"):
        LowRankConfig(sampled_fraction=1.5)
