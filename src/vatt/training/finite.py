"""Leave a step out whose losses or gradients are not finite, or stop before it changes a weight.

A GPU works through a queue that the host fills. Reading a number of the newest step would wait
until the queue is empty, so there the device itself counts such steps and skips them, and all that
follow when there are too many (`skip`), and the host reads the numbers of a step when the work of
the next one is queued. On a CPU the host reads at once.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from vatt import distributed
from vatt.errors import TrainingError

logger = logging.getLogger(__name__)

BatchT = TypeVar("BatchT")


def has_queue(device: torch.device) -> bool:
    """Whether reading a number from this device waits for all that it has been asked to do."""
    return device.type == "cuda"


@dataclass(frozen=True, slots=True)
class _Step(Generic[BatchT]):
    """A step whose gradients are computed.

    values: float32 [names], on the host, there once `copied` is reached.
    """

    number: int
    batch: BatchT
    names: Sequence[str]
    values: Tensor
    copied: torch.cuda.Event | None


class FiniteCheck(Generic[BatchT]):
    """Is shown every step between its gradients and the update of the weights.

    Args:
        buffers: of the model, which its forward pass changes (running statistics).
        keep: writes the folder of a step that failed; returns where it is and where it began.
        may_skip: steps of a run that may be left out.
        skipped: those of the run so far.
        advice: settings that may help, of a run in another folder.
    """

    skip: Tensor | None
    """float32 scalar on the device, 1: the newest step may not change the weights. None: it may."""

    def __init__(
        self,
        buffers: Sequence[Tensor],
        keep: Callable[[int, BatchT], tuple[Path, str]],
        *,
        may_skip: int,
        skipped: int,
        advice: Sequence[str] = (),
    ) -> None:
        # Those left out so far stay so, whatever is allowed now: on a GPU all steps would be else.
        self.skip, self.skipped, self._may_skip = None, skipped, max(may_skip, skipped)
        self._bad: Tensor | int = skipped  # counted on the device
        self._buffers, self._keep, self._advice = buffers, keep, advice
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
        bad = stacked.isfinite().all().logical_not().float()
        self._bad = bad + self._bad
        self.skip = torch.maximum(bad, (self._bad > self._may_skip).float())
        for buffer, before in zip(self._buffers, self._before_step, strict=True):
            buffer.copy_(torch.where(self.skip == 1, before, buffer))
        self._before_step = [buffer.clone() for buffer in self._buffers]
        if waits:
            stacked = stacked.to("cpu", non_blocking=True)
        if stacked.is_pinned():
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
        previous = self._newest
        self._newest = _Step(number, batch, tuple(values), stacked, copied)
        if not waits:
            self.skip = self.skip if bad else None
            self.read()
        elif previous is not None:
            self._check(previous)

    def read(self) -> dict[str, float]:
        """The finite values of the newest step; waits for them. Empty before the first.

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
        values = dict(zip(step.names, step.values.numpy().tolist(), strict=True))
        self._read = {name: value for name, value in values.items() if math.isfinite(value)}
        bad = len(self._read) < len(values)
        self.skipped += bad
        if self.skipped:
            self._read["skipped_steps"] = self.skipped
        if not bad:
            return
        clips = ", ".join(getattr(step.batch, "keys", ())[:3])
        found = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in values.items())
        found = f"step {step.number} (clips {clips} …): found {found}, expected finite numbers"
        if self.skipped <= self._may_skip:
            if distributed.is_main():
                logger.warning("%s; left out, %d of %d", found, self.skipped, self._may_skip)
            return
        where, began = self._keep(step.number, step.batch)
        for buffer, before in zip(self._buffers, self._before_step, strict=True):
            buffer.copy_(before)
        raise TrainingError(
            f"{found}; {began}. Stopped before the weights changed; batch and weights are kept: "
            f"`vatt debug replay {where}`. The same command with --train.skip_nonfinite "
            f"{self.skipped} leaves the step out. In another --out, with --start-from a checkpoint "
            f"of this run: {', '.join(self._advice)}"
        )
