"""The same work on a Ray cluster; a real one, started on this machine."""

from __future__ import annotations

import importlib.util

import pytest

from tests.workers.test_pool import act
from vatt.workers.pool import run_in_order
from vatt.workers.process import Limits, Lost

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra 'ray'"),
    pytest.mark.filterwarnings("default"),  # Ray's own
]


def test_what_crashes_or_hangs_costs_only_itself_there_too() -> None:
    words = ["a", "exit", "hang", "b", "grow", "c"]
    limits = Limits(seconds=1.0, gigabytes=1.0)
    found = [
        outcome for _, outcome in run_in_order(act, words, workers=2, limits=limits, executor="ray")
    ]
    assert found == [
        "a",
        Lost("crashed the decoder", "the process that decoded it died (exit code 11)"),
        Lost("took too long", "stopped after 1 s"),
        "b",
        Lost("took too much memory", "needs more than 1 GB of memory"),
        "c",
    ]
