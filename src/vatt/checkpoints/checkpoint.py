"""Checkpoints, written atomically: what is on the disk is complete.

A checkpoint is a model folder that loads alone, plus what training needs to go on: the optimiser's
tensors and `state.json`. There are no states of random generators in it: all draws are functions
of (seed, step).
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vatt.errors import CheckpointError
from vatt.storage import atomic_folder, refuse_newer

logger = logging.getLogger(__name__)

FORMAT_VERSION = "1.0"
OPTIMISER, STATE = "optimiser.safetensors", "state.json"
_NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """Where training stands.

    step: updates made; facts: what the next ones depend on (JSON).
    folder: the model, where it was read from one; None before the first step.
    of_this_run: whether that is a checkpoint of the run, and not a model to start from.
    optimiser: the tensors in it, for `Optimiser.load_state`.
    """

    step: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    of_this_run: bool = False
    optimiser: Mapping[str, Tensor] = field(default_factory=dict)


@contextmanager
def checkpoint_folder(folder: Path) -> Iterator[Path]:
    """As `atomic_folder`, for a folder with a model in it.

    Raises:
        CheckpointError: it cannot be written, e.g. because the disk is full.
    """
    try:
        with atomic_folder(folder) as aside:
            yield aside
    except (OSError, SafetensorError) as error:
        free_mb = shutil.disk_usage(folder.parent).free // 2**20
        raise CheckpointError(
            f"{folder}: cannot be written: {error} ({free_mb} MB free on that disk); earlier "
            "checkpoints are untouched: make room and give the same command to continue"
        ) from error


def save_model_folder(folder: Path | None, write_model: Callable[[Path | None], None]) -> None:
    """Write a model folder; called by all ranks together, with None on those that write nothing.

    Raises:
        CheckpointError: it cannot be written.
    """
    if folder is None:
        write_model(None)
        return
    with checkpoint_folder(folder) as aside:
        write_model(aside)


def save(
    folder: Path | None,
    state: TrainingState,
    tensors: Mapping[str, Tensor],
    write_model: Callable[[Path | None], None],
) -> None:
    """Write the checkpoint `folder/step-…`; called by all ranks together.

    Args:
        folder: where the run keeps its checkpoints; None on ranks that write nothing.
        state: step and facts to find again with `resume`.
        tensors: of the optimiser, whole, as `Optimiser.state` gives them.
        write_model: writes the model's files into the folder it is given, if it is given one.

    Raises:
        CheckpointError: it cannot be written; those written before are untouched.
    """
    if folder is None:
        write_model(None)
        return
    with checkpoint_folder(folder / f"step-{state.step:06d}") as aside:
        write_model(aside)
        save_file(dict(tensors), aside / OPTIMISER)
        write_state(aside, state)


def write_state(folder: Path, state: TrainingState) -> None:
    """Write `state.json` into a folder that holds a model and its optimiser's tensors."""
    record = {"format_version": FORMAT_VERSION, "step": state.step, "facts": dict(state.facts)}
    (folder / STATE).write_text(json.dumps(record, indent=1), encoding="utf-8")


def all_saved(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints."""
    for path in all_saved(folder)[:-keep]:
        shutil.rmtree(path)


def resume(folder: Path, start_from: Path | None = None) -> TrainingState:
    """Where training goes on: from the newest checkpoint in `folder`, or else from `start_from`.

    A model folder to start from may hold nothing but a model: then from step 0, with its weights.

    Raises:
        CheckpointError: the folder is damaged or of a newer format.
    """
    newest = next(reversed(all_saved(folder)), None)
    path = newest or start_from
    if path is None:
        return TrainingState()
    if newest is None and not ((path / STATE).is_file() and (path / OPTIMISER).is_file()):
        return TrainingState(folder=path)
    logger.info("continuing from %s", path)
    try:
        record = json.loads((path / STATE).read_text(encoding="utf-8"))
        refuse_newer(path, record["format_version"], FORMAT_VERSION, CheckpointError)
        return TrainingState(
            step=record["step"],
            facts=record["facts"],
            folder=path,
            of_this_run=newest is not None,
            optimiser=load_file(path / OPTIMISER),
        )
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a whole checkpoint ({error}); delete this folder to continue from the "
            "checkpoint before it"
        ) from error
