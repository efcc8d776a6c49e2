import signal
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from tests.training.toy import Pairs, Toy, batches, pairs
from vatt import run_log
from vatt.checkpoints import checkpoint
from vatt.devices import cpu_threads
from vatt.errors import ConfigError, TrainingError
from vatt.failed_step import load_batch
from vatt.report.training_curve import read_metrics
from vatt.training.loop import Stopwatch, TrainConfig, step_randomness, train


def config(**changes) -> TrainConfig:
    return replace(TrainConfig(steps=12, save_every=5, log_every=2, device="cpu"), **changes)


def test_resumed_run_equals_uninterrupted_run_bit_for_bit(tmp_path):
    whole = Toy(steps=12)
    train(config(), whole.learner, batches(0, 12), folder=tmp_path / "whole", start_step=0)

    first = Toy(steps=12)
    stopped = iter(batches(0, 8))  # the data ends as if the process did: after step 7
    train(config(), first.learner, stopped, folder=tmp_path / "cut", start_step=0)
    saved = checkpoint.all_saved(tmp_path / "cut" / "checkpoints")[-1]
    assert saved.name == "step-000005"

    second = Toy(steps=12)
    second.load(saved)
    state = checkpoint.resume(saved.parent)
    second.optimiser.load_state(state.optimiser)
    assert state.facts == {"seen": 5, "skipped_steps": 0}
    train(
        config(),
        second.learner,
        batches(state.step, 12),
        folder=tmp_path / "cut",
        start_step=state.step,
    )
    assert torch.equal(second.weights(), whole.weights())
    assert second.losses == whole.losses[5:]

    timeless = ("loss", "step", "learning_rate", "gradient_norm")
    records = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("cut", "whole")]
    cut, uncut = ([{k: r[k] for k in timeless} for r in run] for run in records)
    assert cut == uncut
    assert [record["step"] for record in cut] == [2, 4, 6, 8, 10, 12]


