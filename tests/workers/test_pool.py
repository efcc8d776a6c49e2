from __future__ import annotations

import ctypes
import os
import re
import signal
import time

import pytest

from vatt.errors import ConfigError
from vatt.workers.pool import Limits, Lost, ProcessPool, allow, in_order

LIMITS = Limits(seconds=1.0, gigabytes=1.0)


def act(word: str) -> str:
    """A job for the pool: some items end their process as a broken decoder does, or never end."""
    match word.split():
        case ["exit"]:
            os._exit(11)
        case ["crash"]:
            os.kill(os.getpid(), signal.SIGSEGV)
        case ["hang"]:
            ctypes.CDLL(None).sleep(3600)  # not in Python: no signal handler would run
        case ["grow"]:
            return str(len(bytearray(2 * 2**30)))
        case ["wait", seconds]:
            allow(float(seconds) * 10)
            time.sleep(float(seconds))
        case ["raise"]:
            raise ValueError("a mistake of ours")
        case ["refuse"]:
            raise ConfigError("nothing of this kind")
    return word


def outcomes(words: list[str], *, workers: int = 2) -> list[str | Lost]:
    with ProcessPool(act, workers=workers, limits=LIMITS) as pool:
        return [outcome for _, outcome in in_order(words, pool)]


def test_what_crashes_hangs_or_fills_the_memory_costs_only_itself_and_the_order_is_kept() -> None:
    found = outcomes(["a", "exit", "b", "hang", "grow", "crash", "c", "d"])
    assert found == [
        "a",
        Lost("crashed the decoder", "the process that decoded it died (exit code 11)"),
        "b",
        Lost("took too long", "stopped after 1 s"),
        Lost("took too much memory", "needs more than 1 GB of memory"),
        Lost("crashed the decoder", "the process that decoded it died (signal SIGSEGV)"),
        "c",
        "d",
    ]


def test_a_job_may_ask_for_more_time() -> None:
    assert outcomes(["wait 1.5"], workers=1) == ["wait 1.5"]  # 1 s is the limit else


def test_a_mistake_of_ours_costs_the_item_that_shows_it_and_says_where_it_is() -> None:
    first, lost, last = outcomes(["a", "raise", "b"])
    assert (first, last) == ("a", "b")
    assert isinstance(lost, Lost)
    assert lost.cause == "unforeseen error"
    assert re.fullmatch(r"ValueError: a mistake of ours \(test_pool\.py, line \d+\)", lost.reason)


def test_settings_that_cannot_be_end_the_work() -> None:
    with pytest.raises(ConfigError, match="nothing of this kind"):
        outcomes(["a", "refuse", "b"])


def test_a_slow_item_does_not_stop_the_others() -> None:
    """With one worker busy, the other goes on with all that follows."""
    started = time.monotonic()
    with ProcessPool(act, workers=2, limits=LIMITS) as pool:
        ready = in_order(["a", "wait 0.5"] + ["wait 0.05"] * 8, pool)
        next(ready)
        begun = time.monotonic()  # the processes are there
        list(ready)
    assert time.monotonic() - begun < 0.8  # 0.9 one after the other
    assert begun - started < 60
