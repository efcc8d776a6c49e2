"""Progress on stderr: what is done, how much of it, a note, the time left; a bar, or log lines."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
LONG_S, LINE_S = 5.0, 60.0


class ProgressBar:
    """One bar, shown while the context lasts; in a log it is a line each minute."""

    def __init__(self, what: str, total: int, *, done: int = 0, shown: bool = True) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            disable=not shown,
        )
        self._what, self._said, self._shown = what, time.monotonic(), shown
        self._task = self._progress.add_task(what, total=total, completed=done, note="")

    def update(self, done: int, note: str | None = None) -> None:
        """Say how much is done by now; the note stays as it is when none is given."""
        self._progress.update(self._task, completed=done)
        if note is not None:
            self._progress.update(self._task, note=note)
        if not self._shown or self._progress.console.is_terminal:
            return
        if time.monotonic() - self._said > LINE_S:
            self._said, task = time.monotonic(), self._progress.tasks[0]
            notes = [task.fields["note"]] if task.fields["note"] else []
            if (left_s := task.time_remaining) is not None:
                notes.append(f"about {timedelta(seconds=round(left_s))} left")
            logger.info(", ".join([f"{self._what}: {done:,} of {task.total:,.0f}", *notes]))

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def followed(items: Sequence[Item], what: str, *, shown: bool = True) -> Iterator[Item]:
    """The same items; if they take long, with a bar, or else a line of the log each minute."""
    started = said = time.monotonic()
    bar: ProgressBar | None = None
    with ExitStack() as stack:
        for done, item in enumerate(items):
            yield item
            now = time.monotonic()
            if bar is not None:
                bar.update(done + 1)
            elif shown and sys.stderr.isatty() and now - started > LONG_S:
                bar = stack.enter_context(ProgressBar(what, len(items), done=done + 1))
            elif shown and now - said > LINE_S:
                said = now
                logger.info("%s: %d of %d", what, done + 1, len(items))
