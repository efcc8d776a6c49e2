"""Zero-shot evaluation of a real tiny run, on real files."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from vatt.errors import ConfigError, DataError
from vatt.evaluation.results import read_result
from vatt.tasks import linear_eval, prepare, zero_shot
from vatt.tasks.linear_eval import LinearEvalConfig
from vatt.tasks.zero_shot import ZeroShotConfig

ANY = Path("any")


@pytest.fixture(scope="module")
def measured(tiny):
    config = ZeroShotConfig(run=tiny.run, prompts=tiny.clips / "prompts.json", pool=6)
    return zero_shot.run(config)


def test_the_result_says_what_was_measured_on_how_many_clips_of_which_model(measured, tiny):
    result = read_result(tiny.run, "zero-shot")
    assert result is not None
    assert (result["protocol"], result["split"], result["clips"]) == ("zero-shot-pool", "test", 9)
    text = result["text_to_video"]
    assert (text["n"], text["n_expected"]) == (6, 6)
    assert text["n_candidates"] + text["clips_sharing_a_text"] / 2 <= 9
    assert text["chance_R@1"] == pytest.approx(100 / 6)
    assert {"ids_hash", "ceiling_R@1", "random_init_R@1"} <= set(text)
    assert len(result["model_hash"]) == 12


def test_the_ceiling_of_captions_that_name_every_fact_is_perfect(measured):
    assert measured.measures["text_to_video"]["ceiling_R@1"] == 100.0


def test_the_same_seed_measures_the_same(measured, tiny):
    config = ZeroShotConfig(run=tiny.run, prompts=tiny.clips / "prompts.json", pool=6)
    assert zero_shot.run(config).measures == measured.measures


def test_another_seed_draws_another_pool(measured, tiny, tmp_path):
    shutil.copytree(tiny.run, tmp_path / "run")
    drawn = {
        zero_shot.run(ZeroShotConfig(run=tmp_path / "run", pool=3, seed=seed)).measures[
            "audio_to_video"
        ]["ids_hash"]
        for seed in range(3)
    }
    assert len(drawn) > 1


def test_a_split_that_is_not_there_is_named_with_those_that_are(tiny):
    with pytest.raises(DataError, match=r"'holdout'.* has test, train, val"):
        zero_shot.run(ZeroShotConfig(run=tiny.run, split="holdout"))


def test_a_class_without_sentences_is_named(tiny, tmp_path):
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"action": {"left": ["it moves left"]}}))
    with pytest.raises(DataError, match=r"classes without sentences: \['right'\]"):
        zero_shot.run(ZeroShotConfig(run=tiny.run, prompts=prompts))


def test_clips_without_labels_are_judged_by_their_captions(tiny, tmp_path):
    shards = tmp_path / "shards"
    config = prepare.PrepareConfig(
        src=(tiny.clips / "test",), out=shards, fps="source", copy=True, workers=1
    )
    prepare.run(config)
    shutil.copytree(tiny.run / "model", tmp_path / "model")
    judged = ZeroShotConfig(run=tmp_path / "model", shards=(shards,), split="train")
    measures = zero_shot.run(judged).measures
    assert set(measures) == {"text_to_video", "audio_to_video", "video_to_audio"}
    assert measures["text_to_video"]["n"] == len(set(captions_of(tiny)))
    assert "ceiling_R@1" not in measures["text_to_video"]
    labels = LinearEvalConfig(
        run=tmp_path / "model", shards=(shards,),
        train_split="train", val_split="train", test_split="train",
    )  # fmt: skip
    assert set(linear_eval.run(labels).left_out) == {
        "video_action",
        "sound_event",
        "sound_event_10",
    }


def captions_of(tiny) -> list[str]:
    """The lines of the .srt files that are neither a number nor a time."""
    lines = [
        line
        for path in (tiny.clips / "test").glob("*.srt")
        for line in path.read_text().splitlines()
    ]
    return [line for line in lines if line and not line.isdigit() and "-->" not in line]


def test_impossible_settings_are_named():
    with pytest.raises(ConfigError, match="pool: found 1"):
        ZeroShotConfig(run=ANY, pool=1)
    with pytest.raises(ConfigError, match="min_peak: found 1"):
        replace(ZeroShotConfig(run=ANY), min_peak=1.0)
