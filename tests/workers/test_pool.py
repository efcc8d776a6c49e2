from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from vatt.errors import ConfigError, MissingExtraError
from vatt.workers.pool import AHEAD, run_in_order, stream
from vatt.workers.process import Ended, Limits, Lost, TimeLimit, WorkerProcess

LIMITS = Limits(seconds=1.0, gigabytes=1.0)


def act(word: str, time_limit: TimeLimit) -> str:
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
            time_limit.allow(float(seconds) * 10)
            time.sleep(float(seconds))
        case ["raise"]:
            raise ValueError("a mistake of ours")
        case ["extra"]:
            raise MissingExtraError("pocketsphinx", "asr", "--asr pocketsphinx")
        case ["refuse"]:
            raise ConfigError("nothing of this kind")
    return word


def outcomes(words: list[str], *, workers: int = 2) -> list[str | Lost]:
    done = list(run_in_order(act, words, workers=workers, limits=LIMITS))
    assert [word for word, _ in done] == words
    return [outcome for _, outcome in done]


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


def test_an_absent_package_is_named_as_it_is_without_workers() -> None:
    with pytest.raises(MissingExtraError, match=r"^--asr pocketsphinx needs .*vatt\[asr\]"):
        outcomes(["extra"])


def test_a_slow_item_does_not_stop_the_others() -> None:
    """With one worker busy, the other goes on with all that follows."""
    started = time.monotonic()
    words = ["a", "b", "wait 0.5"] + ["wait 0.05"] * 8
    ready = run_in_order(act, words, workers=2, limits=LIMITS)
    next(ready)
    begun = time.monotonic()  # the processes are there
    list(ready)
    assert time.monotonic() - begun < 0.8  # 0.9 one after the other
    assert begun - started < 60


def test_a_generator_that_is_closed_ends_its_workers_at_once() -> None:
    """Also one in the middle of an item, and what is not begun is never done."""
    outcomes = run_in_order(pid_or_hang, ["pid"] + ["hang"] * 40, workers=2, limits=Limits())
    _, pid = next(outcomes)
    started = time.monotonic()
    outcomes.close()
    assert time.monotonic() - started < 10  # the limit of one item is 60 s
    assert isinstance(pid, int)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def pid_or_hang(word: str, time_limit: TimeLimit) -> int | str:
    return os.getpid() if word == "pid" else act(word, time_limit)


def noted_pid(note: Path, _: TimeLimit) -> int:
    with note.open("a") as file:
        file.write("done\n")
    return os.getpid()


def blocked(_: str, __: TimeLimit) -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_ctrl_c_is_not_for_workers_from_their_first_moment_on(monkeypatch: Any) -> None:
    """Also not for what starts them, which would take long imports for it; ours stays as it is."""
    assert [found for _, found in run_in_order(blocked, [""], workers=1)] == [True]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    worker = WorkerProcess(act, LIMITS)
    context = worker._context.Process

    def broken(*args: Any, **named: Any) -> Any:
        process = context(*args, **named)
        monkeypatch.setattr(process, "start", lambda: (_ for _ in ()).throw(EOFError()))
        return process

    monkeypatch.setattr(worker._context, "Process", broken)
    with pytest.raises(EOFError):
        worker.run("a")
    worker.end()  # what was never begun need not be ended


def test_a_process_killed_between_two_items_costs_none(tmp_path: Path) -> None:
    note = tmp_path / "note"
    outcomes = run_in_order(noted_pid, [note] * 40, workers=1, limits=Limits())
    _, first = next(outcomes)
    while note.read_text().count("done") < AHEAD:  # what the worker may do ahead
        time.sleep(0.05)
    time.sleep(0.5)  # the last outcome is on its way
    assert isinstance(first, int)
    os.kill(first, signal.SIGKILL)
    time.sleep(0.5)  # until it is gone
    pids = [pid for _, pid in outcomes]
    assert not any(isinstance(pid, Lost) for pid in pids)
    assert len(set(pids)) == 2


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds the process in /proc")
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """Also one that hangs in a library and never looks at its pipe."""
    code = (
        "from pathlib import Path; import sys\n"
        "from tests.workers.test_pool import LIMITS, note_and_hang\n"
        "from vatt.workers.pool import AHEAD, run_in_order, stream\n"
        "if __name__ == '__main__':\n"
        "    list(run_in_order(note_and_hang, [Path(sys.argv[1])]))\n"
    )
    noted = tmp_path / "pid"
    command = [sys.executable, "-c", code, str(noted)]
    parent = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    while not noted.exists():
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{noted.read_text()}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def note_and_hang(path: Path, time_limit: TimeLimit) -> str:
    path.with_suffix(".part").write_text(str(os.getpid()))
    path.with_suffix(".part").replace(path)
    return act("hang", time_limit)


def test_the_note_is_asked_after_each_item_was_used() -> None:
    used: list[str] = []
    notes: list[int] = []

    def note() -> str:
        notes.append(len(used))
        return f"{len(used)} used"

    for word, _ in run_in_order(act, ["a", "b"], workers=1, progress="words", note=note):
        used.append(word)
    assert notes == [1, 2]


def count(word: str, time_limit: TimeLimit) -> Generator[tuple[int, bytes], None, str]:
    """A job that gives pieces of 1 MB; "crash 3" ends its process after three."""
    kind, number = word.split()
    for piece in range(int(number)):
        yield piece, b"0" * 2**20
    return act(kind, time_limit)


def test_pieces_of_an_item_come_in_order_and_what_ends_a_process_loses_only_its_item() -> None:
    words = ["a 40", "crash 3", "b 0", "hang 1", "c 5"]
    found: dict[str, list[Any]] = {word: [] for word in words}
    for word, piece in stream(count, words, workers=2, limits=LIMITS):
        found[word].append(piece.outcome if isinstance(piece, Ended) else piece[0])
    assert found["a 40"] == [*range(40), "a"]
    assert (found["b 0"], found["c 5"]) == (["b"], [*range(5), "c"])
    assert found["crash 3"][:3] == [0, 1, 2]
    assert [found[word][-1].cause for word in ("crash 3", "hang 1")] == [
        "crashed the decoder",
        "took too long",
    ]


def test_a_worker_waits_for_who_takes_its_pieces_and_ends_with_them() -> None:
    with closing(stream(count, ["a 1000000"], workers=1, limits=LIMITS)) as pieces:
        assert next(pieces)[1][0] == 0
        time.sleep(1.2)  # longer than an item may take: to wait is no fault of it
        assert next(pieces)[1][0] == 1
