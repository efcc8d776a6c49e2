"""The log of a run: metrics.jsonl, TensorBoard, and a line or bar with the time left."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from torch.utils.tensorboard import SummaryWriter

from vatt.run_folder import METRICS_FILE
from vatt.workers.progress import ProgressBar

logger = logging.getLogger(__name__)


class RunLog:
    """Writes one entry every so many steps, on the main rank only.

    A continued run first drops the entries past the checkpoint it continues from, so that
    `metrics.jsonl` holds every step once.
    """

    def __init__(self, folder: Path, *, start_step: int, steps: int, active: bool = True) -> None:
        self._steps = steps
        self._active = active
        self._open = ExitStack()
        if not active:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._file = self._open.enter_context((folder / METRICS_FILE).open("a+b"))
        self._file.seek(0)
        kept = 0
        for line in self._file:
            if not line.endswith(b"\n") or json.loads(line)["step"] > start_step:
                break
            kept += len(line)
        self._file.truncate(kept)
        purge = start_step + 1 if start_step else None
        self._board = SummaryWriter(str(folder), purge_step=purge)
        self._open.callback(self._board.close)
        self._has_bar = sys.stderr.isatty()
        bar = ProgressBar("train", steps, done=start_step, shown=self._has_bar)
        self._bar = self._open.enter_context(bar)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def advance(self, step: int) -> None:
        """Say that `step` updates are made; cheap, for every step."""
        if self._active:
            self._bar.update(step)

    def write(self, step: int, values: Mapping[str, float], *, steps_per_s: float) -> None:
        """Record the values of the step that made `step` updates."""
        if not self._active:
            return
        entry = {"step": step, **values}
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        text = "  ".join(
            f"{name.removesuffix('_share')} {value:.0%}"
            if name.endswith("_share")
            else f"{name} {value:.4g}"
            for name, value in values.items()
        )
        self._bar.update(step, text)
        if not self._has_bar:
            left_s = (self._steps - step) / steps_per_s
            logger.info("step %d of %d, %s left  %s", step, self._steps, duration(left_s), text)


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
