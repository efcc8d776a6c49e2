"""The protocol "linear-frozen": which clips are fitted on, and what classifiers find in them."""

import numpy as np
import pytest

from vatt.evaluation.classifiers import LowRankConfig
from vatt.evaluation.clips import EvalClip
from vatt.evaluation.features import PRETRAINED, RANDOM_INIT, STILL_FRAME, SplitFeatures
from vatt.evaluation.protocols.linear_frozen import (
    FeaturesOfSplits,
    all_labels,
    few,
    with_few_labels,
)

SHORT = LowRankConfig(steps=150)


def part(split: str, videos: np.ndarray, labels: list[str]) -> SplitFeatures:
    vectors = {f"{network}/video_features": videos for network in (PRETRAINED, RANDOM_INIT)}
    vectors[f"{STILL_FRAME}/video_features"] = np.zeros_like(videos)
    clips = tuple(EvalClip(row, "v", 0.0, "", {"kind": name}) for row, name in enumerate(labels))
    return SplitFeatures(split, clips, vectors, np.ones(len(labels), np.float32), ())


@pytest.fixture(scope="module")
def parts() -> FeaturesOfSplits:
    """Two classes, far apart, in every split; the last clip of each has no label."""
    rng = np.random.default_rng(0)
    labels = ["a", "b"] * 20 + [""]
    centres = np.array([[4.0 if name == "a" else -4.0] * 6 for name in labels])
    splits = [
        part(name, (centres + rng.normal(size=(41, 6))).astype(np.float32), labels)
        for name in ("train", "val", "test")
    ]
    return FeaturesOfSplits(*splits)


def test_clips_without_the_label_are_in_no_split(parts):
    splits = parts.labelled("kind", "video", PRETRAINED)
    assert [len(s.labels) for s in (splits.train, splits.val, splits.test)] == [40, 40, 40]
    assert set(splits.test.labels) == {"a", "b"}


def test_a_network_that_sees_nothing_is_at_chance_beside_one_that_sees(parts):
    numbers = all_labels(parts, "kind", "video", SHORT, seed=0)
    assert numbers["pretrained"]["svm"] == 1.0
    assert numbers["still_frame"]["svm"] == numbers["chance"] == 0.5


def test_few_labels_are_few_and_the_mean_of_several_draws(parts):
    splits = parts.labelled("kind", "video", PRETRAINED)
    drawn = [few(splits, 2, seed=draw).train for draw in range(3)]
    assert [len(rows.labels) for rows in drawn] == [4, 4, 4]
    assert not np.array_equal(drawn[0].features, drawn[1].features)
    numbers = with_few_labels(parts, "kind", "video", SHORT, count=2, draws=3, seed=0)
    assert numbers["draws"] == 3