def test_the_log_is_on_the_disk_before_the_checkpoint_that_follows_it(tmp_path, monkeypatch):
    """Else a run lacks entries for good that goes on from there after a power cut."""
    toy, order = Toy(steps=12), list[str]()

    def flushed(file: BinaryIO) -> None:
        file.flush()
        order.append(f"{len(read_metrics(tmp_path / 'metrics.jsonl'))} entries")

    def write_model(folder: Path | None, /, *, weights: bool = True) -> None:
        order.append("checkpoint")
        toy.write_model(folder, weights=weights)

    monkeypatch.setattr(run_log, "flush", flushed)
    learner = replace(toy.learner, write_model=write_model)
    train(config(log_every=1), learner, batches(0, 12), folder=tmp_path, start_step=0)
    assert order == [x for n in (5, 10, 12) for x in (f"{n} entries", "checkpoint")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_training_after_the_step_in_work_with_a_checkpoint(tmp_path, number):
    toy = Toy(steps=12)

    def objective(batch: Pairs) -> dict[str, torch.Tensor]:
        if batch.keys[0] == "3/0":
            signal.raise_signal(number)
        return toy.objective(batch)

    before = signal.getsignal(number)
    learner = replace(toy.learner, objective=objective)
    ends = pytest.raises(KeyboardInterrupt) if number == signal.SIGINT else nullcontext()
    with ends:
        train(config(), learner, batches(0, 12), folder=tmp_path, start_step=0)
    saved = checkpoint.resume(tmp_path / "checkpoints")
    assert (saved.step, saved.facts) == (4, {"seen": 4, "skipped_steps": 0})
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_ends_training_at_once(tmp_path):
    toy = Toy(steps=12)

    def objective(batch: Pairs) -> dict[str, torch.Tensor]:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return toy.objective(batch)

    learner = replace(toy.learner, objective=objective)
    with pytest.raises(KeyboardInterrupt):
        train(config(), learner, batches(0, 12), folder=tmp_path, start_step=0)
    assert not toy.losses


def test_seed_changes_dropout_and_the_callers_random_state_is_left_alone(tmp_path):
    runs = []
    for number, seed in enumerate((0, 0, 1)):
        toy = Toy(steps=3, seed=seed)
        state = torch.get_rng_state()
        folder = tmp_path / str(number)
        train(config(steps=3), toy.learner, batches(0, 3), folder=folder, start_step=0)
        assert torch.equal(torch.get_rng_state(), state)
        runs.append(toy.losses)
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_stops_before_the_step_and_is_captured(tmp_path, bad):
    toy = Toy(steps=12)
    before: list[torch.Tensor] = []

    def poisoned() -> Iterator[Pairs]:
        for step, batch in enumerate(batches(0, 12)):
            before.append(toy.weights())
            if step == 4:
                x = batch.x.clone()
                x[3, 1] = bad
                yield replace(batch, x=x)
            else:
                yield batch

    with pytest.raises(TrainingError, match=r"step 4 \(clips 4/0.*found loss (nan|inf)"):
        train(config(), toy.learner, poisoned(), folder=tmp_path, start_step=0)
    assert torch.equal(toy.weights(), before[4])

    capture = tmp_path / "failures" / "step-000004" / "rank-0"
    again = Toy(steps=12)
    again.load(capture)
    batch = load_batch(Pairs, capture)
    assert batch.keys == pairs(4).keys
    assert torch.equal(again.weights(), before[4])
    assert not torch.isfinite(again.learner.objective(batch)["loss"])
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [2, 4]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_training_that_finds_no_memory_says_which_settings_need_less(tmp_path, device):
    def objective(_: Pairs) -> dict[str, torch.Tensor]:
        if device == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore …")
        return {"loss": torch.empty(2**50)}

    learner = replace(Toy(steps=12).learner, objective=objective)
    with pytest.raises(TrainingError, match=r"no memory is left: .* --train\.micro_batch") as found:
        train(config(), learner, batches(0, 12), folder=tmp_path, start_step=0)
    assert "More" not in str(found.value)


def test_gradient_that_is_not_finite_stops_although_the_loss_is(tmp_path):
    toy = Toy(steps=3)

    def root_at_zero(batch):
        return {"loss": (toy.model(batch.x) * 0).square().sum().sqrt()}

    learner = replace(toy.learner, objective=root_at_zero)
    with pytest.raises(
        TrainingError, match=r"loss 0, gradient norm nan.*the gradient of 3.bias is not"
    ):
        train(config(steps=3), learner, batches(0, 3), folder=tmp_path, start_step=0)


def test_a_step_behind_the_last_log_line_can_fail_on_a_part_of_the_loss_only(tmp_path):
    toy = Toy(steps=3)
    learner = replace(
        toy.learner,
        objective=lambda batch: toy.objective(batch) | {"part": torch.tensor(float("nan"))},
    )
    with pytest.raises(TrainingError, match="part nan"):
        train(config(steps=3), learner, batches(0, 3), folder=tmp_path, start_step=0)


def test_only_the_newest_checkpoints_stay(tmp_path):
    toy = Toy(steps=12)
    train(
        config(save_every=2, keep=2),
        toy.learner,
        batches(0, 12),
        folder=tmp_path,
        start_step=0,
    )
    names = [path.name for path in checkpoint.all_saved(tmp_path / "checkpoints")]
    assert names == ["step-000010", "step-000012"]


def test_waiting_for_data_is_told_from_computing():
    clock = Stopwatch()

    def slow() -> Iterator[int]:
        for item in range(3):
            time.sleep(0.05)
            yield item

    for _ in clock.waiting_for(slow()):
        time.sleep(0.05)
        clock.count(4)
    speed = clock.lap()
    assert 0.4 < speed["waiting_share"] < 0.6  # sleeps are never shorter than asked, little longer
    assert 12 / 0.45 < speed["clips_per_s"] <= 12 / 0.3
    assert clock.summary(1.0).steps_made == 3


def test_randomness_of_a_step_depends_on_seed_and_step():
    def draw(seed: int, step: int) -> list[float]:
        with step_randomness(seed, step):
            return [float(value) for value in torch.rand(2)]

    assert draw(1, 2) == draw(1, 2)
    assert len({tuple(draw(seed, step)) for seed in (1, 2) for step in (1, 2)}) == 4


def test_thread_count_is_set_and_put_back():
    before = torch.get_num_threads()
    with cpu_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("name", ["steps", "save_every", "keep", "log_every"])
def test_counts_below_one_are_refused(name):
    with pytest.raises(ConfigError, match=f"train.{name}: found 0"):
        config(**{name: 0})
