"""Result files: what was measured, on which clips, of which model, with which versions."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vatt.errors import CheckpointError, DataError
from vatt.storage import refuse_newer, sha256_of, write_atomically

logger = logging.getLogger(__name__)

FORMAT_VERSION = "1.0"
Measure = dict[str, Any]


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    packages = ("vatt", "torch", "numpy", "av", "scikit-learn")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def ids_hash(ids: Iterable[str]) -> str:
    """Twelve hex digits of the evaluated clips, in their order."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:12]


def file_hash(path: Path) -> str:
    """Twelve hex digits of a file's content.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        return sha256_of(path)[:12]
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {error.strerror}") from error


def take(
    measures: Mapping[str, Callable[[], Measure]],
) -> tuple[dict[str, Measure], dict[str, str]]:
    """Take each measure; those that the data has too little for are left out, with the reason."""
    taken: dict[str, Measure] = {}
    left_out: dict[str, str] = {}
    for name, measure in measures.items():
        try:
            taken[name] = measure()
        except DataError as error:
            left_out[name] = str(error)
            logger.warning("%s left out: %s", name, error)
    return taken, left_out


def write_result(run: Path, task: str, result: Mapping[str, Any]) -> Path:
    """Write `<run>/results/<task>.json` atomically; returns its path."""
    path = run / "results" / f"{task}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"format_version": FORMAT_VERSION, "task": task, **result, "versions": versions()}
    write_atomically(path, json.dumps(content, indent=1, allow_nan=False))
    return path


def read_result(run: Path, task: str) -> dict[str, Any] | None:
    """The result of a task, or None when it has not been run.

    Raises:
        CheckpointError: the file is damaged or of a newer format.
    """
    path = run / "results" / f"{task}.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        refuse_newer(path, content["format_version"], FORMAT_VERSION, CheckpointError)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a result file ({error}); run the task again") from error
    return content
