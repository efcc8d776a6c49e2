"""The same work on the machines of a Ray cluster.

Each Ray worker keeps one process of a `ProcessPool` and hands it its items: what crashes, hangs or
fills the memory costs an item there as it does here. All machines must see sources and target under
the same paths.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any, Self

from vatt.errors import MissingExtraError
from vatt.workers.pool import AHEAD, DIED, Limits, Lost, ProcessPool, in_order

_TICK_S = 1.0


class RayCrew:
    """Workers on a Ray cluster: the one that RAY_ADDRESS names, or one started on this machine."""

    def __init__(self, job: Callable[[Any], Any], *, workers: int, limits: Limits) -> None:
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError:
            raise MissingExtraError("ray", "ray", "--executor ray") from None
        self._ray = ray
        self._ours = not ray.is_initialized()
        ray.init(ignore_reinit_error=True, log_to_driver=False)
        workers = workers or int(ray.cluster_resources().get("CPU", 1))
        self.ahead = AHEAD * workers
        remote = ray.remote(num_cpus=1)(_Remote)
        self._hire: Callable[[], Any] = lambda: remote.remote(job, limits)
        self._idle = [self._hire() for _ in range(workers)]
        self._busy: dict[Any, tuple[int, Any]] = {}  # what is awaited → place, worker

    def has_idle(self) -> bool:
        """Whether a worker could take an item."""
        return bool(self._idle)

    def start(self, place: int, item: Any) -> None:
        """Give an item to an idle worker."""
        worker = self._idle.pop()
        self._busy[worker.run.remote(item)] = place, worker

    def finished(self) -> Iterator[tuple[int, Any]]:
        """Wait for outcomes, a second at most."""
        ready, _ = self._ray.wait(list(self._busy), timeout=_TICK_S)
        for one in ready:
            place, worker = self._busy.pop(one)
            try:
                outcome = self._ray.get(one)
            except self._ray.exceptions.RayActorError as error:
                outcome = Lost(DIED, f"its Ray worker is gone: {error}".splitlines()[0])
                worker = self._hire()
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from error
            self._idle.append(worker)
            yield place, outcome

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in (*self._idle, *(worker for _, worker in self._busy.values())):
            self._ray.kill(worker)
        if self._ours:
            self._ray.shutdown()


class _Remote:
    """What runs in a Ray worker."""

    def __init__(self, job: Callable[[Any], Any], limits: Limits) -> None:
        self._pool = ProcessPool(job, workers=1, limits=limits)

    def run(self, item: Any) -> Any:
        """The outcome of one item."""
        return next(in_order([item], self._pool))[1]
