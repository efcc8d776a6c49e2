"""The training loop, the only one: batch, objective, backward, check, step, log, save.

It knows no modality and no model: a learner brings an objective from a batch to losses.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from vatt import distributed
from vatt.checkpoints.checkpoint import ModelWriter, TrainingState
from vatt.checkpoints.saver import CheckpointForm, Saver
from vatt.contracts import draw_bits
from vatt.devices import AutocastSetting, keep_freed_memory, seeded, told_of_full_memory
from vatt.errors import ConfigError
from vatt.failed_step import keep_step
from vatt.run_log import RunLog, WandbMode
from vatt.training.finite import FiniteCheck
from vatt.training.optim import Optimiser

logger = logging.getLogger(__name__)

BatchT = TypeVar("BatchT", bound=Sized)
ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How long to train, on what, and what to write meanwhile."""

    steps: int = 500_000  # §4.3
    save_every: int = 10_000
    """Steps between checkpoints; the last step always has one."""
    keep: int = 3
    """Checkpoints to keep, the newest ones, besides the best."""
    checkpoints: CheckpointForm = "auto"
    """sharded: each process writes its part while training goes on; whole: the main one writes, and
    the others wait; auto: sharded if there are several."""
    log_every: int = 50
    wandb: WandbMode = "off"
    """Weights & Biases beside the run folder's log. offline: written there, for `wandb sync`."""
    device: str = "auto"
    """cpu, cuda, cuda:1 …; auto is a GPU where there is one."""
    autocast: AutocastSetting = "auto"
    """bfloat16 matrix products; auto: where the hardware multiplies them faster."""
    micro_batch: int | None = None
    """Clips of a process whose intermediate values are in memory at once; the forward pass of all
    others runs twice. Loss, batch norm and gradients are those of the whole batch. "none": all."""
    parallel: Literal["replicate", "fsdp"] = "replicate"
    """Of several processes: replicate gives each a copy of the model; fsdp divides weights,
    gradients and the optimiser's state among them."""
    recompute: bool = False
    """Keep only what enters each Transformer layer, and compute the rest again in the backward
    pass: far less memory for one more forward pass."""
    compile: bool = False
    """Compile the Transformer layers (torch.compile): faster on a GPU, minutes to begin with."""
    skip_nonfinite: int = 0
    """Steps whose loss or gradient is not finite that a run may leave out; one more ends it."""
    threads: int = 0
    """Threads of one process on a CPU; 0: one for each core, shared among the machine's ranks."""

    def __post_init__(self) -> None:
        for name in ("steps", "save_every", "keep", "log_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name}: found {getattr(self, name)}, expected >= 1")
        for name in ("threads", "skip_nonfinite"):
            if getattr(self, name) < 0:
                raise ConfigError(f"train.{name}: found {getattr(self, name)}, expected >= 0")
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ConfigError(f"train.micro_batch: found {self.micro_batch}, expected >= 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner(Generic[BatchT]):
    """What is trained.

    model: whose weights are trained; looked at when a step is not finite.
    objective: batch → scalars; "loss" is to be minimised. Each is this rank's share of a value of
        the whole batch: shares, and so their gradients, add up over ranks.
    write_model: writes the model's files into a folder.
    facts: what else a continued run should know, kept in checkpoints as JSON; called by all
        ranks together, used on the main one.
    buffers: of the model, which the objective changes (running statistics of batch norm).
    skipped: steps of the run so far that were left out, as `facts` say.
    validate: steps made → values for the log, each `validate_every` steps and after the last.
    """

    model: nn.Module
    objective: Callable[[BatchT], Mapping[str, Tensor]]
    optimiser: Optimiser
    write_model: ModelWriter
    facts: Callable[[], Mapping[str, Any]]
    seed: int
    buffers: Sequence[Tensor] = ()
    skipped: int = 0
    validate: Callable[[int], Mapping[str, float]] = lambda _: {}
    validate_every: int = 2**63


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSummary:
    """How a training went: its last loss, and how fast; no rate when no step was left to make."""

    steps_made: int
    loss: float | None
    seconds: float
    clips_per_s: float | None
    waiting_share: float | None


def train(
    config: TrainConfig,
    learner: Learner[BatchT],
    batches: Iterable[BatchT],
    *,
    folder: Path,
    start_step: int,
) -> TrainSummary:
    """Train from update `start_step` to `config.steps`, writing into the run folder `folder`.

    The batches are those of the steps from `start_step` on. SIGTERM, as schedulers send it, and
    SIGINT (Ctrl-C) end training after the step in work, with a checkpoint.

    Raises:
        KeyboardInterrupt: after SIGINT, once all is saved.
        TrainingError: a loss or gradient is not finite; the weights are those before that step,
            and `folder/failures/` holds what is needed to repeat it. Or no memory is left.
        CheckpointError: a checkpoint cannot be written.
    """
    clock, active = Stopwatch(), distributed.is_main()
    keep_freed_memory()

    def keep(step: int, batch: BatchT) -> tuple[Path, str]:
        kept, again = folder / "failures" / f"step-{step:06d}", partial(learner.objective, batch)
        with step_randomness(learner.seed, step):
            return kept, keep_step(kept, batch, learner.write_model, learner.model, again)

    unset = {
        "optim.clip_norm = 1": learner.optimiser.config.clip_norm is None,
        "train.autocast = off": config.autocast != "off",
    }
    check = FiniteCheck[BatchT](
        learner.buffers,
        keep,
        may_skip=config.skip_nonfinite,
        skipped=learner.skipped,
        advice=["a lower optim.learning_rate", *(one for one, is_so in unset.items() if is_so)],
    )
    with (
        told_of_full_memory(),
        RunLog(
            folder,
            start_step=start_step,
            steps=config.steps,
            active=active,
            wandb=config.wandb,
        ) as log,
        distributed.asked_to_stop() as asked_to_stop,
        Saver(folder / "checkpoints", config.keep, config.checkpoints) as saver,
    ):
        for step, batch in enumerate(clock.waiting_for(batches), start_step):
            with step_randomness(learner.seed, step):
                shares = learner.objective(batch)
                shares["loss"].backward()  # type: ignore[no-untyped-call]
            norm = learner.optimiser.clip()
            check.add(step, batch, {**whole_batch(shares), "gradient_norm": norm})
            rate = learner.optimiser.step(step, skip=check.skip)
            clock.count(len(batch) * distributed.world_size())
            log.advance(step + 1)
            last = step + 1 == config.steps
            validates = last or (step + 1) % learner.validate_every == 0
            if (step + 1) % config.log_every == 0 or validates:
                values = check.read() | {"learning_rate": rate} | clock.lap()
                if validates:
                    values |= learner.validate(step + 1)
                    clock.lap()  # its time is none of training
                log.write(step + 1, values, steps_per_s=clock.steps_per_s)
            saver.check()
            stop = asked_to_stop()
            if (step + 1) % config.save_every == 0 or last or stop:
                check.read()
                facts = {**learner.facts(), "skipped_steps": check.skipped}
                state = TrainingState(step=step + 1, facts=facts)
                weights, optimiser = learner.model.state_dict(), learner.optimiser.state()
                log.flush()
                saver.save(state, weights, optimiser, learner.write_model)
            if stop and not last:
                saver.wait()
                logger.info(
                    "%s: stopped after step %d of %d, which is saved; the same command continues",
                    signal.Signals(stop).name,
                    step + 1,
                    config.steps,
                )
                if stop == signal.SIGINT:
                    raise KeyboardInterrupt
                break
        return clock.summary(check.read().get("loss"))


def step_randomness(seed: int, step: int) -> AbstractContextManager[None]:
    """Dropout of this step is a function of (seed, step, rank): nothing to save, exact resume."""
    return seeded(draw_bits(seed, step, distributed.rank()))


def whole_batch(shares: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scalars of the whole batch from this rank's shares of them."""
    total = distributed.sum_over_ranks(torch.stack([s.detach().float() for s in shares.values()]))
    return dict(zip(shares, total.unbind(), strict=True))


class Stopwatch:
    """Time spent, and the part of it spent waiting for data, in all and since the last lap."""

    def __init__(self) -> None:
        self._start = self._lap_start = time.perf_counter()
        self._waited = self._lap_waited = 0.0
        self._steps = self._lap_steps = 0
        self._clips = self._lap_clips = 0

    @property
    def steps_per_s(self) -> float:
        """Steps made per second since the start."""
        return self._steps / (time.perf_counter() - self._start)

    def waiting_for(self, items: Iterable[ItemT]) -> Iterator[ItemT]:
        """The same items; the time each takes to come counts as waiting."""
        source = iter(items)
        while True:
            asked = time.perf_counter()
            try:
                item = next(source)
            except StopIteration:
                return
            waited = time.perf_counter() - asked
            self._waited += waited
            self._lap_waited += waited
            yield item

    def count(self, clips: int) -> None:
        """One step of so many clips is done."""
        self._steps += 1
        self._clips += clips
        self._lap_clips += clips

    def lap(self) -> dict[str, float]:
        """Clips per second and share of the time waiting since the last lap, which ends here."""
        now = time.perf_counter()
        seconds = now - self._lap_start
        rates = {
            "clips_per_s": self._lap_clips / seconds,
            "waiting_share": self._lap_waited / seconds,
        }
        self._lap_start, self._lap_waited, self._lap_clips = now, 0.0, 0
        return rates

    def summary(self, loss: float | None) -> TrainSummary:
        """All of it, with the last loss."""
        seconds = time.perf_counter() - self._start
        return TrainSummary(
            steps_made=self._steps,
            loss=loss,
            seconds=seconds,
            clips_per_s=self._clips / seconds if self._steps else None,
            waiting_share=self._waited / seconds if self._steps else None,
        )
