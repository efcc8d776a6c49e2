"""Batches on the device, read by processes of their own, from any step on.

The loader has no state worth saving: its position is the step. Clips that cannot be read travel
with the batch that they belong to, and are counted where training runs.
"""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from itertools import chain
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader

from vatt import distributed
from vatt.contracts import Batch, UnreadableClip
from vatt.data.data_config import DataConfig
from vatt.data.datasets import EvalDataset
from vatt.devices import cpus_of_rank
from vatt.errors import DataError, VattError

logger = logging.getLogger(__name__)

_LEAST_PART = 4  # clips that a worker hands over at once: handing over takes about a millisecond
_OUTLIVES_S = 120


class BatchSource(Protocol):
    """What a loader reads from."""

    def batch(self, positions: Sequence[int], /) -> Batch:
        """The clips of some positions."""
        ...


class TrainingClips(BatchSource, Protocol):
    """What training reads from: an endless order of clips."""

    @property
    def config(self) -> DataConfig:
        """How they are read."""
        ...

    @property
    def num_videos(self) -> int:
        """From how many videos they come."""
        ...


class _Parts(torch.utils.data.Dataset[Batch | VattError]):
    """What torch's loader asks its workers for: the clips of some positions, a part of a batch."""

    def __init__(self, source: BatchSource) -> None:
        self._source = source

    def __getitem__(self, positions: range) -> Batch | VattError:
        try:
            return self._source.batch(positions)
        except VattError as error:  # as a value: torch would raise it with a worker's traceback
            return error


def _outlive_stops(_worker: int) -> None:
    """Signals to the whole job ask training to stop, which still reads the rest of its step.

    The loader tells its workers when to end. One that it has forgotten, or that a scheduler wants
    to end while nobody trains, does so after a while.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_OUTLIVES_S))


@contextmanager
def told_of_dead_workers() -> Iterator[None]:
    """Say what it means that a loader's process has died: torch tells it wherever training is."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            "a process that reads clips has died, perhaps of a lack of memory "
            f"({str(error).strip()}); set data.workers or data.batch_size lower, or give it more "
            "memory (a container also --shm-size); the same command continues from the newest "
            "checkpoint"
        ) from error


class _PartOrder(torch.utils.data.Sampler[range]):
    """The positions of each part of each batch, in order."""

    def __init__(self, firsts: range, size: int, part: int) -> None:
        self._firsts, self._size, self._part = firsts, size, part

    def __iter__(self) -> Iterator[range]:
        for first in self._firsts:
            whole = range(first, min(first + self._size, self._firsts.stop))
            yield from (whole[at : at + self._part] for at in range(0, len(whole), self._part))


