"""A rank that fails or is killed ends all ranks within 10 seconds, and is named once."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w

from tests.faults.failing_ranks import CASES
from vatt import config as configs
from vatt import presets

pytestmark = [pytest.mark.slow, pytest.mark.distributed]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ranks(tiny, tmp_path_factory):
    """Gives what became of the ranks of a case."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "run.toml").write_text(tomli_w.dumps(settings(tiny.shards)))
    script = [sys.executable, "-m", "tests.faults.failing_ranks"]
    process = subprocess.Popen(
        [*script, str(folder / "run.toml"), str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    asked, told = process.stdin, process.stdout
    assert asked
    assert told

    def ended(case):
        asked.write(f"{CASES.index(case)}\n")
        asked.flush()
        return json.loads(told.readline())

    with process:
        yield ended
        os.killpg(process.pid, signal.SIGKILL)


def settings(shards: Path) -> dict[str, object]:
    own = {
        "data": {"shards": [str(shards)]},
        "train": {"device": "cpu", "threads": 1, "autocast": "off"},
    }
    return configs.merge(presets.tiny(), own)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_all_ranks_end_soon_with_the_words_of_the_first_that_failed(ranks, case):
    _phase, how, victim = case
    found = ranks(case)
    other = 1 - victim
    code = {"raises": 1, "bug": 1, "killed": 1, "interrupted": 130}[how]
    assert found["codes"][victim] == (-signal.SIGKILL if how == "killed" else code)
    assert found["codes"][other] == code
    assert found["seconds"] < 10
    reason = {
        "raises": f"vatt: error: {'rank 1: ' * victim}the disk is gone; give another one",
        "bug": "RuntimeError: a mistake of ours",
        "killed": f"rank {victim} (on ",
        "interrupted": "interrupted; the same command continues" if victim == 0 else "rank 1 (on ",
    }[how]
    assert (found["said"][0] + found["said"][1]).count(reason) == 1
    tells = victim if how in ("raises", "bug") else other
    assert reason in found["said"][tells]
    assert "Traceback" not in found["said"][other]
    if case == ("vocabulary", "raises", 0):  # before its first step a run claims nothing
        assert found["left"] == [".lock"]
