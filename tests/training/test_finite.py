"""The check as it runs on a GPU (the host reads one step late), on the CPU; see also tests/gpu."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from tests.training.reads import count_reads
from tests.training.toy import Pairs, Toy, batches, pairs
from vatt.errors import TrainingError
from vatt.report.training_curve import read_metrics
from vatt.training import checkpoint, finite
from vatt.training.capture import load_batch
from vatt.training.loop import TrainConfig, train

CONFIG = TrainConfig(steps=12, save_every=5, log_every=4, device="cpu")


@pytest.fixture
def one_step_late(monkeypatch):
    monkeypatch.setattr(finite, "has_queue", lambda device: True)


def poisoned(at: int, start: int = 0) -> Iterator[Pairs]:
    for step, batch in enumerate(batches(start, 12), start):
        x = batch.x.clone()
        if step == at:
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
    with pytest.raises(TrainingError, match=rf"step {at}: found loss nan.*clips {at}/0, {at}/1"):
        train(CONFIG, toy.learner, poisoned(at), folder=tmp_path, start_step=0)
    assert torch.equal(toy.weights(), sound.weights())
    assert len(toy.losses) <= at + 2  # at most one more step was begun

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
    assert len(before) == 8
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
