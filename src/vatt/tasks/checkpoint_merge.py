"""`vatt checkpoint merge`: one folder of a checkpoint that several processes wrote in parts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from tyro.conf import Positional

from vatt.checkpoints.checkpoint import all_saved, checkpoint_folder, problem_of
from vatt.errors import CheckpointError
from vatt.tensor_files import PARTS, read_tensors

KINDS = ("model", "optimiser")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointMergeConfig:
    """Make a folder whose tensors are in one file a kind: a model folder that goes on training."""

    checkpoint: Positional[Path]
    """RUN/checkpoints/step-N; or a run folder: its newest checkpoint."""
    out: Path
    """New folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointMergeResult:
    """What was written."""

    checkpoint: Path
    out: Path
    tensors: int
    megabytes: float


def run(config: CheckpointMergeConfig) -> CheckpointMergeResult:
    """Merge a checkpoint.

    Raises:
        CheckpointError: there is none, it is damaged, or `out` exists or cannot be written.
    """
    saved = all_saved(config.checkpoint / "checkpoints")
    path = saved[-1] if saved else config.checkpoint
    if config.out.exists():
        raise CheckpointError(f"{config.out}: is there already; give --out a new folder")
    if problem := problem_of(path):
        raise CheckpointError(f"{path}: not a whole checkpoint ({problem}); give another one")
    tensors = size = 0
    config.out.parent.mkdir(parents=True, exist_ok=True)
    with checkpoint_folder(config.out) as folder:
        for kind in KINDS:
            try:
                found = read_tensors(path, kind)
            except (OSError, SafetensorError, ValueError) as error:
                raise CheckpointError(f"{path}: cannot be read: {error}") from error
            save_file(
                {name: value.contiguous() for name, value in found.items()},
                folder / f"{kind}.safetensors",
            )
            tensors += len(found)
            size += sum(value.nbytes for value in found.values())
        for file in path.iterdir():
            if file.suffix != ".safetensors" and file.name not in (PARTS, "checksums.json"):
                shutil.copy(file, folder)
    return CheckpointMergeResult(
        checkpoint=path, out=config.out, tensors=tensors, megabytes=size / 1e6
    )
