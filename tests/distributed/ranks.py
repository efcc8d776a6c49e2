"""Start a module of the tests in several processes, as torchrun would; torch is imported once."""

import importlib
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_ranks(module: str, *arguments: str, world_size: int | tuple[int, ...]) -> None:
    """Run `main(arguments…)` of a module as ranks 0 … world_size - 1; all must end well.

    With several world sizes one after the other. If the module has a function `before_ranks`, all
    ranks begin with what it left in the memory of the process that they are copies of.
    """
    worlds = ",".join(map(str, (world_size,) if isinstance(world_size, int) else world_size))
    command = [sys.executable, "-m", "tests.distributed.ranks", module, worlds, *arguments]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        error = process.communicate(timeout=800)[1]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # ranks that wait for one that failed
    assert process.returncode == 0, error


def fork_ranks(main: Callable[..., None], world_size: int, arguments: list[str]) -> int:
    """How many of the ranks failed; they are forked before torch has any threads."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        os.environ |= {
            "WORLD_SIZE": str(world_size),
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": str(free.getsockname()[1]),
        }
    for rank in range(world_size):
        if os.fork() == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            try:
                main(*arguments)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
    return sum(os.wait()[1] != 0 for _ in range(world_size))


if __name__ == "__main__":
    ran, worlds, arguments = importlib.import_module(sys.argv[1]), sys.argv[2], sys.argv[3:]
    if hasattr(ran, "before_ranks"):
        ran.before_ranks(*arguments)
    sys.exit(sum(fork_ranks(ran.main, int(world), arguments) for world in worlds.split(",")))
