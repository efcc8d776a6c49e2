"""Tensors written by all ranks at once, each its part, through torch.distributed.checkpoint.

What torch's own `FileSystemWriter` would pickle, which block of which tensor is in which file, is
JSON here (`vatt.tensor_files`). Importing this module takes a second.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.staging import BlockingAsyncStager
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from vatt import distributed
from vatt.checkpoints.integrity import checksum
from vatt.storage import atomic_file
from vatt.tensor_files import Block, write_parts


def staged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy in the memory of the host of what this rank will write; the tensors may change then.

    Of a tensor that every rank has whole, one rank writes it.
    """
    ranks, rank = distributed.world_size(), distributed.rank()
    mine = {
        name: tensor
        for number, (name, tensor) in enumerate(tensors.items())
        if distributed.is_divided(tensor) or number % ranks == rank
    }
    copies: dict[str, Tensor] = BlockingAsyncStager().stage(mine)
    return copies


def write_divided(
    folder: Path | None, mine: Mapping[str, Tensor], group: dist.ProcessGroup | None
) -> dict[str, str]:
    """Write what `staged` gave into a folder; returns file → checksum, on the main rank.

    Called by all ranks together, with the folder on the main rank alone.

    Args:
        folder: is there already.
        mine: what this rank writes.
        group: of all ranks, used by nothing else meanwhile.

    Raises:
        Exception: the first that a rank had, on all ranks.
    """
    writer = _Writer(folder)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            save(dict(mine), storage_writer=writer, process_group=group)
    except CheckpointException as failed:
        raise next(iter(failed.failures.values()))[0] from failed
    return writer.checksums


class _Writer(StorageWriter):
    """Writes `rank-N.safetensors` on each rank, and what is where on the main one."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.checksums: dict[str, str] = {}

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Nothing is kept from one checkpoint to the next."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """The folder is there already."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """As it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Tell each rank the name of its file."""
        assert self._folder is not None
        files = [self._folder / f"rank-{rank:05d}.safetensors" for rank in range(len(plans))]
        return [
            dataclasses.replace(plan, storage_data=str(file))
            for plan, file in zip(plans, files, strict=True)
        ]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this rank's file, flushed to the disk."""
        path, tensors, results = Path(plan.storage_data), {}, []
        for number, item in enumerate(plan.items):
            assert item.tensor_data is not None
            chunk, key = item.tensor_data.chunk, f"{item.index.fqn}@{number}"
            value = planner.resolve_data(item)
            assert isinstance(value, Tensor)
            tensors[key] = value.contiguous()
            block = Block(
                file=path.name, key=key, offsets=tuple(chunk.offsets), shape=tuple(chunk.sizes)
            )
            dtype = str(item.tensor_data.properties.dtype).removeprefix("torch.")
            about = item.index.fqn, dtype, tuple(item.tensor_data.size), block
            results.append((item.index, value.nbytes, about))
        with atomic_file(path) as aside:
            save_file(tensors, aside)
        found = checksum(path)
        future: Future[list[WriteResult]] = Future()
        future.set_result([WriteResult(index, n, (found, about)) for index, n, about in results])
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write what is where."""
        assert self._folder is not None
        written = [one.storage_data for of_rank in results for one in of_rank]
        self.checksums = {block.file: found for found, (*_, block) in written}
        write_parts(self._folder, (about for _, about in written))

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Folders are given to the writer itself."""
        return False
