"""Stop at a step whose losses or gradients are not finite, before it changes a weight.

A GPU works through a queue that the host fills. Reading a number of the newest step would wait
until the queue is empty, so there the device itself skips the step and all that follow (`skip`),
and the host reads the numbers of a step when the work of the next one is queued. On a CPU the host
reads at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from vatt import distributed
from vatt.errors import TrainingError
from vatt.training import checkpoint
from vatt.training.capture import save_batch

BatchT = TypeVar("BatchT")


def has_queue(device: torch.device) -> bool:
    """Whether reading a number from this device waits for all that it has been asked to do."""
    return device.type == "cuda"


@dataclass(frozen=True, slots=True)
class _Step(Generic[BatchT]):
    """A step whose gradients are computed.

    values: float32 [names], on the host, there once `copied` is reached; buffers: the model's
    before the step, kept with the batch in case it has to be captured.
    """

    number: int
    batch: BatchT
    buffers: Sequence[Tensor]
    names: Sequence[str]
    values: Tensor
    copied: torch.cuda.Event | None


class FiniteCheck(Generic[BatchT]):
    """Is shown every step between its gradients and the update of the weights.

    Args:
        folder: run folder, where `failures/step-…` is written.
        buffers: of the model, which its forward pass changes (running statistics).
        write_model: writes the model's files into a folder, or takes part in it (`Learner`).
    """

    skip: Tensor | None
    """float32 scalar on the device, 1 once a step was not finite: no later update may be made.
    None where the host reads at once."""

    def __init__(
        self, folder: Path, buffers: Sequence[Tensor], write_model: Callable[[Path | None], None]
    ) -> None:
        self.skip = None
        self._folder, self._buffers, self._write_model = folder, buffers, write_model
        self._before_step = [buffer.clone() for buffer in buffers]
        self._newest: _Step[BatchT] | None = None
        self._read: dict[str, float] = {}

    def add(self, number: int, batch: BatchT, values: Mapping[str, Tensor]) -> None:
        """Take the losses and the gradient norm of step `number`, scalars on the device.

        Raises:
            TrainingError: this step's are not finite or, on a GPU, those of the step before.
        """
        stacked = torch.stack([value.detach().float() for value in values.values()])
        waits, copied = has_queue(stacked.device), None
        if waits:
            bad = stacked.isfinite().all().logical_not().float()
            self.skip = bad if self.skip is None else torch.maximum(self.skip, bad)
            stacked = stacked.to("cpu", non_blocking=True)
        if stacked.is_pinned():
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
        previous = self._newest
        self._newest = _Step(number, batch, self._before_step, tuple(values), stacked, copied)
        self._before_step = [buffer.clone() for buffer in self._buffers]
        if not waits:
            self.read()
        elif previous is not None:
            self._check(previous)

    def read(self) -> dict[str, float]:
        """The values of the newest step; waits for them. Empty before the first.

        Raises:
            TrainingError: they are not finite.
        """
        if self._newest is not None:
            self._check(self._newest)
            self._newest = None
        return self._read

    def _check(self, step: _Step[BatchT]) -> None:
        if step.copied is not None:
            step.copied.synchronize()
        self._read = dict(zip(step.names, step.values.numpy().tolist(), strict=True))
        if all(map(math.isfinite, self._read.values())):
            return
        where = self._folder / "failures" / f"step-{step.number:06d}"
        for buffer, before in zip(self._buffers, step.buffers, strict=True):
            buffer.copy_(before)
        with checkpoint.checkpoint_folder(where / f"rank-{distributed.rank()}") as aside:
            save_batch(step.batch, aside)
            self._write_model(aside if distributed.is_main() else None)
        distributed.barrier()  # the first rank that fails ends the others
        found = ", ".join(f"{name} {value:.4g}" for name, value in self._read.items())
        clips = ", ".join(getattr(step.batch, "keys", ())[:3])
        raise TrainingError(
            f"step {step.number}: found {found.replace('_', ' ')}, expected finite numbers; "
            f"stopped before the weights changed. The batch (clips {clips} …) and the weights are "
            f"kept in {where}; try a lower optim.learning_rate, optim.clip_norm = 1, or "
            "train.autocast = off"
        )
