"""Checkpoints are whole or absent, whatever happens while they are written."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from tests.training.toy import Toy
from vatt.training import checkpoint

ROOT = Path(__file__).parents[2]
SAVING = """
    import itertools, sys
    from pathlib import Path
    from tests.training.toy import Toy, batches
    from vatt.training import checkpoint

    folder = Path(sys.argv[1])
    toy = Toy(steps=10)
    for step, batch in enumerate(batches(0, 2)):
        toy.learner.objective(batch)["loss"].backward()
        toy.optimiser.step(step)
    assert "torch._dynamo" not in sys.modules, "an update imports torch's compiler, in 4 seconds"

    def save(step):
        state = checkpoint.TrainingState(step=step, facts={"step": step})
        checkpoint.save(folder, state, toy.optimiser, toy.learner.write_model)
"""


def start(code: str, folder: Path) -> subprocess.Popen[str]:
    program = textwrap.dedent(SAVING) + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def assert_all_whole(folder: Path) -> None:
    for path in checkpoint.all_saved(folder):
        toy = Toy(steps=10)
        toy.load(path)
        state = checkpoint.resume(folder / "none", path)
        toy.optimiser.load_state(state.optimiser)
        assert state.facts["step"] == state.step
        assert len(toy.optimiser.state()) == 12


def test_kill_while_saving_leaves_only_whole_checkpoints(tmp_path):
    process = start("for step in itertools.count(1): save(step)", tmp_path)
    try:
        while len(checkpoint.all_saved(tmp_path)) < 3:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.05))
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert_all_whole(tmp_path)


def test_full_disk_is_told_and_leaves_the_earlier_checkpoint(tmp_path):
    # The kernel refuses to let a file grow past the limit, as it does on a full disk.
    code = """
        import resource, signal
        save(1)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
        save(2)
    """
    process = start(code, tmp_path)
    error = process.communicate()[1]
    assert process.returncode == 1
    assert "CheckpointError" in error
    assert "step-000002: cannot be written" in error
    assert "MB free" in error
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    assert_all_whole(tmp_path)
