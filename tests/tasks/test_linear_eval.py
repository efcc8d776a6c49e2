"""Linear evaluation of a real tiny run: what it fits on, chooses on and reports."""

import json
import shutil

import numpy as np
import pytest

from vatt.errors import ConfigError
from vatt.evaluation.classifiers import LowRankConfig
from vatt.evaluation.clips import EvalClip
from vatt.evaluation.features import PRETRAINED, RANDOM_INIT, STILL_FRAME, SplitFeatures
from vatt.evaluation.results import read_result
from vatt.tasks import linear_eval
from vatt.tasks.linear_eval import LinearEvalConfig, Parts, all_labels, few, with_few_labels

SHORT = LowRankConfig(steps=150)


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("linear") / "run"
    shutil.copytree(tiny.run, folder, ignore=shutil.ignore_patterns("results"))
    return folder


@pytest.fixture(scope="module")
def measured(run):
    config = LinearEvalConfig(run=run, low_rank=SHORT, few_labels=3, audio=("sound_event", "map"))
    return linear_eval.run(config)


def test_every_measure_stands_beside_what_knows_less(measured, run):
    result = read_result(run, "linear-eval")
    assert result is not None
    assert result["low_rank_steps"] == 150
    assert set(result["video_action"]) >= {"pretrained", "random_init", "still_frame", "majority"}
    assert set(result["sound_event_3"]) >= {"pretrained", "random_init", "majority", "draws"}
    for numbers in (result["video_action"], result["sound_event"], result["sound_event_3"]):
        assert set(numbers["pretrained"]) == {"lrc", "svm", "knn"}
        assert numbers["majority"] == 0.5
        assert (numbers["n_val"], numbers["n_test"], numbers["n_expected"]) == (6, 9, 9)
    assert result["video_action"]["n_train"] == 18
    assert result["sound_event_3"]["n_train"] == 6


def test_tones_that_any_network_hears_are_told_apart(measured):
    """A tone of 300 Hz and one of 1500 Hz differ in every patch, trained or not."""
    for network in (PRETRAINED, RANDOM_INIT):
        assert measured.measures["sound_event"][network]["svm"] == 1.0


def test_what_cannot_be_heard_is_not_found_in_the_sound(measured):
    """The colour of the ground (column "map") makes no sound: chance is one in three."""
    assert measured.measures["map"]["pretrained"]["svm"] < 0.7


def test_the_same_seed_measures_the_same(measured, run):
    config = LinearEvalConfig(run=run, low_rank=SHORT, few_labels=3, audio=("sound_event", "map"))
    assert json.dumps(linear_eval.run(config).measures) == json.dumps(measured.measures)


def test_a_label_that_no_clip_has_is_left_out_with_the_reason(run):
    config = LinearEvalConfig(run=run, video=("weather",), audio=(), low_rank=SHORT)
    result = linear_eval.run(config)
    assert result.measures == {}
    assert "no clip of the train split has the label 'weather'" in result.left_out["video_weather"]


def part(split: str, videos: np.ndarray, labels: list[str]) -> SplitFeatures:
    vectors = {f"{network}/video_features": videos for network in (PRETRAINED, RANDOM_INIT)}
    vectors[f"{STILL_FRAME}/video_features"] = np.zeros_like(videos)
    moments = tuple(EvalClip(row, "v", 0.0, "", {"kind": name}) for row, name in enumerate(labels))
    return SplitFeatures(split, moments, vectors, np.ones(len(labels), np.float32), ())


@pytest.fixture(scope="module")
def parts() -> Parts:
    """Two classes, far apart, in every split; the last clip of each has no label."""
    rng = np.random.default_rng(0)
    labels = ["a", "b"] * 20 + [""]
    centres = np.array([[4.0 if name == "a" else -4.0] * 6 for name in labels])
    splits = [
        part(name, (centres + rng.normal(size=(41, 6))).astype(np.float32), labels)
        for name in ("train", "val", "test")
    ]
    return Parts(*splits)


def test_clips_without_the_label_are_in_no_split(parts, run):
    splits = parts.labelled("kind", "video", PRETRAINED)
    assert [len(s.labels) for s in (splits.train, splits.val, splits.test)] == [40, 40, 40]
    assert set(splits.test.labels) == {"a", "b"}


def test_a_network_that_sees_nothing_is_at_chance_beside_one_that_sees(parts, run):
    numbers = all_labels(LinearEvalConfig(run=run, low_rank=SHORT), parts, "kind", "video")
    assert numbers["pretrained"]["svm"] == 1.0
    assert numbers["still_frame"]["svm"] == numbers["chance"] == 0.5


def test_few_labels_are_few_and_the_mean_of_several_draws(parts, run):
    config = LinearEvalConfig(run=run, low_rank=SHORT, few_labels=2, draws=3)
    splits = parts.labelled("kind", "video", PRETRAINED)
    drawn = [few(splits, config, draw).train for draw in range(3)]
    assert [len(rows.labels) for rows in drawn] == [4, 4, 4]
    assert not np.array_equal(drawn[0].features, drawn[1].features)
    assert with_few_labels(config, parts, "kind", "video")["draws"] == 3


def test_impossible_settings_are_named(run):
    with pytest.raises(ConfigError, match="few_labels: found 0"):
        LinearEvalConfig(run=run, few_labels=0)
    with pytest.raises(ConfigError, match="train_clips: found 1"):
        LinearEvalConfig(run=run, train_clips=1)
