"""Workers on the machines of a Ray cluster.

Each is a Ray actor that keeps a worker process of its own: an item that crashes, hangs or fills
the memory is lost alone there, too. All machines must see sources and target under the same paths.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vatt.errors import MissingExtraError
from vatt.workers.process import DIED, Ended, Limits, Lost, TimeLimit, WorkerProcess

_AHEAD = 2  # pieces of an item that nobody has asked for yet


class RayWorker:
    """A worker process on some machine of the cluster; a lost one is replaced."""

    def __init__(self, ray: Any, job: Callable[[Any, TimeLimit], Any], limits: Limits) -> None:
        self._ray = ray
        actor_class = ray.remote(num_cpus=1)(WorkerProcess)
        self._new_actor: Callable[[], Any] = lambda: actor_class.remote(job, limits)
        self._actor = self._new_actor()
        self._ended = False

    def run(self, item: Any) -> Any:
        """What the job returns, or `Lost`; raises what a `WorkerProcess` does."""
        *_, ended = self.stream(item)
        return ended.outcome

    def stream(self, item: Any) -> Iterator[Any]:
        """As `WorkerProcess.stream`."""
        how = {"num_returns": "streaming", "_generator_backpressure_num_objects": _AHEAD}
        try:
            for piece in self._actor.stream.options(**how).remote(item):
                yield self._ray.get(piece)
        except self._ray.exceptions.RayActorError as error:
            if not self._ended:
                self._actor = self._new_actor()
            yield Ended(Lost(DIED, f"its Ray worker is gone: {error}".splitlines()[0]))
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error

    def end(self) -> None:
        """End it for good, also while another thread is in `run`."""
        self._ended = True
        self._ray.kill(self._actor)


@contextmanager
def ray_workers(
    job: Callable[[Any, TimeLimit], Any], limits: Limits
) -> Iterator[tuple[Callable[[], RayWorker], int]]:
    """Join the cluster that RAY_ADDRESS names, or start one on this machine while this lasts.

    Yields:
        What makes a worker, and how many cores the cluster has.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise MissingExtraError("ray", "ray", "--executor ray") from None
    ours = not ray.is_initialized()
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    try:
        yield lambda: RayWorker(ray, job, limits), int(ray.cluster_resources().get("CPU", 1))
    finally:
        if ours:
            ray.shutdown()
