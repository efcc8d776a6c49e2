"""Keeps the checkpoints of a training: when they are written, in which form, and which stay."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Literal, Self

from torch import Tensor

from vatt import distributed
from vatt.checkpoints import checkpoint
from vatt.checkpoints.checkpoint import ModelWriter, TrainingState
from vatt.checkpoints.integrity import write_checksums

logger = logging.getLogger(__name__)

CheckpointForm = Literal["auto", "whole", "sharded"]


class Saver:
    """Writes checkpoints into a folder; a context that ends when all of them are on the disk.

    Whole ones are written while training waits. Of sharded ones each rank copies its part to the
    memory of the host, and a thread writes it while training goes on; the checkpoint has its name
    only once all parts are on the disk. All ranks call each method together, except `check`.
    """

    def __init__(self, folder: Path, keep: int, form: CheckpointForm) -> None:
        """Prepare to keep the newest `keep` checkpoints, and the best.

        Args:
            folder: of the checkpoints.
            keep: how many.
            form: sharded, whole, or auto: sharded if there are several ranks.
        """
        self._folder, self._keep = folder, keep
        several = distributed.world_size() > 1
        self._sharded = form == "sharded" or (form == "auto" and several)
        self._group = distributed.background_hosts() if self._sharded else None
        self._pending: Future[None] | None = None
        if distributed.is_main():
            for left in folder.glob(".step-*.part"):  # of a process that was killed
                shutil.rmtree(left, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if failed is None:  # else another rank may be gone, and be waited for in vain
            self.wait()

    def save(
        self,
        state: TrainingState,
        model: Mapping[str, Tensor],
        optimiser: Mapping[str, Tensor],
        write_model: ModelWriter,
    ) -> None:
        """Keep this state; the tensors may change afterwards.

        Raises:
            CheckpointError: it, or the one before it, cannot be written; those before are
                untouched.
        """
        best = (state.facts.get("best") or {}).get("step")
        if not self._sharded:
            checkpoint.save(self._folder, state, optimiser, write_model)
            self._prune(best)
            distributed.barrier()
            return
        from vatt.checkpoints.divided import staged, write_divided

        self.wait()
        named = {f"model/{name}": tensor for name, tensor in model.items()}
        mine = staged(named | {f"optimiser/{name}": tensor for name, tensor in optimiser.items()})

        def write() -> None:
            path = checkpoint.path_of(self._folder, state)
            if not distributed.is_main():
                with checkpoint.told_as_checkpoint_error(path):
                    write_divided(None, mine, self._group)
                return
            with checkpoint.checkpoint_folder(path) as aside:
                write_model(aside, weights=False)
                checkpoint.write_state(aside, state)
                write_checksums(aside, write_divided(aside, mine, self._group))
            self._prune(best)

        self._pending = _in_background(write)

    def check(self) -> None:
        """Raise what went wrong in the background, if anything did so far; costs no time.

        Raises:
            CheckpointError: a checkpoint cannot be written.
        """
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Wait until all that was to be kept is on the disk.

        Raises:
            CheckpointError: it cannot be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _prune(self, best: int | None) -> None:
        if distributed.is_main():
            checkpoint.prune(self._folder, self._keep, best)


def _in_background(work: Callable[[], None]) -> Future[None]:
    """Run it in a thread that does not keep a process alive that fails meanwhile."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=run, name="checkpoint", daemon=True).start()
    return future
