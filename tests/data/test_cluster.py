"""The same work on a Ray cluster; a real one, started on this machine."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.data.test_pool import act
from tests.media.clips import Recipe, write
from vatt.data.cluster import RayCrew
from vatt.data.pool import Limits, Lost, in_order
from vatt.tasks.prepare import PrepareConfig, PrepareResult, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra 'ray'"),
    pytest.mark.filterwarnings("default"),  # Ray's own
]


def test_what_crashes_or_hangs_costs_only_itself_there_too() -> None:
    words = ["a", "exit", "hang", "b", "grow", "c"]
    with RayCrew(act, workers=2, limits=Limits(seconds=1.0, gigabytes=1.0)) as crew:
        found = [outcome for _, outcome in in_order(words, crew)]
    assert found == [
        "a",
        Lost("crashed the decoder", "the process that decoded it died (exit code 11)"),
        Lost("took too long", "stopped after 1 s"),
        "b",
        Lost("took too much memory", "needs more than 1 GB of memory"),
        "c",
    ]


def test_a_cluster_writes_the_same_bytes_as_this_machine(tmp_path: Path) -> None:
    source = tmp_path / "videos"
    source.mkdir()
    for number in range(4):
        write(source / f"{number}.mkv", Recipe(frames=20 + number))
    (source / "bad.mp4").write_bytes(b"half a download")
    written = []
    for executor in ("processes", "ray"):
        out = tmp_path / executor
        settings = PrepareConfig(
            src=(source,), out=out, workers=2, executor=executor, max_bad_fraction=0.5
        )
        result = run(settings)
        assert isinstance(result, PrepareResult)
        assert (result.videos, result.skipped) == (4, {"unreadable": 1})
        written.append([path.read_bytes() for path in sorted(out.glob("*.tar"))])
    assert written[0] == written[1]
