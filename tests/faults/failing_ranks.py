"""Run by test_ranks.py: `vatt pretrain` on two ranks, one of which fails or is killed at a phase.

Processes are forked from this one, as torch is imported once then. Takes numbers of cases on stdin,
and prints a line of JSON for each: exit code, stderr and lifetime after the failure of each rank.
"""

import functools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from vatt.checkpoints.saver import Saver
from vatt.cli.main import main as vatt
from vatt.data.datasets import ClipDataset
from vatt.data.loader import Loader
from vatt.errors import DataError
from vatt.shards.read import ShardFolder
from vatt.tasks import pretrain
from vatt.training.loop import Learner

CASES = [
    # phase, what happens, to which rank
    ("vocabulary", "raises", 0),
    ("vocabulary", "killed", 1),
    ("batch", "raises", 1),
    ("step", "bug", 1),
    ("step", "killed", 0),
    ("step", "killed", 1),
    ("step", "interrupted", 1),
    ("stuck", "raises", 1),
    ("stuck", "killed", 0),
    ("save", "killed", 0),
    ("facts", "raises", 1),
    ("validate", "raises", 1),
]
PLACES: dict[str, tuple[Any, str]] = {
    "vocabulary": (ShardFolder, "read_record"),
    "batch": (ClipDataset, "batch"),
    "step": (pretrain, "objective"),
    "stuck": (pretrain, "objective"),
    "save": (Saver, "save"),
    "facts": (Loader, "failures"),
    "validate": (pretrain, "Learner"),
}


def fail(how: str, when: Path) -> None:
    when.write_text(str(time.time()))
    if how == "raises":
        raise DataError("the disk is gone; give another one")
    if how == "bug":
        raise RuntimeError("a mistake of ours")
    if how == "interrupted":
        raise KeyboardInterrupt
    os.kill(os.getpid(), signal.SIGKILL)


def failing(real: Callable[..., Any], how: str, when: Path, stuck: bool) -> Callable[..., Any]:
    """Fails at its third call; where another rank fails, it waits for ever then."""
    calls = 0

    @functools.wraps(real)
    def called(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3 and stuck:
            time.sleep(1000)
        if calls == 3 or real.__name__ in ("save", "failures"):
            fail(how, when)
        return real(*args, **kwargs)

    return called


def run_rank(phase: str, how: str, victim: int, settings: str, out: Path) -> None:
    place, name = PLACES[phase]
    fails = int(os.environ["RANK"]) == victim
    real = getattr(place, name)
    stand_in: Any = real
    if phase == "validate":

        def validate(_: int) -> dict[str, float]:
            if fails:
                fail(how, out / "when")
            return {}

        def stand_in(**given: Any) -> Learner[Any]:
            return Learner(**given | {"validate": validate, "validate_every": 3})

    elif fails or phase == "stuck":
        stand_in = failing(real, how, out / "when", stuck=not fails)
    with mock.patch.object(place, name, stand_in):
        workers = "0" if phase == "batch" else "1"
        run = ["pretrain", "--config", settings, "--out", str(out / "run")]
        try:
            sys.exit(vatt([*run, "--data.workers", workers]))
        finally:  # what follows is Python's own end, a second of computing
            if fails:
                (out / "told").write_text(str(time.time()))


def case(phase: str, how: str, victim: int, settings: str, out: Path) -> dict[str, Any]:
    out.mkdir()
    with socket.socket() as free:
        free.bind(("localhost", 0))
        meet = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    ranks = {}
    for rank in range(2):
        pid = os.fork()
        if pid == 0:
            os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)} | meet
            os.dup2(os.open(out / f"{rank}.txt", os.O_CREAT | os.O_WRONLY), 2)
            sys.stderr = os.fdopen(2, "w")
            run_rank(phase, how, victim, settings, out)
        ranks[pid] = rank
    ended: dict[int, tuple[int, float]] = {}
    for _ in range(2):
        pid, status = os.wait()
        ended[ranks[pid]] = os.waitstatus_to_exitcode(status), time.time()
    times = [ended[rank][1] for rank in range(2)]
    if (out / "told").exists():
        times[victim] = float((out / "told").read_text())
    return {
        "codes": [ended[rank][0] for rank in range(2)],
        "seconds": max(times) - float((out / "when").read_text()),
        "said": [(out / f"{rank}.txt").read_text() for rank in range(2)],
        "left": sorted(path.name for path in (out / "run").iterdir()),
    }


if __name__ == "__main__":
    for number in map(int, sys.stdin):  # as they are asked for
        found = case(*CASES[number], sys.argv[1], Path(sys.argv[2]) / str(number))
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
