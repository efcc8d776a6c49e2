"""The log of a run: metrics.jsonl, TensorBoard, and a line or bar with the time left."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


class RunLog:
    """Writes one entry every so many steps, on the main rank only.

    A continued run first drops the entries past the checkpoint it continues from, so that
    `metrics.jsonl` holds every step once.
    """

    def __init__(self, folder: Path, *, start_step: int, steps: int, active: bool = True) -> None:
        self._steps = steps
        self._active = active
        if not active:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "metrics.jsonl").open("a+b")
        self._file.seek(0)
        kept = 0
        for line in self._file:
            if not line.endswith(b"\n") or json.loads(line)["step"] > start_step:
                break
            kept += len(line)
        self._file.truncate(kept)
        purge = start_step + 1 if start_step else None
        self._board = SummaryWriter(str(folder), purge_step=purge)
        self._bar = Progress(
            TextColumn("pretrain"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("", total=steps, completed=start_step, text="")
        self._bar.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._active:
            self._bar.stop()
            self._file.close()
            self._board.close()

    def advance(self, step: int) -> None:
        """Say that `step` updates are made; cheap, for every step."""
        if self._active:
            self._bar.update(self._task, completed=step)

    def write(self, step: int, values: Mapping[str, float], *, steps_per_s: float) -> None:
        """Record the values of the step that made `step` updates."""
        if not self._active:
            return
        record = {"step": step, **values}
        self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        text = "  ".join(
            f"{name.removesuffix('_share')} {value:.0%}"
            if name.endswith("_share")
            else f"{name} {value:.4g}"
            for name, value in values.items()
        )
        self._bar.update(self._task, text=text)
        if self._bar.disable:
            left_s = (self._steps - step) / steps_per_s
            logger.info("step %d of %d, %s left  %s", step, self._steps, duration(left_s), text)


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The entries of a metrics.jsonl, without a last line that was cut off while being written."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]
