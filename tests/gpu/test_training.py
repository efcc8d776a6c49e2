"""Training on a GPU: nothing in a step waits for it, bad steps change nothing, runs go on."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.distributed.objective import CLIP, whole
from vatt.checkpoints import checkpoint
from vatt.config import from_values
from vatt.contracts import Batch
from vatt.devices import seeded
from vatt.errors import TrainingError
from vatt.failed_step import load_batch
from vatt.losses import LossConfig
from vatt.models.model_config import ModelConfig
from vatt.models.transformer import layers_of
from vatt.models.vatt import Vatt
from vatt.models.weights import load_model, load_weights, save_model
from vatt.presets import tiny
from vatt.pretraining import objective
from vatt.tasks.pretrain import PretrainConfig
from vatt.training.loop import Learner, TrainConfig, train
from vatt.training.optim import OptimConfig, Optimiser
from vatt.training.parallel import parallelize

pytestmark = pytest.mark.gpu
STEPS = 8


class Run:
    """The tiny model with its objective and optimiser, as `vatt pretrain` makes them."""

    def __init__(self, device: torch.device, **optim: Any) -> None:
        torch.manual_seed(0)
        self.device = device
        self.config = PretrainConfig(
            out=Path("unused"),
            clip=CLIP,
            model=from_values(ModelConfig, tiny()["model"], where="tiny"),
            loss=LossConfig(chunk=5),
            optim=OptimConfig(warmup_steps=0, clip_norm=1.0, weight_decay=0.1, **optim),
            train=TrainConfig(steps=STEPS, save_every=4, log_every=STEPS),
        )
        self.model = Vatt(self.config.model).to(device)
        self.optimiser = Optimiser(self.config.optim, self.model.named_parameters(), steps=STEPS)
        self.learner = Learner(
            model=self.model,
            objective=partial(objective, model=self.spread(), config=self.config),
            optimiser=self.optimiser,
            write_model=self.write_model,
            facts=dict,
            seed=0,
            buffers=tuple(self.model.buffers()),
        )

    def write_model(self, folder: Path | None, /, *, weights: bool = True) -> None:
        if folder is not None and weights:
            save_model(folder, self.model, CLIP)

    def spread(self) -> torch.nn.Module:
        return parallelize(self.model.train(), self.config.train, layers_of(self.model))

    def train(self, batches: Iterator[Batch], folder: Path, start_step: int = 0) -> None:
        train(self.config.train, self.learner, batches, folder=folder, start_step=start_step)

    def weights(self) -> dict[str, Tensor]:
        return {name: value.cpu().clone() for name, value in self.model.state_dict().items()}


def batches(device: torch.device, first: int = 0, end: int = STEPS) -> Iterator[Batch]:
    batch = whole("uneven")
    for step in range(first, end):
        positions = tuple(step * len(batch) + slot for slot in range(len(batch)))
        turned = replace(batch, draw=batch.draw + step, positions=positions)
        yield turned.pin_memory().to(device)


@pytest.mark.parametrize("name", ["adam", "momentum"])
def test_no_step_waits_for_the_gpu_but_to_log_and_save(cuda, no_waiting, tmp_path, name):
    def after_warming_up() -> Iterator[Batch]:
        for number, batch in enumerate(batches(cuda, end=STEPS - 1)):
            if number == 2:  # the first steps make handles and tables, which are kept
                no_waiting()
            yield batch

    run = Run(cuda, name=name)
    before = run.weights()
    run.config = replace(run.config, train=replace(run.config.train, save_every=STEPS))
    run.train(after_warming_up(), tmp_path)  # waiting is an error
    torch.cuda.set_sync_debug_mode("default")
    assert not list(tmp_path.glob("checkpoints/*"))  # none of these steps logs or saves
    for weight, value in run.model.named_parameters():
        assert not torch.equal(value.cpu(), before[weight]), weight


@pytest.mark.parametrize("name", ["adam", "momentum"])
def test_a_bad_step_changes_no_weight_and_its_batch_is_captured(cuda, tmp_path, name):
    run, before = Run(cuda, name=name), dict[str, Tensor]()

    def poisoned() -> Iterator[Batch]:
        for number, batch in enumerate(batches(cuda)):
            if number == 3:
                before.update(run.weights())
            gain = torch.full_like(batch.gain, float("nan")) if number == 3 else batch.gain
            yield replace(batch, gain=gain)

    with pytest.raises(TrainingError, match=r"step 3 \(clips .*: found loss nan"):
        run.train(poisoned(), tmp_path / "run")
    for name_, weight in run.weights().items():
        assert torch.equal(weight, before[name_]), name_
    capture = tmp_path / "run" / "failures" / "step-000003" / "rank-0"
    assert load_batch(Batch, capture).gain.isnan().all()
    again = Run(cuda)
    load_weights(again.model, capture)
    assert again.learner.objective(load_batch(Batch, capture).to(cuda))["loss"].isnan()


def test_a_resumed_run_goes_on_where_it_stopped(cuda, tmp_path):
    whole_run = Run(cuda)
    whole_run.train(batches(cuda), tmp_path / "whole")
    Run(cuda).train(batches(cuda, end=6), tmp_path / "cut")
    saved = checkpoint.all_saved(tmp_path / "cut" / "checkpoints")[-1]
    assert saved.name == "step-000004"
    second = Run(cuda)
    load_weights(second.model, saved)
    state = checkpoint.resume(saved.parent)
    second.optimiser.load_state(state.optimiser)
    second.train(batches(cuda, first=state.step), tmp_path / "cut", start_step=state.step)
    for name, weight in second.weights().items():
        # Some sums on a GPU are in an order of their own at every run.
        assert_close(weight, whole_run.weights()[name], rtol=1e-3, atol=1e-4)


def test_a_checkpoint_of_a_gpu_is_read_on_a_cpu_and_back(cuda, tmp_path):
    run = Run(cuda)
    run.train(batches(cuda, end=5), tmp_path)
    saved = checkpoint.all_saved(tmp_path / "checkpoints")[-1]
    there, back = Run(torch.device("cpu")), Run(cuda)
    for other in (there, back):
        load_weights(other.model, saved)
        other.optimiser.load_state(checkpoint.resume(saved.parent).optimiser)
    for name, value in there.optimiser.state().items():
        assert value.device.type == "cpu"
        assert back.optimiser.state()[name].device == cuda
        assert torch.equal(back.optimiser.state()[name].cpu(), value)
    loaded, _ = load_model(Vatt, saved, cuda)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value.cpu(), there.model.state_dict()[name])


def test_a_few_steps_on_a_gpu_are_those_on_a_cpu(cuda, tmp_path):
    found = []
    for device in (cuda, torch.device("cpu")):
        run = Run(device, learning_rate=1e-4)
        off = replace(run.config.train, autocast="off")
        run.config = replace(run.config, train=off)
        shares = objective(next(batches(device)), run.model.train(False), run.config)
        found.append({name: value.detach().cpu() for name, value in shares.items()})
    assert_close(*found, rtol=1e-3, atol=1e-4)


def test_seeding_leaves_the_random_state_of_the_gpu_as_it_was(cuda):
    torch.cuda.manual_seed(1)
    first = torch.rand(3, device=cuda)
    torch.cuda.manual_seed(1)
    with seeded(5):
        inside = torch.rand(3, device=cuda)
    assert torch.equal(torch.rand(3, device=cuda), first)
    with seeded(5):
        assert torch.equal(torch.rand(3, device=cuda), inside)
