"""Evaluation of a fine-tuned tiny model: several views, what is refused, scores kept."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import vatt
from tests.data.small_shards import Video, damage, write_shards
from tests.tasks.test_finetune import config as finetune_config
from vatt.contracts import Augmentation
from vatt.data.clip_reader import ClipReader
from vatt.errors import CheckpointError, ConfigError, DataError
from vatt.evaluation.examples import ExampleClips, file_of, find_examples
from vatt.evaluation.protocols.multi_view import judge, score
from vatt.evaluation.results import read_result
from vatt.evaluation.score_files import FEATURES_FILE, MOST_FEATURES, FeatureSample, ScoreFile
from vatt.report.training_curve import read_metrics
from vatt.shards.read import ShardFolder
from vatt.tasks import evaluate, finetune, report
from vatt.tasks.evaluate import EvaluateConfig
from vatt.tasks.report import ReportConfig


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("classifier")
    finetune.run(
        finetune_config(tiny, out, train={"steps": 2}, optim={"warmup_steps": 1}, eval_every=1)
    )
    return out


@pytest.fixture(scope="module")
def evaluated(model):
    kept = model / "scores.npz"
    return evaluate.run(EvaluateConfig(run=model, save_scores=kept)), kept


def test_the_result_says_of_how_many_examples_of_which_model_over_which_views(evaluated, model):
    result = read_result(model, "evaluate")
    assert result is not None
    assert (result["protocol"], result["split"], result["label"]) == (
        "multi-view", "test", "action",
    )  # fmt: skip
    assert (result["n_evaluated"], result["n_expected"]) == (9, 9)
    assert (result["clips"], result["crops"], result["average"]) == (4, 3, "logits")
    shown = evaluated[0].shown()
    assert [row["examples"] for row in shown["classes"]] == list(
        map(result["measures"]["examples"].get, (row["class"] for row in shown["classes"]))
    )
    assert set(shown["measures"]) == {"top1"}
    assert result["n_files"] == 3  # each with three labelled spans
    assert file_of("long-0f-p0002@1.500") == file_of("long-0f@0.000") == "long-0f"
    assert {"ids_hash", "model_hash", "versions", "measures"} <= set(result)
    assert 0 <= result["measures"]["top1"] <= 1


def test_every_folder_that_has_the_split_is_evaluated(evaluated, model, tiny, tmp_path):
    other = shutil.copytree(tiny.shards, tmp_path / "other")
    run = shutil.copytree(model, tmp_path / "run")
    both = evaluate.run(EvaluateConfig(run=run, shards=(tiny.shards, other), clips=2, crops=1))
    assert (both.n_evaluated, both.n_expected, both.measures["top1"]) == (18, 18, pytest.approx(
        evaluate.run(EvaluateConfig(run=run, clips=2, crops=1)).measures["top1"]
    ))  # fmt: skip
    sample = FeatureSample.load(shutil.copytree(run, tmp_path / "kept"))
    assert sample is not None
    assert len(set(sample.ids)) == len(sample.ids)


def test_every_measure_is_taken_again_from_the_kept_scores_without_the_model(evaluated):
    result, kept = evaluated
    again = evaluate.run(EvaluateConfig(from_scores=kept))
    assert again.measures == result.measures
    assert (again.n_evaluated, again.n_expected) == (result.n_evaluated, result.n_expected)


def test_the_report_of_a_classifier_names_measures_classes_and_confusions(evaluated, model):
    page = report.run(ReportConfig(run=model)).path.read_text()
    assert "9 of 9 examples of split test" in page
    for words in ("top1", "share found", "taken for", "training loss", "validation loss"):
        assert words in page
    result = read_result(model, "evaluate")
    assert result is not None
    assert np.array(result["confusion"]).sum() == 9
    hits = np.trace(result["confusion"]) / 9
    assert result["measures"]["top1"] == pytest.approx(hits)


def test_the_report_shows_the_features_of_two_runs_beside_each_other(evaluated, model, tmp_path):
    sample = FeatureSample.load(model)
    assert sample is not None
    assert (len(sample.ids), sample.about["of"]) == (9, 9)
    classifier = vatt.load_classifier(model, "cpu")
    logits = classifier.module.classify(torch.from_numpy(sample.features))
    kept = ScoreFile.load(evaluated[1])
    assert sample.ids == kept.ids
    np.testing.assert_allclose(logits.detach().numpy(), kept.scores, atol=1e-5)
    scratch = shutil.copytree(model, tmp_path / "blank")
    (scratch / "config.toml").write_text("scratch = true\n")
    config = ReportConfig(run=model, compare=scratch)
    page = report.run(config).path.read_text()
    assert "Features of 9 of 9 examples of split test" in " ".join(page.split())
    assert page.count("blank (from scratch)") == 2  # in the map, and in the table
    (scratch / FEATURES_FILE).unlink()
    with pytest.raises(DataError, match="blank: holds no features to compare; run vatt evaluate"):
        report.run(config)
    replace(sample, ids=sample.ids[::-1]).save(scratch)
    with pytest.raises(DataError, match="blank: was evaluated on other examples or classes"):
        report.run(config)


def test_of_many_examples_some_features_are_kept_which_ones_is_a_function_of_the_seed():
    many = 2 * MOST_FEATURES
    true = np.zeros((many, 3), bool)
    true[np.arange(many), np.arange(many) % 3] = True
    true[7, :] = True  # of several classes at once
    ids = tuple(f"v@{n}" for n in range(many))
    about = {"split": "test", "model_hash": "x"}
    scores = ScoreFile(ids, ("a", "b", "c"), np.zeros((many, 3), np.float32), true, about)
    features = np.arange(many, dtype=np.float32)[:, None]
    one, again = (FeatureSample.drawn(scores, features) for _ in range(2))
    assert (one.ids, len(one.ids), one.about["of"]) == (again.ids, MOST_FEATURES, many - 1)
    rows = one.features[:, 0].astype(int)
    assert [f"v@{row}" for row in rows] == list(one.ids)
    assert (one.classes == rows % 3).all()
    assert 7 not in rows


def test_what_is_no_file_of_scores_is_refused(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a file of scores"):
        evaluate.run(EvaluateConfig(from_scores=tmp_path / "x.npz"))


def test_logits_of_views_are_those_of_each_view_alone_averaged(model, tiny):
    classifier = vatt.load_classifier(model, "cpu")
    shards = ShardFolder.open(tiny.shards)
    examples = find_examples(shards, "test", "action")[:2]
    data = evaluate.data_of(EvaluateConfig(run=model), classifier)[2]
    whole = score(
        classifier.module,
        ExampleClips(shards, examples, classifier.spec, data, clips=3),
        classifier.frame_path,
    )
    alone = []
    for example in examples:
        starts_s, _ = example.clips(classifier.spec, 3)
        singles = [replace(example, start_s=s, end_s=s + 0.8) for s in starts_s]
        source = ExampleClips(shards, singles, classifier.spec, data, clips=1)
        alone.append(score(classifier.module, source, classifier.frame_path).values.mean(0))
    np.testing.assert_allclose(whole.values, np.stack(alone), atol=1e-5)


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_three_crops_of_a_frame_of_the_models_aspect_are_one(model, tiny, average):
    classifier = vatt.load_classifier(model, "cpu")
    shards = ShardFolder.open(tiny.shards)
    data = evaluate.data_of(EvaluateConfig(run=model), classifier)[2]
    examples = find_examples(shards, "test", "action")[:2]
    source = ExampleClips(shards, examples, classifier.spec, data, clips=2)
    one, three = (
        score(classifier.module, source, classifier.frame_path, crops=crops, average=average)
        for crops in (1, 3)
    )
    np.testing.assert_allclose(one.values, three.values, atol=1e-5)
    if average == "probabilities":
        np.testing.assert_allclose(three.values.sum(1), 1, atol=1e-5)


def test_a_video_is_decoded_once_and_computed_once_for_each_of_its_views(model, tiny, monkeypatch):
    opened = []
    source = ShardFolder.source

    def counted(self, row):
        opened.append(row)
        return source(self, row)

    monkeypatch.setattr(ShardFolder, "source", counted)
    classifier = vatt.load_classifier(model, "cpu")
    seen = list[int]()
    classifier.module.backbone.register_forward_pre_hook(
        lambda _, given: seen.append(len(given[0]))
    )
    shards = ShardFolder.open(tiny.shards)
    examples = find_examples(shards, "test", "action")[:1]
    data = replace(evaluate.data_of(EvaluateConfig(run=model), classifier)[2], cache="none")
    clips = ExampleClips(shards, examples, classifier.spec, data, clips=4)
    score(classifier.module, clips, classifier.frame_path, crops=3)
    assert len(opened) == 1  # what four clips share is decoded once
    assert sum(seen) == 4 * 3  # and the network computes each view once


def test_clips_read_together_are_those_read_alone(tiny):
    shards = ShardFolder.open(tiny.shards)
    spec = vatt.load(tiny.run, "cpu").spec
    data = finetune_config(tiny, Path("x")).data
    reader = ClipReader(shards, replace(data, cache="none", decode="rgb"), spec, None, [])
    starts_s = (0.3, 2.0, 0.35)
    whole = reader.read_several(0, starts_s, 6.0, Augmentation())
    alone = [reader.read(0, start_s, 6.0, Augmentation()) for start_s in starts_s]
    assert np.array_equal(whole.frames, np.concatenate([one.frames for one in alone]))
    assert np.array_equal(whole.waveform, np.concatenate([one.waveform for one in alone]))


def test_a_model_without_a_trained_head_is_refused(tiny):
    with pytest.raises(CheckpointError, match=r"without a trained head, .*`vatt finetune`"):
        evaluate.run(EvaluateConfig(run=tiny.run))


def test_labels_of_other_classes_are_refused_with_the_first_difference(model, tiny):
    with pytest.raises(DataError) as found:
        evaluate.run(EvaluateConfig(run=model, label="sound_event"))
    assert "first 'high'" in str(found.value)
    assert "at class 0: the model has 'left', the labels have 'high'" in str(found.value)


def test_names_of_classes_in_another_order_are_refused(model, tmp_path):
    (tmp_path / "names.txt").write_text("right\nleft\n")
    with pytest.raises(ConfigError, match=r"expected the 2 classes of .* in their order"):
        evaluate.run(EvaluateConfig(run=model, classes=tmp_path / "names.txt"))


def labelled(kind: str, **given) -> Video:
    return Video(labels=({"start_s": 0.0, "end_s": 4.0, "action": kind},), split="test", **given)


def test_examples_that_cannot_be_read_are_counted_beside_the_number(model, tmp_path, caplog):
    data = write_shards(tmp_path / "s", [labelled("left"), labelled("right"), labelled("left")])
    damage(data, 1)
    given = EvaluateConfig(run=model, shards=(data.folder,), max_bad_fraction=0.5)
    result = evaluate.run(given)
    assert (result.n_evaluated, result.n_expected) == (2, 3)
    assert "1 of 3 examples are not evaluated" in caplog.text
    with pytest.raises(DataError, match="1 of 3 examples of split 'test' cannot be read"):
        evaluate.run(replace(given, max_bad_fraction=0.1))


def test_short_videos_have_fewer_different_clips_and_that_is_said(model, tmp_path):
    videos = [labelled("left", frames=6), labelled("right", frames=40)]  # a clip has 8 frames
    data = write_shards(tmp_path / "s", videos)
    shutil.copytree(model, tmp_path / "run")
    evaluate.run(EvaluateConfig(run=tmp_path / "run", shards=(data.folder,)))
    result = read_result(tmp_path / "run", "evaluate")
    assert result is not None
    assert (result["fewer_starts"], result["mean_starts"]) == (1, 2.5)


def test_one_right_class_gives_accuracies_and_several_give_map_and_auc():
    scores = np.array([[3.0, 1, 0], [0, 2, 1], [0, 5, 1]])
    true = np.eye(3, dtype=bool)
    found = judge(scores, true, ["a", "b", "c"], several=False)
    assert found["top1"] == pytest.approx(2 / 3)
    assert found["per_class"] == {"a": 1.0, "b": 1.0, "c": 0.0}
    many = judge(
        scores, np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]], bool), list("abc"), several=True
    )
    assert many["not_evaluated"] == ("c",)
    assert {"mean_ap", "mean_auc", "d_prime_of_mean_auc", "mean_of_d_primes"} <= many.keys()
    assert torch.isfinite(torch.tensor(many["mean_of_d_primes"]))


def test_several_labels_are_trained_with_mixup_and_judged_by_map_and_auc(tiny, tmp_path, caplog):
    changes = {
        "targets": {"labels": "several", "smoothing": 0.0, "mixup": 5.0},
        "model": {"linear_first": "none"},
        "train": {"steps": 3},
        "eval_every": 3,
    }
    finetune.run(finetune_config(tiny, tmp_path, "audio", **changes))
    classifier = vatt.load_classifier(tmp_path, "cpu")
    assert (classifier.module.config.labels, classifier.module.config.modality) == (
        "several", "audio",
    )  # fmt: skip
    (found,) = classifier.predict([next(tiny.clips.glob("test/*.mp4"))])
    logits = classifier.classify([next(tiny.clips.glob("test/*.mp4"))]).logits
    assert sorted(found.values()) == pytest.approx(sorted(logits.sigmoid()[0].tolist()))
    result = evaluate.run(EvaluateConfig(run=tmp_path, clips=2))
    assert 0 < result.measures["mean_ap"] <= 1
    assert {"mean_auc", "d_prime_of_mean_auc", "mean_of_d_primes"} <= result.measures.keys()
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["val_mean_ap"] > 0
