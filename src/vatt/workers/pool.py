"""A job over many items on several workers, with the outcomes in the order of the items."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from typing import Any, Literal, Protocol, TypeVar

from vatt.devices import num_cpus
from vatt.workers.process import Limits, Lost, TimeLimit, WorkerProcess
from vatt.workers.progress import ProgressBar
from vatt.workers.ray_cluster import ray_workers

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

AHEAD = 16  # items per worker that may be begun before the oldest of them is taken


class Worker(Protocol):
    """What runs a job on one item at a time: a `WorkerProcess` or a `RayWorker`."""

    def run(self, item: Any) -> Any:
        """What the job makes of an item, or `Lost`."""

    def stream(self, item: Any) -> Iterator[Any]:
        """What the job yields of an item, one by one, then `Ended`."""

    def end(self) -> None:
        """End it for good, also while another thread is in `run`."""


def run_in_order(
    job: Callable[[Item, TimeLimit], Outcome],
    items: Sequence[Item],
    *,
    workers: int = 0,
    limits: Limits | None = None,
    executor: Literal["processes", "ray"] = "processes",
    progress: str | None = None,
    note: Callable[[], str] = str,
) -> Generator[tuple[Item, Outcome | Lost], None, None]:
    """Each item with what `job` makes of it, or `Lost` when its process died or was stopped.

    The workers end with the generator: use `contextlib.closing` where an error must not leave them
    at work until it is collected.

    Args:
        job: a function of a module, or a partial of one; it may ask its time limit for more.
        items: made one by one when they are asked for, if there are many.
        workers: how many; 0 takes one for each core, of this machine or of the cluster.
        limits: what an item may take.
        executor: where the workers are: on this machine, or on a Ray cluster.
        progress: what is being done, for the bar on stderr; None shows no bar.
        note: says more beside the bar; called after the outcome of each item was used.

    Raises:
        OSError, VattError: raised by the job; the work ends.
        DataError: no process can be started.
    """
    if not items:
        return
    with ExitStack() as stack:
        made = _workers(stack, job, len(items), workers, limits or Limits(), executor)
        start, count = stack.enter_context(at_work(made)), len(made)
        shown = progress is not None
        bar = stack.enter_context(ProgressBar(progress or "", len(items), shown=shown))
        left = iter(items)
        begun = deque((item, start(item)) for item in islice(left, AHEAD * count))
        done = 0
        while begun:
            item, outcome = begun.popleft()
            yield item, outcome.result()
            done += 1
            bar.update(done, note())
            begun.extend((item, start(item)) for item in islice(left, 1))


def stream(
    job: Callable[[Item, TimeLimit], Generator[Any, None, Any]],
    items: Sequence[Item],
    *,
    workers: int = 0,
    limits: Limits | None = None,
    executor: Literal["processes", "ray"] = "processes",
) -> Generator[tuple[Item, Any], None, None]:
    """Each item with what `job` yields of it, and then with `Ended`; several items at once.

    What is not taken yet is a few pieces of each worker: then the workers wait. The arguments, the
    errors and the end are those of `run_in_order`.
    """
    if not items:
        return
    with ExitStack() as stack:
        made = _workers(stack, job, len(items), workers, limits or Limits(), executor)
        arrived = stack.enter_context(_arriving(made, items))
        serving = len(made)
        while serving:
            found = arrived.get()
            if isinstance(found, BaseException):
                raise found
            if found is None:
                serving -= 1
            else:
                yield found


@contextmanager
def _arriving(workers: Sequence[Worker], items: Sequence[Any]) -> Iterator[queue.Queue[Any]]:
    """A thread for each worker, which brings what it yields of items, and at its end None."""
    todo, ended = queue.SimpleQueue[Any](), threading.Event()
    arrived = queue.Queue[Any](maxsize=len(workers))
    for item in items:
        todo.put(item)

    def bring(what: Any) -> None:
        while not ended.is_set():
            with suppress(queue.Full):
                arrived.put(what, timeout=1.0)
                return

    def serve(worker: Worker) -> None:
        try:
            while not ended.is_set() and (item := _next(todo)):
                for piece in worker.stream(item[0]):
                    bring((item[0], piece))
            bring(None)
        except BaseException as error:  # raised where the pieces are taken
            bring(error)

    with _serving(serve, workers):
        try:
            yield arrived
        finally:
            ended.set()


@contextmanager
def _serving(serve: Callable[[Any], None], workers: Sequence[Worker]) -> Iterator[None]:
    """A thread for each worker while the context lasts, which ends both."""
    threads = [threading.Thread(target=serve, args=(one,), daemon=True) for one in workers]
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        for worker in workers:
            worker.end()
        for thread in threads:
            thread.join()


def _next(todo: queue.SimpleQueue[Any]) -> tuple[Any] | None:
    with suppress(queue.Empty):
        return (todo.get_nowait(),)
    return None


def _workers(
    stack: ExitStack,
    job: Callable[[Any, TimeLimit], Any],
    items: int,
    workers: int,
    limits: Limits,
    executor: str,
) -> list[Worker]:
    new_worker: Callable[[], Worker]
    if executor == "ray":
        new_worker, cores = stack.enter_context(ray_workers(job, limits))
    else:
        new_worker, cores = (lambda: WorkerProcess(job, limits)), num_cpus()
    return [new_worker() for _ in range(min(workers or cores, items))]


@contextmanager
def at_work(workers: Sequence[Worker]) -> Iterator[Callable[[Any], Future[Any]]]:
    """A thread for each worker, which waits for it; yields what has an item done by one of them.

    Items are begun in the order in which they are given; the workers end with the context.
    """
    todo: queue.SimpleQueue[tuple[Any, Future[Any]] | None] = queue.SimpleQueue()

    def start(item: Any) -> Future[Any]:
        outcome = Future[Any]()
        todo.put((item, outcome))
        return outcome

    def serve(worker: Worker) -> None:
        while task := todo.get():
            item, outcome = task
            try:
                outcome.set_result(worker.run(item))
            except BaseException as error:  # raised where the outcome is taken
                outcome.set_exception(error)

    with _serving(serve, workers):
        try:
            yield start
        finally:
            with suppress(queue.Empty):
                while True:
                    todo.get_nowait()
            for _ in workers:
                todo.put(None)
