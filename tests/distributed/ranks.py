"""Start a module of the tests in several processes, as torchrun would; torch is imported once."""

import importlib
import os
import signal
import socket
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_ranks(module: str, *arguments: str, world_size: int) -> None:
    """Run `main(arguments…)` of a module as ranks 0 … world_size - 1; all must end well."""
    command = [sys.executable, "-m", "tests.distributed.ranks", module, str(world_size), *arguments]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        error = process.communicate(timeout=400)[1]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # ranks that wait for one that failed
    assert process.returncode == 0, error


def fork_ranks(module: str, world_size: int, arguments: list[str]) -> int:
    """How many of the ranks failed; they are forked before torch computes anything."""
    main = importlib.import_module(module).main
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
    sys.exit(fork_ranks(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
