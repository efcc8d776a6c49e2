"""Clips → batches on the device, in processes of their own, from any step on.

The loader has no state worth saving: its position is the step. Items that failed in a worker
travel with the batch that they were replaced in, and are counted where training runs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from vatt.contracts import Augmentation, Batch, Clip
from vatt.data.datasets import ClipDataset, EvalDataset, Fetched, UnreadableClip
from vatt.devices import num_cpus
from vatt.errors import DataError, VattError

logger = logging.getLogger(__name__)

At = TypeVar("At")  # where a batch is: its step, or the positions of its windows
Where = TypeVar("Where", contravariant=True)  # where a clip is


class Source(Protocol[Where]):
    """What a loader reads from."""

    def fetch(self, where: Where, /) -> Fetched:
        """The clip there, or why there is none."""
        ...


def collate(clips: Sequence[Clip]) -> Batch:
    """Stack clips; B is at least 1."""
    changes = [clip.augmentation for clip in clips]
    join = np.stack if clips[0].layout is None else np.concatenate
    return Batch(
        keys=tuple(clip.key for clip in clips),
        starts_s=tuple(clip.start_s for clip in clips),
        frames=torch.from_numpy(join([clip.frames for clip in clips])),
        layout=_layout(clips),
        waveform=torch.from_numpy(np.stack([clip.waveform for clip in clips])),
        has_audio=torch.tensor([clip.has_audio for clip in clips]),
        word_ids=torch.from_numpy(np.stack([clip.word_ids for clip in clips])),
        text_mask=torch.from_numpy(np.stack([clip.text_mask for clip in clips])),
        draw=torch.tensor([clip.draw for clip in clips]),
        crop=torch.tensor([_box(change) for change in changes]),
        flip=torch.tensor([change.flip for change in changes]),
        colour=torch.tensor([_colour(change) for change in changes]),
        gain=torch.tensor([change.gain for change in changes]),
    )


def _layout(clips: Sequence[Clip]) -> Tensor:
    """Where each clip's planes begin, and what they are."""
    rows, first = [], 0
    for clip in clips:
        rows.append((first, *map(int, clip.layout)) if clip.layout else (0,) * 5)
        first += len(clip.frames)
    return torch.tensor(rows)


def _box(change: Augmentation) -> tuple[float, float, float, float]:
    return change.crop.top, change.crop.left, change.crop.height, change.crop.width


def _colour(change: Augmentation) -> tuple[float, float, float, float]:
    return change.brightness, change.saturation, change.contrast, change.hue


class StepSampler:
    """Where the clips of each step are: one list of (step, slot) per step."""

    def __init__(self, steps: range, slots: range) -> None:
        """Take the steps to go through, and this rank's slots in each."""
        self.steps, self.slots = steps, slots

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return ([(step, slot) for slot in self.slots] for step in self.steps)

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True, slots=True)
class _Delivery:
    """What comes out of a worker: a batch (None when all its items failed), or an error."""

    batch: Batch | None
    kept: tuple[int, ...]  # places, in the asked list, of the clips in the batch
    failures: tuple[UnreadableClip, ...]
    error: VattError | None = None

    def pin_memory(self) -> _Delivery:
        """Called by torch's loader, so that copies to the device need not wait."""
        if self.batch is None:
            return self
        pinned: dict[str, Any] = {
            field.name: value.pin_memory()
            for field in fields(self.batch)
            if isinstance(value := getattr(self.batch, field.name), Tensor)
        }
        return replace(self, batch=replace(self.batch, **pinned))


class _Deliveries(torch.utils.data.Dataset[_Delivery], Generic[Where]):
    """Whole batches as items, so that failures and errors come along with them."""

    def __init__(self, source: Source[Where]) -> None:
        self._source = source

    def __getitems__(self, wheres: list[Where]) -> _Delivery:
        try:
            fetched = [self._source.fetch(where) for where in wheres]
        except VattError as error:  # as a value: torch would raise it with a worker's traceback
            return _Delivery(None, (), (), error)
        kept = tuple(place for place, item in enumerate(fetched) if item.clip is not None)
        clips = [item.clip for item in fetched if item.clip is not None]
        failures = tuple(failure for item in fetched for failure in item.failures)
        return _Delivery(collate(clips) if clips else None, kept, failures)


