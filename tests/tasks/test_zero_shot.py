"""Zero-shot evaluation of a real tiny run, on real files."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vatt.errors import ConfigError, DataError
from vatt.evaluation.clips import EvalClip
from vatt.evaluation.features import PRETRAINED, RANDOM_INIT, SplitFeatures, untrained
from vatt.evaluation.metrics import chance_recalls
from vatt.evaluation.results import read_result
from vatt.tasks import linear_eval, prepare, zero_shot
from vatt.tasks.linear_eval import LinearEvalConfig
from vatt.tasks.zero_shot import (
    ZeroShotConfig,
    audio_to_video,
    class_vector,
    label_from_text,
    read_prompts,
    video_to_audio,
)

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
    with pytest.raises(DataError, match=r"'holdout'.*\['test', 'train', 'val'\]"):
        zero_shot.run(ZeroShotConfig(run=tiny.run, split="holdout"))


def made_up(video: np.ndarray, audio: np.ndarray, peaks: np.ndarray) -> SplitFeatures:
    """Clips with given vectors, for the trained and for the untrained network alike."""
    rows = len(video)
    vectors: dict[str, np.ndarray] = {}
    for network in (PRETRAINED, RANDOM_INIT):
        vectors |= {f"{network}/video_va": video, f"{network}/audio_va": audio}
    moments = tuple(EvalClip(row, f"video{row}", 0.0, "") for row in range(rows))
    return SplitFeatures("test", moments, vectors, peaks, ())


def test_silent_clips_are_left_out_of_sound_retrieval():
    """The silent half has no sound of its own: with it, half of the ranks would be chance."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 16)).astype(np.float32)
    peaks = np.tile([0.0, 0.5], 20).astype(np.float32)
    audio = vectors * (peaks[:, None] > 0)
    config = ZeroShotConfig(run=ANY, pool=500)
    for way in (audio_to_video, video_to_audio):
        found = way(made_up(vectors, audio, peaks), config)
        assert found["R@1"] == 100.0
        assert (found["n"], found["n_expected"]) == (20, 500)
        assert found["clips_without_sound"] == 20


def test_sound_retrieval_of_vectors_that_know_nothing_is_chance():
    same = np.ones((30, 8), np.float32)
    found = audio_to_video(made_up(same, same, np.ones(30, np.float32)), ZeroShotConfig(run=ANY))
    numbers = {name: found[name] for name in chance_recalls(30)}
    assert numbers == pytest.approx(chance_recalls(30))


def test_two_audible_clips_are_the_least(tiny):
    one = np.ones((1, 4), np.float32)
    with pytest.raises(DataError, match="found 1 clips that qualify"):
        video_to_audio(made_up(one, one, np.ones(1, np.float32)), ZeroShotConfig(run=ANY))


def test_a_clip_gets_the_class_whose_sentences_are_nearest(tiny):
    """Videos placed at the embedding of a sentence of their class must all be right."""
    import vatt

    encoder = vatt.load(tiny.run)
    sentences = {"left": ["it moves left"], "right": ["it moves right over green"]}
    labels = ["left", "right", "right"]
    by_class = {name: class_vector(encoder, texts) for name, texts in sentences.items()}
    video = np.stack([by_class[name] for name in labels])
    moments = tuple(
        EvalClip(row, "v", 0.0, "", {"action": name}) for row, name in enumerate(labels)
    )
    vectors = {f"{network}/video_vt": 7 * video for network in (PRETRAINED, RANDOM_INIT)}
    clips = SplitFeatures("test", moments, vectors, np.ones(3, np.float32), ())
    encoders = {PRETRAINED: encoder, RANDOM_INIT: encoder}
    found = label_from_text(clips, encoders, "action", sentences)
    assert (found[PRETRAINED], found["chance"], found["n"]) == (1.0, 0.5, 3)
    swapped = {"left": sentences["right"], "right": sentences["left"]}
    assert label_from_text(clips, encoders, "action", swapped)[PRETRAINED] == 0.0


def test_a_class_without_sentences_is_named(tiny, tmp_path):
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"action": {"left": ["it moves left"]}}))
    with pytest.raises(DataError, match=r"classes without sentences: \['right'\]"):
        zero_shot.run(ZeroShotConfig(run=tiny.run, prompts=prompts))


@pytest.mark.parametrize("text", ["{", "[1]", '{"action": ["left"]}', '{"action": {"left": []}}'])
def test_prompts_of_another_form_are_refused(tmp_path, text):
    (tmp_path / "prompts.json").write_text(text)
    with pytest.raises(DataError, match=r"prompts\.json"):
        read_prompts(tmp_path / "prompts.json")


def test_the_untrained_network_has_the_same_shape_and_its_own_weights(tiny):
    import vatt

    module = vatt.load(tiny.run).module
    fresh, again = (untrained(module.config, seed=3) for _ in range(2))
    other = untrained(module.config, seed=4)
    weights = {name: w for name, w in fresh.named_parameters() if w.ndim > 1}
    assert all(torch.equal(w, dict(again.named_parameters())[n]) for n, w in weights.items())
    assert not any(torch.equal(w, dict(module.named_parameters())[n]) for n, w in weights.items())
    assert any(not torch.equal(w, dict(other.named_parameters())[n]) for n, w in weights.items())


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