class Loader:
    """An iterable of batches that counts the clips that cannot be read; see `make_loader`.

    All workers share the work of each batch: the first one is there as soon as it can be, and no
    more than two or three are held in memory, however many workers there are.

    unreadable: the first of each video.
    num_unreadable: all of them, since this loader was made.
    """

    def __init__(
        self,
        source: BatchSource,
        firsts: range,
        size: int,
        *,
        workers: int | None,
        device: torch.device,
        unreadable: Sequence[UnreadableClip] = (),
        most_unreadable: float = float("inf"),
    ) -> None:
        """Set up; nothing is read before the first batch is asked for.

        Args:
            source: where clips come from.
            firsts: position of the first clip of each batch.
            size: clips of a batch; the last one may have fewer.
            workers: processes that read; 0 reads in this one, None takes one for each core of
                this rank.
            device: where batches go.
            unreadable: those of an earlier part of the run.
            most_unreadable: more videos than this may not be unreadable.
        """
        self.unreadable = list({clip.key: clip for clip in unreadable}.values())
        self.num_unreadable = 0
        self._device, self._most_unreadable = device, most_unreadable
        self._firsts, self._size = firsts, size
        self._copies: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        count = cpus_of_rank() if workers is None else workers
        self._part = max(-(-size // max(count, 1)), _LEAST_PART)
        with warnings.catch_warnings():
            # More processes than cores is the user's choice; -W error must not end a run for it.
            warnings.filterwarnings("ignore", "This DataLoader will create")
            self._loader: DataLoader[Batch | VattError] = DataLoader(
                _Parts(source),
                sampler=_PartOrder(firsts, size, self._part),
                batch_size=None,  # items are batches already
                num_workers=count,
                worker_init_fn=_outlive_stops,
                pin_memory=device.type == "cuda",  # by Batch.pin_memory: copies need not wait
                generator=torch.Generator(),  # else it would draw from everyone's random numbers
            )

    def failures(self) -> list[dict[str, Any]]:
        """The first clip of each video that a rank could not read, with step and cause; for JSON.

        All ranks call it together.

        Raises:
            DataError: too many videos cannot be read by all ranks together.
        """
        mine = [
            {"key": clip.key, "cause": clip.reason, "step": clip.step} for clip in self.unreadable
        ]
        found = dict[str, dict[str, Any]]()
        for one in chain(*distributed.gather_json(mine)):  # several ranks meet the same video
            if one["step"] < found.setdefault(one["key"], one)["step"]:
                found[one["key"]] = one
        self._refuse_too_many([one["cause"] for one in found.values()])
        return list(found.values())

    def __iter__(self) -> Iterator[Batch]:
        """The batches in order, but for those of which no clip can be read (evaluation only).

        Raises:
            DataError: too many videos cannot be read, or so many in a row that nothing replaces
                them.
        """
        parts = iter(self._loader)
        try:
            for first in self._firsts:
                size = min(self._size, self._firsts.stop - first)
                found = list[Batch]()
                for _ in range(0, size, self._part):
                    part = next(parts)
                    if isinstance(part, VattError):
                        raise part
                    found.append(self._there(part))
                batch = Batch.joined(found)
                del found, part  # else they stay in memory, on a GPU too, while it is computed with
                self._count(batch.unreadable)
                if len(batch):
                    yield batch
        finally:
            del parts  # ends the processes: the garbage collector would tell them too late

    def _there(self, part: Batch) -> Batch:
        """On the device; a GPU copies it while it still computes the step before."""
        if self._copies is None:
            return part.to(self._device)
        with torch.cuda.stream(self._copies):
            there = part.to(self._device)
        computing = torch.cuda.current_stream(self._device)
        computing.wait_stream(self._copies)
        for value in (getattr(there, field.name) for field in fields(there)):
            if isinstance(value, torch.Tensor) and value.is_cuda:
                value.record_stream(computing)  # else its memory would be given to the next copy
        return there

    def _count(self, unreadable: Sequence[UnreadableClip]) -> None:
        self.num_unreadable += len(unreadable)
        for clip in unreadable:
            if clip.key not in {known.key for known in self.unreadable}:
                logger.warning("skipped: %s", clip.reason)
                self.unreadable.append(clip)
        self._refuse_too_many([clip.reason for clip in self.unreadable])

    def _refuse_too_many(self, reasons: Sequence[str]) -> None:
        if len(reasons) > self._most_unreadable:
            raise DataError(
                f"{len(reasons)} videos cannot be read, more than data.max_bad_fraction allows; "
                f"the last: {'; '.join(reasons[-3:])}"
            )


def make_loader(
    dataset: TrainingClips,
    *,
    steps: int,
    device: torch.device,
    start_step: int = 0,
    batch_size: int | None = None,
    first_slot: int = 0,
    workers: int | None = None,
    unreadable: Sequence[UnreadableClip] = (),
) -> Loader:
    """Batches of training, from `start_step` up to, not including, `steps`.

    Args:
        dataset: what to train on.
        steps: of the whole run.
        device: where batches go.
        start_step: the first one wanted; the batches are those that a run from 0 gets there.
        batch_size: clips of this rank; all of `data.batch_size` if not given.
        first_slot: this rank's place in the whole batch.
        workers: `data.workers` if not given.
        unreadable: clips of the run so far; kept in checkpoints.

    Raises (while iterating):
        DataError: more than `data.max_bad_fraction` of the videos cannot be read.
    """
    config = dataset.config
    size = config.batch_size if batch_size is None else batch_size
    assert first_slot + size <= config.batch_size
    first, end = (step * config.batch_size for step in (start_step, steps))
    return Loader(
        dataset,
        range(first + first_slot, end, config.batch_size),
        size,
        workers=config.workers if workers is None else workers,
        device=device,
        unreadable=unreadable,
        most_unreadable=config.max_bad_fraction * dataset.num_videos,
    )


def training_batches(
    dataset: TrainingClips,
    *,
    steps: int,
    device: torch.device,
    start_step: int,
    facts: Mapping[str, Any],
) -> Loader:
    """This rank's share of the batches of training; `facts` are those of its checkpoint."""
    known = facts.get("failures", []) if distributed.is_main() else []
    slots = distributed.own_slots(dataset.config.batch_size)
    return make_loader(
        dataset,
        steps=steps,
        device=device,
        start_step=start_step,
        batch_size=len(slots),
        first_slot=slots.start,
        unreadable=[UnreadableClip(one["key"], one["cause"], one["step"]) for one in known],
    )


def make_eval_loader(
    dataset: EvalDataset, *, batch_size: int, device: torch.device, workers: int | None = 0
) -> Loader:
    """All clips of a list in their order; those that cannot be read are left out."""
    firsts = range(0, len(dataset), batch_size)
    return Loader(dataset, firsts, batch_size, workers=workers, device=device)
