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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vatt.errors import CheckpointError
from vatt.storage import atomic_folder, refuse_newer
from vatt.training.optim import Optimiser

logger = logging.getLogger(__name__)

FORMAT_VERSION = "1.0"
OPTIMISER, STATE = "optimiser.safetensors", "state.json"
_NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """Where training stands: updates made, and facts that the next ones depend on (JSON)."""

    step: int
    facts: Mapping[str, Any]


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


def save(
    folder: Path,
    state: TrainingState,
    optimiser: Optimiser,
    write_model: Callable[[Path], None],
) -> Path:
    """Write the checkpoint `folder/step-…`.

    Args:
        folder: where the run keeps its checkpoints.
        state: step and facts to find again with `load_training`.
        optimiser: its tensors are saved beside the model.
        write_model: writes the model's files into the folder it is given.

    Raises:
        CheckpointError: it cannot be written; those written before are untouched.
    """
    path = folder / f"step-{state.step:06d}"
    with checkpoint_folder(path) as aside:
        write_model(aside)
        save_file(optimiser.state(), aside / OPTIMISER)
        write_state(aside, state)
    return path


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


def latest(folder: Path) -> Path | None:
    """The newest checkpoint in `folder`, if there is one."""
    return next(reversed(all_saved(folder)), None)


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints."""
    for path in all_saved(folder)[:-keep]:
        shutil.rmtree(path)


def resume(path: Path | None, optimiser: Optimiser) -> TrainingState:
    """Fill `optimiser` from a model folder and say from which step training goes on.

    Step 0, without facts, where there is no folder or nothing but a model in it.

    Raises:
        CheckpointError: the folder is damaged, of a newer format, or of another model.
    """
    if path is None or not ((path / STATE).is_file() and (path / OPTIMISER).is_file()):
        return TrainingState(step=0, facts={})
    logger.info("continuing from %s", path)
    return load_training(path, optimiser)


def load_training(path: Path, optimiser: Optimiser) -> TrainingState:
    """Read everything of a checkpoint but its model: fills `optimiser`, returns the state.

    Raises:
        CheckpointError: the folder is damaged, of a newer format, or of another model.
    """
    try:
        record = json.loads((path / STATE).read_text(encoding="utf-8"))
        refuse_newer(path, record["format_version"], FORMAT_VERSION, CheckpointError)
        state = TrainingState(step=record["step"], facts=record["facts"])
        optimiser.load_state(load_file(path / OPTIMISER))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a whole checkpoint ({error}); delete this folder to continue from the "
            "checkpoint before it"
        ) from error
    return state
