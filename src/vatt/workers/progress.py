"""One pass over many items: a pool of processes with limits, and a progress bar."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vatt.workers.pool import Limits, ProcessPool, in_order

T = TypeVar("T")


def one_pass(
    job: Callable[[T], Any], items: Sequence[T], *, workers: int, says: str
) -> Iterator[tuple[T, Any]]:
    """Each item with what `job` makes of it, or `Lost` when its process died, in order.

    Args:
        job: a function of a module, or a partial of one; it never returns None.
        items: made one by one when they are asked for, if there are many.
        workers: processes; 0 takes one per core.
        says: what is done, for the progress bar.
    """
    if not items:
        return
    count = min(workers or len(os.sched_getaffinity(0)), len(items))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with (
        Progress(*columns, console=Console(stderr=True)) as progress,
        ProcessPool(job, workers=count, limits=Limits()) as pool,
    ):
        yield from progress.track(in_order(items, pool), total=len(items), description=says)
