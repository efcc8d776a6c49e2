"""Checkpoints, written atomically: what is on the disk is complete, and checked when it is read.

A checkpoint is a model folder that loads alone, plus what training needs to go on: the optimiser's
tensors and `state.json`. There are no states of random generators in it: all draws are functions
of (seed, step). Its tensors are in one file a kind, or in one file a rank (`vatt.tensor_files`).
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
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vatt import distributed
from vatt.checkpoints.integrity import CHECKSUMS, damage, write_checksums
from vatt.errors import CheckpointError
from vatt.storage import atomic_folder, refuse_newer, set_aside
from vatt.tensor_files import is_divided, read_tensors

logger = logging.getLogger(__name__)

FORMAT_VERSION = "1.1"  # 1.1: checksums, and tensors of several files
OPTIMISER, STATE = "optimiser.safetensors", "state.json"
UNREADABLE = (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError)
_NAME = re.compile(r"step-(\d{6,})")


class ModelWriter(Protocol):
    """Writes the files of a model into a folder; `weights=False` leaves its tensors out.

    With weights it is called by all ranks together, with None where nothing is to be written.
    """

    def __call__(self, folder: Path | None, /, *, weights: bool = True) -> None:
        """Write."""


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


# --- writing


@contextmanager
def checkpoint_folder(folder: Path) -> Iterator[Path]:
    """As `atomic_folder`, for a folder with a model in it; it gets checksums if it lacks them.

    Raises:
        CheckpointError: it cannot be written, e.g. because the disk is full.
    """
    with told_as_checkpoint_error(folder), atomic_folder(folder) as aside:
        yield aside
        if not (aside / CHECKSUMS).exists():
            write_checksums(aside)


@contextmanager
def told_as_checkpoint_error(folder: Path) -> Iterator[None]:
    """Say of an error that `folder` could not be written, and how much room there is."""
    try:
        yield
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
    folder: Path, state: TrainingState, tensors: Mapping[str, Tensor], write_model: ModelWriter
) -> None:
    """Write the checkpoint `folder/step-…`, of one file a kind; called by all ranks together.

    Args:
        folder: where the run keeps its checkpoints.
        state: step and facts to find again with `resume`.
        tensors: of the optimiser, as `Optimiser.state` gives them.
        write_model: writes the model's files.

    Raises:
        CheckpointError: it cannot be written; those written before are untouched.
    """
    whole = {name: distributed.whole(tensor) for name, tensor in tensors.items()}
    if not distributed.is_main():
        write_model(None)
        return
    with checkpoint_folder(path_of(folder, state)) as aside:
        write_model(aside)
        save_file(whole, aside / OPTIMISER)
        write_state(aside, state)


def path_of(folder: Path, state: TrainingState) -> Path:
    """The checkpoint of a state."""
    return folder / f"step-{state.step:06d}"


def write_state(folder: Path, state: TrainingState) -> None:
    """Write `state.json` into a folder that holds a model and its optimiser's tensors."""
    record = {"format_version": FORMAT_VERSION, "step": state.step, "facts": dict(state.facts)}
    (folder / STATE).write_text(json.dumps(record, indent=1), encoding="utf-8")


def prune(folder: Path, keep: int, best: int | None = None) -> None:
    """Delete all but the newest `keep` checkpoints and that of the step `best`."""
    for path in all_saved(folder)[:-keep]:
        if step_of(path) == best:
            continue
        try:
            shutil.rmtree(path)
        except OSError as error:  # e.g. a network disk on which another process reads it
            logger.warning("%s: an old checkpoint that cannot be deleted: %s", path, error)


# --- reading


def all_saved(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if _NAME.fullmatch(p.name)), key=step_of)


def step_of(path: Path) -> int:
    """The number of a checkpoint."""
    return int(path.name.removeprefix("step-"))


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint in `folder` that is as it was written; called by all ranks together.

    Those after it are renamed to `….damaged`, and a warning says so.

    Raises:
        CheckpointError: all are damaged, or one is of a newer format.
    """
    name = ""
    if distributed.is_main():
        saved = all_saved(folder)
        while saved and (problem := problem_of(saved[-1])):
            damaged = saved.pop()
            if not saved:
                raise CheckpointError(
                    f"{damaged}: not a whole checkpoint ({problem}), and there is none before it; "
                    "delete this folder to begin anew"
                )
            kept = set_aside(damaged, "damaged")
            logger.warning(
                "%s: not a whole checkpoint (%s): kept as %s; %s is the newest now",
                damaged,
                problem,
                kept.name,
                saved[-1].name,
            )
        name = saved[-1].name if saved else ""
    name = distributed.from_main(name)
    return folder / name if name else None


def problem_of(path: Path) -> str | None:
    """What is wrong with a checkpoint; those of format 1.0 have no checksums: with their form."""
    try:
        record = json.loads((path / STATE).read_text(encoding="utf-8"))
        refuse_newer(path, record["format_version"], FORMAT_VERSION, CheckpointError)
        if record["format_version"] != "1.0":
            return damage(path) if (path / CHECKSUMS).is_file() else f"{CHECKSUMS} is missing"
        for file in ("model.safetensors", OPTIMISER):
            with safe_open(path / file, framework="pt"):
                pass
    except UNREADABLE as error:
        return str(error)
    return None


def resume(folder: Path, start_from: Path | None = None) -> TrainingState:
    """Where training goes on: from the newest checkpoint in `folder`, or else from `start_from`.

    A model folder to start from may hold nothing but a model: then from step 0, with its weights.
    All ranks call it together.

    Raises:
        CheckpointError: the folder is damaged or of a newer format.
    """
    newest = newest_whole(folder)
    path = newest or start_from
    if path is None:
        return TrainingState()
    if newest is None and not holds_training(path):
        return TrainingState(folder=path)
    logger.info("continuing from %s", path)
    if newest is None and (problem := damage(path)):
        raise CheckpointError(f"{path}: {problem}; copy it again")
    return read_state(path, of_this_run=newest is not None)


def holds_training(path: Path) -> bool:
    """Whether a model folder holds what its training needs to go on."""
    has_optimiser = (path / OPTIMISER).is_file() or is_divided(path, "optimiser")
    return (path / STATE).is_file() and has_optimiser


def read_state(path: Path, *, of_this_run: bool) -> TrainingState:
    """Read a checkpoint.

    Raises:
        CheckpointError: it is damaged or of a newer format.
    """
    try:
        record = json.loads((path / STATE).read_text(encoding="utf-8"))
        refuse_newer(path, record["format_version"], FORMAT_VERSION, CheckpointError)
        return TrainingState(
            step=record["step"],
            facts=record["facts"],
            folder=path,
            of_this_run=of_this_run,
            optimiser=read_tensors(path, "optimiser"),
        )
    except UNREADABLE as error:
        raise CheckpointError(f"{path}: not a whole checkpoint ({error})") from error
