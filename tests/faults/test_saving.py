"""Checkpoints are whole or absent, whatever happens while they are written."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.training.toy import Toy
from vatt.checkpoints import checkpoint

ROOT = Path(__file__).parents[2]
SAVING = """
    import itertools, os, resource, signal, sys
    from pathlib import Path
    from tests.training.toy import Toy, batches
    from vatt.checkpoints import checkpoint

    toy = Toy(steps=10)
    for step, batch in enumerate(batches(0, 2)):
        toy.learner.objective(batch)["loss"].backward()
        toy.optimiser.step(step)
    assert "torch._dynamo" not in sys.modules, "an update imports torch's compiler, in 4 seconds"

    def save(folder, step):
        state = checkpoint.TrainingState(step=step, facts={"step": step})
        checkpoint.save(Path(folder), state, toy.optimiser.state(), toy.learner.write_model)

    if os.fork() == 0:
        # The kernel refuses to let a file grow past the limit, as it does on a full disk.
        save("full", 1)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
        save("full", 2)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 1
    for step in itertools.count(1):
        save("killed", step)
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with what two processes left, one on a full disk and one killed; their errors."""
    folder = tmp_path_factory.mktemp("saved")
    (folder / "full").mkdir()
    (folder / "killed").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SAVING)],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
    )
    try:
        while len(checkpoint.all_saved(folder / "killed")) < 3:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.05))
    finally:
        process.send_signal(signal.SIGKILL)
        errors = process.communicate()[1]
    return folder, errors


def assert_all_whole(folder: Path) -> None:
    for path in checkpoint.all_saved(folder):
        toy = Toy(steps=10)
        toy.load(path)
        state = checkpoint.resume(folder / "none", path)
        toy.optimiser.load_state(state.optimiser)
        assert state.facts["step"] == state.step
        assert len(toy.optimiser.state()) == 12


def test_kill_while_saving_leaves_only_whole_checkpoints(saved: tuple[Path, str]) -> None:
    folder, _ = saved
    assert len(checkpoint.all_saved(folder / "killed")) >= 3
    assert_all_whole(folder / "killed")


def test_full_disk_is_told_and_leaves_the_earlier_checkpoint(saved: tuple[Path, str]) -> None:
    folder, error = saved
    assert "CheckpointError" in error
    assert "step-000002: cannot be written" in error
    assert "MB free" in error
    assert [path.name for path in (folder / "full").iterdir()] == ["step-000001"]
    assert_all_whole(folder / "full")


@pytest.mark.slow  # about 4 seconds a kill; 50 were tried by hand
@pytest.mark.distributed
def test_kill_while_two_ranks_save_in_the_background_leaves_a_whole_newest(tmp_path: Path) -> None:
    script = [sys.executable, "-m", "tests.faults.killed_savers", str(tmp_path), "8"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.run(script, cwd=ROOT, env=env, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    found = [json.loads(line) for line in process.stdout.splitlines()]
    assert found[-1]["newest"] > 0
    assert any(one["writing"] for one in found)
