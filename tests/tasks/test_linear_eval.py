"""Linear evaluation of a real tiny run: what it fits on, chooses on and reports."""

import json
import shutil

import pytest

from vatt.errors import ConfigError
from vatt.evaluation.classifiers import LowRankConfig
from vatt.evaluation.features import PRETRAINED, RANDOM_INIT
from vatt.evaluation.results import read_result
from vatt.tasks import linear_eval
from vatt.tasks.linear_eval import LinearEvalConfig

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


def test_impossible_settings_are_named(run):
    with pytest.raises(ConfigError, match="few_labels: found 0"):
        LinearEvalConfig(run=run, few_labels=0)
    with pytest.raises(ConfigError, match="train_clips: found 1"):
        LinearEvalConfig(run=run, train_clips=1)
