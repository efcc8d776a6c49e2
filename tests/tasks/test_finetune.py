"""Fine-tuning on a real tiny set: what is kept, exact resume, ranks, and what is refused."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

import vatt
from tests.distributed.in_memory import InMemory
from tests.distributed.ranks import run_ranks
from vatt import config as configs
from vatt.checkpoints import checkpoint
from vatt.cli.main import main
from vatt.contracts import FramePath
from vatt.errors import CheckpointError, ConfigError, DataError, TrainingError
from vatt.evaluation.examples import ExampleClips, find_examples
from vatt.evaluation.few_labels import few_of
from vatt.evaluation.protocols.multi_view import score
from vatt.models.classifier import Classifier
from vatt.models.weights import load_model, read_settings
from vatt.presets import FINETUNE_PRESETS
from vatt.report.training_curve import read_metrics
from vatt.shards.read import ShardFolder
from vatt.storage import locked
from vatt.tasks import finetune
from vatt.tasks.finetune import FinetuneConfig

ROOT = Path(__file__).parents[2]
TIMELESS = ("step", "loss", "learning_rate", "gradient_norm", "val_top1", "val_loss", "val_mean_ap")


def config(tiny, out: Path, kind: str = "video", **changes) -> FinetuneConfig:
    own = {
        "out": str(out),
        "start_from": str(tiny.run),
        "label": "sound_event" if kind == "audio" else "action",
        "data": {"shards": [str(tiny.shards)], "batch_size": 4, "workers": 0},
        "optim": {"warmup_steps": 2},
        "train": {
            "steps": 6, "save_every": 2, "keep": 9, "log_every": 1, "threads": 1,
            "device": "cpu", "autocast": "off",
        },
        "eval_every": 3,
    }  # fmt: skip
    start = FINETUNE_PRESETS[f"finetune-small-{kind}"]()
    values = configs.merge(configs.merge(start, own), changes)
    return configs.from_values(FinetuneConfig, values, where="test")


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """With mixup, DropToken and the best model kept: all that could spoil a resume."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    hard: dict[str, Any] = {
        "targets": {"mixup": 5.0},
        "model": {"drop_token": 0.5, "head_dropout": 0.2},
    }
    return config(tiny, out, **hard), finetune.run(config(tiny, out, **hard))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def log(run: Path) -> list[dict[str, float]]:
    entries = read_metrics(run / "metrics.jsonl")
    return [{key: one[key] for key in TIMELESS if key in one} for one in entries]


def assert_same_run(run: Path, other: Path) -> None:
    assert log(run) == log(other)
    for mine in (run / "model", run / "checkpoints" / "step-000006"):
        theirs = weights(other / mine.relative_to(run))
        found = weights(mine)
        assert found.keys() == theirs.keys()
        assert all(torch.equal(found[name], theirs[name]) for name in found)
    ours, reference = (json.loads((r / "model" / "config.json").read_text()) for r in (run, other))
    assert ours == reference


def test_the_classes_travel_with_the_model_in_the_order_of_their_names(finished):
    settings, result = finished
    model, clip = load_model(Classifier, settings.out / "model")
    assert (model.config.names, result.classes) == (("left", "right"), 2)
    assert model.config.labels == "one"
    _, _, extra = read_settings(settings.out / "model")
    assert extra["label"] == "action"
    assert vatt.load_classifier(settings.out).module.config.names == ("left", "right")
    assert (clip.frames, clip.height) == (4, 24)  # of the model that it starts from


def test_the_model_that_is_kept_is_the_best_of_the_validations_and_is_said_to_be(finished):
    settings, result = finished
    entries = {one["step"]: one for one in log(settings.out)}
    assert {step for step, one in entries.items() if "val_top1" in one} == {3, 6}
    _, _, extra = read_settings(settings.out / "model")
    best = max(entries[3]["val_top1"], entries[6]["val_top1"])
    assert (extra["measure"], extra["value"]) == ("top1", best)
    assert entries[extra["step"]]["val_top1"] == best
    assert "the best of the validations" in result.model
    assert (settings.out / "checkpoints" / "step-000006" / "model.safetensors").is_file()


