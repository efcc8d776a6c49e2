"""Copies of what browsers cannot play: made when they are asked for, of parts of a file, bounded.

CopyJob n of a file holds its seconds n × COPY_S to (n + 1) × COPY_S. The least recently used are
removed when all together are too large.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vatt.errors import VattError
from vatt.library.vector_index import FileEntry
from vatt.media.container import MediaSource
from vatt.serve.decoding import COPY_S, CopyJob, Job
from vatt.workers.process import Lost

logger = logging.getLogger(__name__)

_IN_USE_S = 120.0  # a copy that was asked for since then is not removed


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyState:
    """How far a copy is. share: of it, 0 to 1. start: of its first frame in the file, seconds."""

    state: Literal["making", "ready", "failed"]
    share: float
    start: float
    reason: str = ""


class Copies:
    """A folder of copies."""

    def __init__(self, folder: Path, most_bytes: int, start: Callable[[Job], Future[Any]]) -> None:
        """Keep copies in a folder.

        Args:
            folder: made if it is absent; what is in it from before is used.
            most_bytes: that all copies may take.
            start: has a worker do a job.
        """
        self._folder, self._most_bytes, self._start = folder, most_bytes, start
        self._making: dict[Path, Future[Any]] = {}
        self._lock = threading.Lock()

    def path(self, file: FileEntry, number: int) -> Path:
        """Where a copy is, or will be; of a file that changed it is another one."""
        return self._folder / f"{file.file_id[:32]}-{file.mtime_ns}-{number}.mp4"

    def state(self, file: FileEntry, source: MediaSource, number: int, *, begin: bool) -> CopyState:
        """How far a copy is; `begin`: it is begun if there is none."""
        out, start_s = self.path(file, number), number * COPY_S
        told = out.with_suffix(".told")
        with self._lock:
            if out.is_file():
                os.utime(out)
                if self._making.pop(out, None):
                    told.unlink(missing_ok=True)
                return CopyState(state="ready", share=1.0, start=start_s)
            work = self._making.get(out)
            if work is None and begin:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._make_room()
                end_s = min(start_s + COPY_S, file.duration_s)
                work = self._start(CopyJob(source, start_s, end_s, out, told))
                self._making[out] = work
        if work is not None and work.done():
            return self._ended(out, work, start_s)
        try:
            share = float(told.read_text())
        except (OSError, ValueError):
            share = 0.0
        return CopyState(state="making", share=share, start=start_s)

    def _ended(self, out: Path, work: Future[Any], start_s: float) -> CopyState:
        """The state of a copy whose worker is done; one that failed may be begun again."""
        out.with_suffix(".told").unlink(missing_ok=True)
        with self._lock:
            self._making.pop(out, None)
        try:
            outcome = work.result()
        except (VattError, OSError) as error:
            return CopyState(state="failed", share=0.0, start=start_s, reason=str(error))
        if isinstance(outcome, Lost):
            return CopyState(state="failed", share=0.0, start=start_s, reason=outcome.reason)
        return CopyState(state="ready", share=1.0, start=start_s)

    def _make_room(self) -> None:
        """Remove copies, the least recently used first, until all are small enough."""
        found = [(path.stat().st_mtime, path.stat().st_size, path) for path in self._copies()]
        total = sum(size for _, size, _ in found)
        for used, size, path in sorted(found):
            if total <= self._most_bytes or time.time() - used < _IN_USE_S:
                break
            path.unlink(missing_ok=True)
            total -= size

    def _copies(self) -> list[Path]:
        return [path for path in self._folder.glob("*.mp4") if path.is_file()]
