"""Run by test_saving.py: two ranks save checkpoints in parts without end, and are killed (SIGKILL).

Processes are forked from this one, as torch is imported once then. Takes a folder and a number of
kills, and prints a line of JSON for each: what was found, and whether a write was under way.
"""

import json
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

import torch

from vatt import distributed
from vatt.checkpoints import checkpoint, divided
from vatt.checkpoints.checkpoint import TrainingState
from vatt.checkpoints.saver import Saver
from vatt.tensor_files import read_tensors

assert divided  # imported once
SIZES = {"model": (600, 700), "optimiser": (50, 20_000)}


def save_without_end(folder: Path) -> None:
    """Each number of each checkpoint is its step."""
    with distributed.joined_ranks(torch.device("cpu")):
        saver = Saver(folder, 2, "auto")
        step = int(checkpoint.resume(folder).step)
        (folder / f"begun-{distributed.rank()}").touch()
        model, optimiser = (
            {f"{number}": torch.zeros(size) for number in range(6)} for size in SIZES.values()
        )
        while True:
            step += 1
            for tensor in (*model.values(), *optimiser.values()):
                tensor.fill_(step)
            saver.check()
            saver.save(TrainingState(step=step), model, optimiser, lambda *_, **__: None)


def killed(folder: Path, rng: random.Random) -> dict[str, object]:
    """Begin or go on, and kill both ranks, or one, which ends the other."""
    before = newest(folder)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    ranks = []
    for rank in range(2):
        (folder / f"begun-{rank}").unlink(missing_ok=True)
        ranks.append(os.fork())
        if ranks[-1] == 0:
            os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
            os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            save_without_end(folder)
    while not all((folder / f"begun-{rank}").exists() for rank in range(2)):
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 1.5))
    victims = rng.choice([ranks, ranks[:1], ranks[1:]])
    for one in victims:
        os.kill(one, signal.SIGKILL)
    writing = any(folder.glob(".step-*.part"))
    for _ in ranks:
        os.wait()
    after = newest(folder)
    assert after >= before, f"{after} after {before}"
    return {"newest": after, "writing": writing, "killed": len(victims)}


def newest(folder: Path) -> int:
    """The step of the newest checkpoint, in which all must be of that step."""
    saved = checkpoint.all_saved(folder)
    if not saved:
        return 0
    assert (problem := checkpoint.problem_of(saved[-1])) is None, problem
    state = checkpoint.read_state(saved[-1], of_this_run=True)
    model = read_tensors(saved[-1], "model")
    for tensors, size in ((model, SIZES["model"]), (state.optimiser, SIZES["optimiser"])):
        assert len(tensors) == 6
        assert all(t.shape == size and bool((t == state.step).all()) for t in tensors.values())
    return state.step


if __name__ == "__main__":
    torch.set_num_threads(1)
    where, chance = Path(sys.argv[1]), random.Random()
    for _ in range(int(sys.argv[2])):
        sys.stdout.write(json.dumps(killed(where, chance)) + "\n")
        sys.stdout.flush()
