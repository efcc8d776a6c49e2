"""Reads the log of a run: the entries of its metrics.jsonl, by step."""

from __future__ import annotations

import json
from pathlib import Path

from vatt.errors import CheckpointError


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The entries of a metrics.jsonl by step, of a step that stands there twice the last one.

    A last line that was cut off while being written is left out; without a file there are none.

    Raises:
        CheckpointError: another line is damaged; says which.
    """
    if not path.is_file():
        return []
    by_step: dict[float, dict[str, float]] = {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            by_step[entry["step"]] = entry
        except (ValueError, KeyError, TypeError) as error:
            if not line.endswith("\n"):
                break
            raise CheckpointError(
                f"{path}: line {number} is no entry of a training log: {error}; remove this line"
            ) from error
    return [by_step[step] for step in sorted(by_step)]