def _as_it_is(delivery: Any) -> Any:
    return delivery


class Loader(Generic[At]):
    """Yields (where, batch on the device) and counts what failed; made by the functions below."""

    def __init__(
        self,
        source: Source[Any],
        wheres: Iterable[list[Any]],
        *,
        workers: int | None,
        device: torch.device,
        failures: Sequence[UnreadableClip] = (),
        most_failed: float = float("inf"),
    ) -> None:
        """Set up; nothing is read before the first batch is asked for.

        Args:
            source: where clips come from.
            wheres: per batch, where its clips are in the source.
            workers: processes that read; 0 reads in this one, None takes one for each core.
            device: where batches go.
            failures: those of an earlier part of the run.
            most_failed: more videos than this may not fail.
        """
        self.failures = list(failures)  # the first of each video
        self.failed_clips = 0  # since this loader was made
        self._wheres, self._device, self._most_failed = wheres, device, most_failed
        count = num_cpus() if workers is None else workers
        self._loader: DataLoader[_Delivery] = DataLoader(
            _Deliveries(source),
            batch_sampler=wheres,
            collate_fn=_as_it_is,
            num_workers=count,
            persistent_workers=count > 0,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # else it would draw from everyone's random numbers
        )

    def _batches(self) -> Iterator[tuple[list[Any], tuple[int, ...], Batch]]:
        for where, delivery in zip(self._wheres, self._loader, strict=True):
            if delivery.error is not None:
                raise delivery.error
            self._count(delivery.failures)
            if delivery.batch is not None:
                yield where, delivery.kept, delivery.batch.to(self._device)

    def _count(self, failures: Sequence[UnreadableClip]) -> None:
        self.failed_clips += len(failures)
        for failure in failures:
            if failure.key not in {known.key for known in self.failures}:
                logger.warning("skipped: %s", failure.cause)
                self.failures.append(failure)
        if len(self.failures) > self._most_failed:
            raise DataError(
                f"{len(self.failures)} videos cannot be read, more than data.max_bad_fraction "
                "allows; the last: " + "; ".join(bad.cause for bad in self.failures[-3:])
            )


class StepLoader(Loader[int]):
    """Yields (step, batch) of training."""

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        return ((where[0][0], batch) for where, _, batch in self._batches())


class WindowLoader(Loader[NDArray[np.int64]]):
    """Yields (positions of the windows in the list, batch); windows that fail are left out."""

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], Batch]]:
        return ((np.array(where)[list(kept)], batch) for where, kept, batch in self._batches())


def make_loader(
    dataset: ClipDataset,
    *,
    steps: int,
    device: torch.device,
    start_step: int = 0,
    batch_size: int | None = None,
    first_slot: int = 0,
    workers: int | None = None,
    failures: Sequence[UnreadableClip] = (),
) -> StepLoader:
    """Batches of training, from `start_step` up to, not including, `steps`.

    Args:
        dataset: what to train on.
        steps: of the whole run.
        device: where batches go.
        start_step: the first one wanted; the batches are those that a run from 0 gets there.
        batch_size: clips of this rank; all of `data.batch_size` if not given.
        first_slot: this rank's place in the whole batch.
        workers: `data.workers` if not given.
        failures: those of the run so far; kept in checkpoints.

    Raises (while iterating):
        DataError: more than `data.max_bad_fraction` of the videos cannot be read.
    """
    config = dataset.config
    size = config.batch_size if batch_size is None else batch_size
    assert first_slot + size <= config.batch_size
    return StepLoader(
        dataset,
        StepSampler(range(start_step, steps), range(first_slot, first_slot + size)),
        workers=config.workers if workers is None else workers,
        device=device,
        failures=failures,
        most_failed=config.max_bad_fraction * dataset.num_videos,
    )


def make_eval_loader(
    dataset: EvalDataset, *, batch_size: int, device: torch.device, workers: int | None = 0
) -> WindowLoader:
    """All windows of a dataset in their order; those that cannot be read are left out."""
    positions = range(len(dataset))
    wheres = [
        list(positions[first : first + batch_size])
        for first in range(0, len(positions), batch_size)
    ]
    return WindowLoader(dataset, wheres, workers=workers, device=device)
