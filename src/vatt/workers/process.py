"""One process that runs a job on an item at a time, within limits of time and memory."""

from __future__ import annotations

import functools
import multiprocessing
import os
import resource
import signal
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from vatt.errors import DataError, VattError

DIED, TOO_LONG, TOO_LARGE = "crashed the decoder", "took too long", "took too much memory"
UNFORESEEN = "unforeseen error"  # a mistake in our code that only this item shows
_START_S = 300.0  # a new process needs a second; a busy machine or a slow disk more
_ITEMS_PER_PROCESS = 1000  # then a new one: memory that a library leaks is given back
# Two threads that wait for one process at once would lose its exit code.
_starts_and_ends = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one item may take: seconds, until its job asks for more; and memory.

    gigabytes: that its process may ask for (RLIMIT_DATA), used or not: more than is resident.
    """

    seconds: float = 60.0
    gigabytes: float = 4.0


@dataclass(frozen=True, slots=True)
class Lost:
    """The outcome of an item whose process died or was stopped: a cause to count, and details."""

    cause: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a streamed item: what its job returned, or `Lost`."""

    outcome: Any


class TimeLimit:
    """The time limit of the item at hand, for its job; without a pipe there is no limit."""

    def __init__(self, pipe: Connection | None = None) -> None:
        self._pipe = pipe

    def allow(self, seconds: float) -> None:
        """Let the item take so many seconds from now on."""
        if self._pipe is not None:
            self._pipe.send(("allow", seconds))


class WorkerProcess:
    """Runs `job(item, time_limit)` in a process of its own, which is replaced when it dies.

    It has a pipe of its own and shares no lock: when one process dies, no other waits for it.
    """

    def __init__(self, job: Callable[[Any, TimeLimit], Any], limits: Limits) -> None:
        self._job, self._limits = job, limits
        self._context = multiprocessing.get_context("forkserver")
        function = job.func if isinstance(job, functools.partial) else job
        self._context.set_forkserver_preload([function.__module__])
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection
        self._items = 0
        self._ended = False

    def run(self, item: Any) -> Any:
        """What the job returns, or `Lost` when its process died, was too slow or too large.

        Raises:
            OSError, VattError: raised by the job; any other exception of it is `Lost`.
            DataError: no process can be started.
        """
        *_, ended = self.stream(item)
        return ended.outcome

    def stream(self, item: Any) -> Iterator[Any]:
        """What a job that is a generator yields, one by one, then `Ended` with what `run` returns.

        For each of them the item may take as long as the limits say; time in which nobody asks for
        the next one does not count. The process waits once a few are not asked for.
        """
        if self._process is None or self._items == _ITEMS_PER_PROCESS or self._pipe.poll():
            self._start()  # it can be read between two items only when the process has died
        self._items += 1
        seconds = self._limits.seconds
        deadline = time.monotonic() + seconds
        try:
            self._pipe.send(item)
            while self._pipe.poll(max(deadline - time.monotonic(), 0.0)):
                kind, value = self._pipe.recv()
                if kind == "raised":
                    raise value
                if kind == "done":
                    yield Ended(value)
                    return
                if kind == "allow":
                    seconds = value
                else:
                    yield value
                    seconds = self._limits.seconds
                deadline = time.monotonic() + seconds
        except (EOFError, ConnectionError):
            end = self._stop(died=True)
            yield Ended(Lost(DIED, f"the process that decoded it died ({end})"))
            return
        self._stop()
        yield Ended(Lost(TOO_LONG, f"stopped after {seconds:,.0f} s"))

    def end(self) -> None:
        """End the process now and for good; may be called while another thread is in `run`."""
        with _starts_and_ends:
            self._ended = True
            if self._process is not None:
                self._process.kill()
                self._process.join()

    def _start(self) -> None:
        self._stop()
        self._pipe, theirs = self._context.Pipe()
        with _starts_and_ends:
            if self._ended:
                raise DataError("the workers have been ended")
            arguments = (theirs, self._job, self._limits)
            process = self._context.Process(target=_work, args=arguments, daemon=True)
            # Ctrl-C is for us, not for what starts here, from its first moment on. (The tracker of
            # resources would end the block, if it was started in it.)
            resource_tracker.ensure_running()
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._process = process
        theirs.close()
        self._items = 0
        try:
            if not self._pipe.poll(_START_S):
                raise DataError(f"a worker process did not start within {_START_S:.0f} s")
            self._pipe.recv()
        except (EOFError, ConnectionError):
            end = self._stop(died=True)
            raise DataError(
                f"a worker process ended before it began ({end}): memory is short, or the "
                'script that started it has no `if __name__ == "__main__":`'
            ) from None

    def _stop(self, *, died: bool = False) -> str:
        """End the process, if there is one and it has not died; returns how it ended."""
        if self._process is None:
            return ""
        with _starts_and_ends:
            if not died:
                self._process.kill()
            self._process.join()
            code = self._process.exitcode or 0
            self._process = None
        self._pipe.close()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _work(pipe: Connection, job: Callable[[Any, TimeLimit], Any], limits: Limits) -> None:
    """What a worker process does from start to end; it ends with its parent, even a killed one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    parent: Any = multiprocessing.parent_process()

    def end_with_parent() -> None:  # a thread: the job may hang in a library
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    most = round(limits.gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    answer: tuple[str, Any] = "ready", None
    pipe.send(answer)
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            outcome = job(item, TimeLimit(pipe))
            if isinstance(outcome, Generator):
                outcome = _send_all(outcome, pipe)
            answer = "done", outcome
        except MemoryError:
            reason = f"needs more than {limits.gigabytes:g} GB of memory"
            answer = "done", Lost(TOO_LARGE, reason)
        except (OSError, VattError) as error:  # the disk, the settings: raised again by the parent
            answer = "raised", error
        except Exception as error:  # a mistake in our code: only the item that shows it is lost
            *_, last = traceback.extract_tb(error.__traceback__)
            where = f"{Path(last.filename).name}, line {last.lineno}"
            answer = "done", Lost(UNFORESEEN, f"{type(error).__name__}: {error} ({where})")
        pipe.send(answer)


def _send_all(pieces: Generator[Any, None, Any], pipe: Connection) -> Any:
    """Send what a job yields; gives what it returns."""
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            return end.value
        pipe.send(("piece", piece))
