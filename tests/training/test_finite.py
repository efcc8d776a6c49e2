"""The check as it runs on a GPU (the host reads one step late), on the CPU; see also tests/gpu."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.training.reads import count_reads
from tests.training.toy import Pairs, Toy, batches, pairs
from vatt.checkpoints import checkpoint
from vatt.errors import TrainingError
from vatt.failed_step import load_batch
from vatt.report.training_curve import read_metrics
from vatt.training import finite
from vatt.training.loop import Learner, TrainConfig, train

CONFIG = TrainConfig(steps=12, save_every=5, log_every=4, device="cpu")


@pytest.fixture
def one_step_late(monkeypatch):
    monkeypatch.setattr(finite, "has_queue", lambda device: True)


def poisoned(*at: int, start: int = 0, end: int = 12) -> Iterator[Pairs]:
    for step, batch in enumerate(batches(start, end), start):
        x = batch.x.clone()
        if step in at:
            x[3, 1] = float("nan")
        yield replace(batch, x=x)


@pytest.mark.parametrize("at", [0, 2, 3, 4, 11], ids="step {}".format)
@pytest.mark.parametrize("name", ["adam", "momentum"])
@pytest.mark.usefixtures("one_step_late")
def test_no_weight_changes_from_the_bad_step_on_and_its_batch_is_captured(tmp_path, name, at):
    """Also at the first step, at one that is logged (3), one that is saved (4), and the last."""
    optim = {"name": name, "weight_decay": 0.1, "clip_norm": 1.0}
    sound = Toy(steps=12, **optim)
    train(CONFIG, sound.learner, batches(0, at), folder=tmp_path / "sound", start_step=0)

    toy = Toy(steps=12, **optim)
    began = rf"step {at} \(clips {at}/0.*loss nan.* in the output of 0 \(of clips {at}/3\); nor is"
    with pytest.raises(TrainingError, match=began):
        train(CONFIG, toy.learner, poisoned(at), folder=tmp_path, start_step=0)
    assert torch.equal(toy.weights(), sound.weights())
    assert len(toy.losses) <= at + 3  # at most one more step was begun; the bad one twice

    capture = tmp_path / "failures" / f"step-{at:06d}" / "rank-0"
    again = Toy(steps=12)
    again.load(capture)
    assert load_batch(Pairs, capture).keys == pairs(at).keys
    assert torch.equal(again.weights(), sound.weights())
    assert all(record["step"] <= at for record in read_metrics(tmp_path / "metrics.jsonl"))
    for saved in checkpoint.all_saved(tmp_path / "checkpoints"):
        assert int(saved.name.removeprefix("step-")) <= at


@pytest.mark.usefixtures("one_step_late")
def test_running_statistics_in_the_capture_are_those_before_the_step(tmp_path):
    toy = Toy(steps=12)
    seen = torch.zeros(())  # as batch norm's: the objective changes it
    before: list[float] = []

    def objective(batch):
        before.append(float(seen))
        seen.add_(1)
        return toy.objective(batch)

    learner = replace(toy.learner, objective=objective, buffers=[seen])
    with pytest.raises(TrainingError, match="step 6"):
        train(CONFIG, learner, poisoned(6), folder=tmp_path, start_step=0)
    assert len(before) == 9  # with the step after it, and itself once more
    assert seen == before[6]


@pytest.mark.parametrize("name", ["adam", "momentum"])
def test_reading_late_trains_as_reading_at_once_does(tmp_path, name, monkeypatch):
    optim = {"name": name, "weight_decay": 0.1, "clip_norm": 1.0}
    runs = []
    for late in (False, True):
        monkeypatch.setattr(finite, "has_queue", lambda device, late=late: late)
        toy, folder = Toy(steps=12, **optim), tmp_path / str(late)
        train(CONFIG, toy.learner, batches(0, 12), folder=folder, start_step=0)
        timeless = [
            {key: value for key, value in record.items() if key in ("step", "loss")}
            for record in read_metrics(folder / "metrics.jsonl")
        ]
        runs.append((toy.weights().tolist(), toy.losses, timeless))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("name", ["adam", "momentum"])
@pytest.mark.usefixtures("one_step_late")
def test_a_step_reads_no_number_from_the_device(tmp_path, name):
    toy = Toy(steps=12, name=name, weight_decay=0.1, clip_norm=1.0)

    def objective(batch: Pairs) -> dict[str, torch.Tensor]:
        return {"loss": (toy.model(batch.x) - batch.y).square().mean()}

    learner = replace(toy.learner, objective=objective)
    config = replace(CONFIG, log_every=12, save_every=12)
    with count_reads() as reads:
        train(config, learner, batches(0, 11), folder=tmp_path, start_step=0)
    assert reads == []


def with_statistics(toy: Toy, seen: torch.Tensor) -> Learner[Pairs]:
    """A learner whose objective counts its calls, as batch norm keeps statistics."""

    def objective(batch: Pairs) -> dict[str, torch.Tensor]:
        seen.add_(1)
        return toy.objective(batch)

    return replace(toy.learner, objective=objective, buffers=[seen])


@pytest.mark.parametrize("late", [False, True])
def test_steps_that_are_not_finite_are_left_out_up_to_a_number(tmp_path, monkeypatch, caplog, late):
    monkeypatch.setattr(finite, "has_queue", lambda device: late)
    config = replace(CONFIG, skip_nonfinite=2, log_every=1)
    optim: dict[str, Any] = {"weight_decay": 0.1, "clip_norm": 1.0}
    toy, seen = Toy(steps=12, **optim), torch.zeros(())
    moved = [toy.weights()]

    def note(step: int) -> dict[str, float]:
        moved.append(toy.weights())
        return {"seen": float(seen)}

    learner = replace(with_statistics(toy, seen), validate=note, validate_every=1)
    train(config, learner, poisoned(2, 6), folder=tmp_path / "whole", start_step=0)
    stood = [torch.equal(a, b) for a, b in itertools.pairwise(moved)]
    assert stood[1:] == [step in (2, 6) for step in range(1, 12)]  # the first has the rate 0
    log = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    assert [entry["seen"] for entry in log] == [1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10]
    assert [entry.get("skipped_steps", 0) for entry in log] == [0, 0, *[1] * 4, *[2] * 6]
    assert ["loss" in entry for entry in log] == [step not in (2, 6) for step in range(12)]
    assert caplog.text.count("left out, 1 of 2") == 1

    cut = Toy(steps=12, **optim)  # ends after the checkpoint of step 5, which counts one
    data = poisoned(2, 6, end=6)
    train(config, with_statistics(cut, torch.zeros(())), data, folder=tmp_path, start_step=0)
    state = checkpoint.resume(tmp_path / "checkpoints")
    assert (state.step, state.facts["skipped_steps"]) == (5, 1)
    second, seen = Toy(steps=12, **optim), torch.tensor(4.0)
    assert state.folder is not None
    second.load(state.folder)
    second.optimiser.load_state(state.optimiser)
    learner = replace(with_statistics(second, seen), skipped=1)
    train(config, learner, poisoned(2, 6, start=5), folder=tmp_path, start_step=5)
    assert torch.equal(second.weights(), toy.weights())
    assert seen == 10


@pytest.mark.parametrize("late", [False, True])
def test_one_step_more_than_may_be_left_out_ends_the_run_before_it(tmp_path, monkeypatch, late):
    monkeypatch.setattr(finite, "has_queue", lambda device: late)
    toy, before = Toy(steps=12), Toy(steps=12)
    config = replace(CONFIG, skip_nonfinite=2)
    data = poisoned(2, 4, end=6)
    train(config, before.learner, data, folder=tmp_path / "before", start_step=0)
    advice = r"step 6 .*--train.skip_nonfinite 3 leaves the step out"
    with pytest.raises(TrainingError, match=advice):
        train(config, toy.learner, poisoned(2, 4, 6, 7), folder=tmp_path, start_step=0)
    assert torch.equal(toy.weights(), before.weights())


@pytest.mark.parametrize("late", [False, True])
def test_a_run_that_may_leave_out_fewer_steps_than_it_did_trains_on(tmp_path, monkeypatch, late):
    monkeypatch.setattr(finite, "has_queue", lambda device: late)
    sound, toy = Toy(steps=12), Toy(steps=12)
    train(CONFIG, sound.learner, batches(0, 6), folder=tmp_path / "sound", start_step=0)
    learner = replace(toy.learner, skipped=2)  # by a command that allowed two; this one does not
    advice = r"step 6 .*--train.skip_nonfinite 3 leaves the step out"
    with pytest.raises(TrainingError, match=advice):
        train(CONFIG, learner, poisoned(6), folder=tmp_path / "toy", start_step=0)
    assert torch.equal(toy.weights(), sound.weights())


@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("autocast", ["auto", "off"])
def test_what_may_help_is_what_is_not_set_yet(tmp_path, clip_norm, autocast):
    toy, config = Toy(steps=12, clip_norm=clip_norm), replace(CONFIG, autocast=autocast)
    with pytest.raises(TrainingError) as failed:
        train(config, toy.learner, poisoned(1), folder=tmp_path, start_step=0)
    assert ("optim.clip_norm = 1" in str(failed.value)) == (clip_norm is None)
    assert ("train.autocast = off" in str(failed.value)) == (autocast != "off")
    assert "a lower optim.learning_rate" in str(failed.value)
