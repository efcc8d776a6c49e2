"""Work that may crash, hang or fill the memory, done by processes: each item costs at most itself.

Every worker has a pipe of its own. Nothing is shared, so that one that dies holds no lock that
the others need; it is replaced, and they go on.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import resource
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar

from vatt.errors import DataError, VattError

T = TypeVar("T")

DIED, TOO_LONG, TOO_LARGE = "crashed the decoder", "took too long", "took too much memory"
UNFORESEEN = "unforeseen error"  # a mistake of ours, which this item brought to light
AHEAD = 16  # items per worker that may wait for an earlier one to be taken
_START_S = 300.0  # a new process needs a second; a busy machine or a slow disk more
_ITEMS_PER_PROCESS = 1000  # then a new one: what a library leaks is given back
_TICK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one item may take: seconds, until its job asks for others by `allow`; and memory."""

    seconds: float = 60.0
    gigabytes: float = 4.0


@dataclass(frozen=True, slots=True)
class Lost:
    """What became of an item whose process died or was stopped."""

    cause: str
    reason: str


class Crew(Protocol):
    """Workers that take items and give outcomes, in any order."""

    ahead: int  # how many items may be started before the oldest of them is taken

    def has_idle(self) -> bool:
        """Whether one of them could take an item."""

    def start(self, place: int, item: Any) -> None:
        """Give an item to an idle one."""

    def finished(self) -> Iterator[tuple[int, Any]]:
        """Wait a moment; places and outcomes (or `Lost`) of what is done since."""


def in_order(items: Sequence[T], crew: Crew) -> Iterator[tuple[T, Any]]:
    """Each item with what the crew makes of it (or `Lost`), in the order of the items."""
    done: dict[int, Any] = {}
    started = 0
    for place, item in enumerate(items):
        while True:
            while started < min(len(items), place + crew.ahead) and crew.has_idle():
                crew.start(started, items[started])
                started += 1
            if place in done:
                break
            done.update(crew.finished())
        yield item, done.pop(place)


class ProcessPool:
    """Processes on this machine, each of which runs `job` on one item at a time.

    What the job returns is anything but None.
    Use as a context manager; leaving it ends the processes at once. An OSError or VattError of the
    job is raised here, and ends the work; any other exception is a mistake of ours, and `Lost`.
    """

    def __init__(self, job: Callable[[Any], Any], *, workers: int, limits: Limits) -> None:
        self.ahead = AHEAD * workers
        context = multiprocessing.get_context("forkserver")
        function = job.func if isinstance(job, functools.partial) else job
        context.set_forkserver_preload([function.__module__])
        self._worker = functools.partial(_Worker, context, job, limits)
        self._idle = [self._worker() for _ in range(workers)]
        self._busy: list[_Worker] = []

    def has_idle(self) -> bool:
        """Whether a process could take an item."""
        return bool(self._idle)

    def start(self, place: int, item: Any) -> None:
        """Give an item to an idle process."""
        worker = self._idle.pop()
        if not worker.process.is_alive() or worker.items == _ITEMS_PER_PROCESS:
            worker.end()
            worker = self._worker()
        worker.start(place, item)
        self._busy.append(worker)

    def finished(self) -> Iterator[tuple[int, Any]]:
        """Wait for outcomes, a second at most.

        Raises:
            DataError: processes cannot be started.
        """
        left_s = min((worker.deadline for worker in self._busy), default=0.0) - time.monotonic()
        wait([worker.pipe for worker in self._busy], min(max(left_s, 0.0), _TICK_S))
        for worker in list(self._busy):
            if (outcome := worker.outcome()) is None:
                continue
            self._busy.remove(worker)
            self._idle.append(worker)
            yield worker.place, outcome

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in (*self._idle, *self._busy):
            worker.end()


class _Worker:
    """One process and the item that it works on."""

    def __init__(self, context: Any, job: Callable[[Any], Any], limits: Limits) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, job, limits), daemon=True)
        self.process.start()
        theirs.close()
        self.place, self.items, self.deadline = -1, 0, 0.0
        self._limits, self._ready = limits, False

    def start(self, place: int, item: Any) -> None:
        self.place, self.items = place, self.items + 1
        self._allow(self._limits.seconds if self._ready else _START_S)
        self.pipe.send(item)

    def _allow(self, seconds: float) -> None:
        self._allowed_s, self.deadline = seconds, time.monotonic() + seconds

    def outcome(self) -> Any:
        """What the process says of its item; `Lost` when it is no more; None: nothing yet."""
        try:
            while self.pipe.poll():
                kind, value = self.pipe.recv()
                if kind == "done":
                    return value
                if kind == "raised":
                    raise value
                self._ready = True
                self._allow(value)
        except (EOFError, ConnectionError):
            return self._died()
        if time.monotonic() < self.deadline:
            return None
        self.end()
        if not self._ready:
            raise DataError(f"a worker process did not start within {_START_S:.0f} s")
        return Lost(TOO_LONG, f"stopped after {self._allowed_s:,.0f} s")

    def _died(self) -> Lost:
        self.process.join()
        code = self.process.exitcode
        words = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if not self._ready:
            raise DataError(f"a worker process ended before it began ({words}); is memory short?")
        return Lost(DIED, f"the process that decoded it died ({words})")

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


_parent: Connection | None = None  # in a worker: the pipe to the process that started it


def allow(seconds: float) -> None:
    """Called by a job when it knows how long its item may take, counted from now."""
    if _parent is not None:
        _parent.send(("allow", seconds))


def _work(pipe: Connection, job: Callable[[Any], Any], limits: Limits) -> None:
    """The life of a worker; it ends with its parent, also when that was killed."""
    global _parent
    _parent = pipe
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    parent = multiprocessing.parent_process()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    most = round(limits.gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    allow(limits.seconds)
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        pipe.send(_outcome(job, item, limits))


def _outcome(
    job: Callable[[Any], Any], item: Any, limits: Limits
) -> tuple[Literal["done", "raised"], Any]:
    try:
        return "done", job(item)
    except MemoryError:
        return "done", Lost(TOO_LARGE, f"needs more than {limits.gigabytes:g} GB of memory")
    except (OSError, VattError) as error:  # the disk, the settings: raised again by the parent
        return "raised", error
    except Exception as error:  # what nobody foresaw in one file must not stop all others
        *_, last = traceback.extract_tb(error.__traceback__)
        where = f"{Path(last.filename).name}, line {last.lineno}"
        return "done", Lost(UNFORESEEN, f"{type(error).__name__}: {error} ({where})")


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