def stopped_after(step: int, run: Path, out: Path) -> Path:
    """A copy of a finished run as if it had been killed after a step."""
    shutil.copytree(run, out)
    for path in checkpoint.all_saved(out / "checkpoints")[step // 2 :]:
        shutil.rmtree(path)
    return out


@pytest.mark.parametrize("step", [2, 4])
def test_a_stopped_run_goes_on_to_the_same_weights_log_and_best(finished, tmp_path, step):
    settings, _ = finished
    out = stopped_after(step, settings.out, tmp_path / "stopped")
    again = finetune.run(replace(settings, out=out, data=replace(settings.data, cache="memory")))
    assert again.steps == 6
    assert_same_run(out, settings.out)


def test_few_labels_are_the_same_ones_after_a_stop_and_from_scratch(tiny, tmp_path):
    few: dict[str, Any] = {"few": 2, "few_draw": 3, "model": {"linear_first": 0.1}}
    whole = config(tiny, tmp_path / "whole", **few)
    result = finetune.run(whole)
    assert (result.few["examples"], result.few["draw"]) == (4, 3)
    assert read_settings(whole.out / "model")[2]["few"] == result.few
    out = stopped_after(2, whole.out, tmp_path / "stopped")
    finetune.run(replace(whole, out=out))
    assert_same_run(out, whole.out)
    scratch = config(tiny, tmp_path / "scratch", scratch=True, train={"steps": 2}, **few)
    assert finetune.run(scratch).few == result.few


def test_the_linear_layer_first_knows_the_examples_before_any_other_weight_changes(tiny, tmp_path):
    first = config(
        tiny, tmp_path / "first",
        few=3, model={"linear_first": 100.0}, data={"split": "test"}, val_split="test",
        optim={"learning_rate": 1e-12, "warmup_steps": 0}, train={"steps": 1},
    )  # fmt: skip
    finetune.run(first)
    model, spec = load_model(Classifier, first.out / "model")
    shards = ShardFolder.open(tiny.shards)
    drawn = few_of([(shards, find_examples(shards, "test", "action"))], 3, draw=0)[0][1]
    found = score(model, ExampleClips(shards, drawn, spec, first.data, clips=1), FramePath())
    labels = [model.config.names.index(one.labels[0]) for one in drawn]
    assert found.values.argmax(1).tolist() == labels
    assert_close(
        model.linear.weight.sum(0), torch.zeros(model.linear.in_features), atol=1e-4, rtol=0
    )


def test_a_finished_run_given_again_changes_nothing(finished):
    settings, result = finished
    before = (settings.out / "metrics.jsonl").read_text()
    again = finetune.run(settings)
    assert (again.loss, again.model) == (None, result.model)
    assert (settings.out / "metrics.jsonl").read_text() == before


@pytest.mark.slow
def test_a_killed_run_goes_on_and_sigterm_ends_one_well(finished, tmp_path):
    settings, _ = finished
    settings = replace(settings, out=tmp_path / "killed")
    (tmp_path / "run.toml").write_text(tomli_w.dumps(configs.to_values(settings)))
    command = [sys.executable, "-m", "tests.tasks.finetune_rank", str(tmp_path / "run.toml")]
    for word in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        saved = len(checkpoint.all_saved(settings.out / "checkpoints"))
        while len(checkpoint.all_saved(settings.out / "checkpoints")) == saved < 3:
            if process.poll() is not None:
                break
            time.sleep(0.01)
        process.send_signal(word)
        _, said = process.communicate()
        assert process.returncode == (0 if word == signal.SIGTERM else -word), said
    finetune.run(settings)
    assert_same_run(settings.out, finished[0].out)


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("kind", ["video", "audio"])
def test_two_ranks_fine_tune_as_one_process_does(tiny, tmp_path, kind):
    changes: dict[str, Any] = {
        "model": {"dropout": 0.0},
        "optim": {"name": "momentum", "learning_rate": 0.01},
    }
    if kind == "audio":
        changes["targets"] = {"labels": "several"}  # balanced over the whole batch
        changes["model"]["linear_first"] = "none"
    else:
        changes["few"] = 3
    one = config(tiny, tmp_path / "one", kind, **changes)
    finetune.run(one)
    values = configs.to_values(replace(one, out=tmp_path / "two"))
    values["train"]["micro_batch"] = 1 if kind == "video" else "none"
    (tmp_path / "two.toml").write_text(tomli_w.dumps(values))
    run_ranks("tests.tasks.finetune_rank", str(tmp_path / "two.toml"), world_size=2)
    for mine, theirs in zip(log(tmp_path / "two"), log(tmp_path / "one"), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3)
    ours, reference = weights(tmp_path / "two/model"), weights(tmp_path / "one/model")
    for name, weight in ours.items():  # sums in another order
        assert_close(weight, reference[name], rtol=1e-3, atol=1e-5)


def test_weights_start_from_the_pretrained_backbone_or_fresh(tiny, tmp_path):
    found = {}
    for scratch in (False, True):
        settings = config(tiny, tmp_path / str(scratch), scratch=scratch)
        sizes, clip = finetune.starting_settings(settings)
        spec = finetune.clip_spec(settings, sizes, clip)
        state = checkpoint.TrainingState()
        found[scratch] = finetune.model_at(state, settings, sizes, spec, ("left", "right"))
    pretrained = load_file(tiny.run / "model" / "model.safetensors")
    ours, fresh = (found[scratch].state_dict() for scratch in (False, True))
    assert {key: one.shape for key, one in ours.items()} == {k: v.shape for k, v in fresh.items()}
    matrices = [key for key in ours if key.startswith("backbone.") and ours[key].ndim == 2]
    for key in matrices:
        before = pretrained[f"backbones.video.{key.removeprefix('backbone.')}"]
        assert torch.equal(ours[key], before)
        assert not torch.equal(fresh[key], before)


def test_a_larger_input_has_a_position_for_each_of_its_patches(tiny, tmp_path):
    settings = config(tiny, tmp_path, clip={"height": 48, "width": 64, "frames": 8})
    sizes, clip = finetune.starting_settings(settings)
    spec = finetune.clip_spec(settings, sizes, clip)
    assert finetune.at_input_size(sizes, spec, settings.model).video.buckets == (4, 6, 8)


def test_of_audio_one_frame_is_read_and_clips_last_as_long_as_before(tiny, tmp_path):
    for changes, frames in (({}, 1), ({"clip": {"frames": 8}}, 8)):
        settings = config(tiny, tmp_path, "audio", **changes)
        sizes, clip = finetune.starting_settings(settings)
        spec = finetune.clip_spec(settings, sizes, clip)
        assert spec.frames == frames
        assert spec.duration_s == pytest.approx(clip.duration_s * (2 if frames == 8 else 1))


def test_a_finetuned_model_is_a_start_for_other_and_for_the_same_classes(finished, tiny, tmp_path):
    start = str(finished[0].out)
    same = config(tiny, tmp_path / "same", start_from=start)
    sizes, clip = finetune.starting_settings(same)
    spec = finetune.clip_spec(same, sizes, clip)
    state = checkpoint.TrainingState()
    expected = weights(finished[0].out / "model")
    went_on = finetune.model_at(state, same, sizes, spec, ("left", "right"))
    assert torch.equal(went_on.linear.weight, expected["linear.weight"])
    other = finetune.model_at(state, same, sizes, spec, ("low", "high", "none")).state_dict()
    backbone = [key for key in other if not key.startswith("linear.")]
    assert all(torch.equal(other[key], expected[key]) for key in backbone)
    with pytest.raises(ConfigError, match="is a classifier of video, expected of audio"):
        finetune.model_at(state, replace(same, kind="audio"), sizes, spec, ("low", "high"))


def test_the_best_of_another_run_is_not_what_is_to_be_surpassed(finished, tiny, tmp_path):
    before = finished[0].out / "checkpoints" / "step-000006"
    assert json.loads((before / "state.json").read_text())["facts"]["best"]
    on = config(tiny, tmp_path / "on", start_from=str(before), train={"steps": 8})
    state = finetune.resumed(on, on.data, ("left", "right"), 8)
    assert (state.step, set(state.facts)) == (6, {"data"})


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_batch_in_parts_has_the_gradients_of_the_whole(tiny, tmp_path, at_once):
    draws = torch.tensor([11, 12, 13, 14])
    frames = torch.rand(4, 4, 24, 32, 3) * 2 - 1
    targets = torch.eye(2)[[0, 1, 1, 0]]
    found = []
    for size in (None, at_once):
        train = {"micro_batch": size or "none"}
        settings = config(tiny, tmp_path, train=train, model={"drop_token": 0.5, "dropout": 0.0})
        sizes, clip = finetune.starting_settings(settings)
        state, spec = checkpoint.TrainingState(), finetune.clip_spec(settings, sizes, clip)
        model = finetune.model_at(state, settings, sizes, spec, ("left", "right")).train()
        kept = InMemory(model)
        parts: list[int] = []

        def noted(_, given, kept=kept, parts=parts):
            assert kept.nothing()
            parts.append(len(given[0]))

        model.register_forward_pre_hook(noted)
        losses = finetune.class_losses(model, frames, targets, settings, draw=draws)
        losses["loss"].backward()
        assert kept.nothing()
        assert parts == {None: [4], 1: [1] * 7, 3: [3, 1, 3]}[size]  # all but the last run twice
        found.append({name: weight.grad for name, weight in model.named_parameters()})
    for name, gradient in found[0].items():
        assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6)  # float32


