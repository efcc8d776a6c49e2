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
    limits = limits or Limits()
    with ExitStack() as stack:
        new_worker: Callable[[], Worker]
        if executor == "ray":
            new_worker, cores = stack.enter_context(ray_workers(job, limits))
        else:
            new_worker, cores = (lambda: WorkerProcess(job, limits)), num_cpus()
        count = min(workers or cores, len(items))
        start = stack.enter_context(at_work([new_worker() for _ in range(count)]))
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

    threads = [threading.Thread(target=serve, args=(one,), daemon=True) for one in workers]
    try:
        for thread in threads:
            thread.start()
        yield start
    finally:
        with suppress(queue.Empty):
            while True:
                todo.get_nowait()
        for worker in workers:
            todo.put(None)
            worker.end()
        for thread in threads:
            thread.join()