def test_epochs_stand_in_place_of_steps(tiny, tmp_path):
    result = finetune.run(config(tiny, tmp_path, epochs=0.5, optim={"warmup_steps": 0}))
    entries = read_metrics(tmp_path / "metrics.jsonl")
    assert result.steps == len(entries) > 1


def test_other_labels_than_before_do_not_continue_a_run(finished, tiny, tmp_path):
    out = stopped_after(2, finished[0].out, tmp_path / "other")
    with pytest.raises(ConfigError, match=r"label: found 'weapon', expected 'action'"):
        finetune.run(replace(finished[0], out=out, label="weapon"))


def test_a_second_run_in_a_folder_at_work_is_refused(tiny, tmp_path):
    with locked(tmp_path / ".lock"), pytest.raises(TrainingError, match="another `vatt finetune`"):
        finetune.run(config(tiny, tmp_path))


def test_a_loss_that_is_not_finite_stops_the_run_and_can_be_replayed(tiny, tmp_path, capsys):
    wild = {"learning_rate": 1e30, "warmup_steps": 0, "clip_norm": "none", "name": "momentum"}
    with pytest.raises(TrainingError, match=r"step \d+ \(clips .*found .*(nan|inf).* it began in"):
        finetune.run(config(tiny, tmp_path, optim=wild))
    (capture,) = (tmp_path / "failures").iterdir()
    again = finetune.replay(capture)
    assert not all(torch.isfinite(torch.tensor(value)) for value in again.losses.values())
    assert main(["debug", "replay", str(capture), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert again.began in shown["finding"]
    first = next(one for one in shown["modules"] if not one["finite"])
    assert first["module"] == again.began


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start_from": "none"}, r"start_from: found none; .*--scratch"),
        ({"data": {"shards": []}}, "expected one folder or table to prepare, or prepared shards"),
        ({"targets": {"smoothing": 1.0}}, r"targets\.smoothing: found 1\.0"),
        ({"eval_every": 0}, "eval_every: found 0"),
        ({"epochs": 0.0}, r"epochs: found 0\.0"),
        ({"train": {"micro_batch": 0}}, "train.micro_batch: found 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(tiny, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        config(tiny, tmp_path, **changes)


def test_labels_that_are_not_there_are_refused_with_those_that_are(tiny, tmp_path):
    with pytest.raises(DataError, match=r"no label 'kind' .*'action'.*choose one with --label"):
        finetune.run(config(tiny, tmp_path, label="kind"))


def test_what_is_no_model_to_start_from_is_refused(tiny, tmp_path):
    with pytest.raises(CheckpointError, match="no model here"):
        finetune.run(config(tiny, tmp_path / "run", start_from=str(tmp_path)))
