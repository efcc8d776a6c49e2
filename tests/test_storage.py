"""What is promised of files and folders, whatever happens while they are written."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vatt import storage
from vatt.errors import DataError

ROOT = Path(__file__).parents[1]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_half(path: Path, error: BaseException) -> None:
    path.write_bytes(b"half")
    raise error


def test_a_file_is_replaced_by_all_of_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    storage.write_atomically(path, b"one")
    storage.write_atomically(path, "zwölf")
    assert path.read_bytes() == "zwölf".encode()
    assert names(tmp_path) == ["a.json"]


def test_an_error_leaves_the_file_as_it_was_and_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    storage.write_atomically(path, b"one")
    with pytest.raises(KeyboardInterrupt), storage.atomic_file(path) as aside:
        write_half(aside, KeyboardInterrupt())
    assert path.read_bytes() == b"one"
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("write", [storage.atomic_file, storage.atomic_folder])
def test_a_full_disk_is_said_with_the_name_of_what_was_to_be_written(tmp_path: Path, write) -> None:
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*/a\.json'"),
        write(tmp_path / "a.json"),
        Path("/dev/full").open("wb", buffering=0) as full,
    ):
        full.write(b"x")


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with storage.atomic_folder(tmp_path / "model") as aside:
            (aside / content).mkdir()
            (aside / content / "weights").write_text(content)
            assert not (tmp_path / "model" / "new").exists()
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["new"]


def test_what_a_killed_process_left_does_not_get_into_the_next_folder(tmp_path: Path) -> None:
    (tmp_path / ".model.part").mkdir()
    (tmp_path / ".model.part" / "half").touch()
    with storage.atomic_folder(tmp_path / "model") as aside:
        (aside / "weights").touch()
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["weights"]


@pytest.mark.parametrize("first_wins", [False, True])
def test_an_error_leaves_no_folder(tmp_path: Path, first_wins: bool) -> None:
    with (
        pytest.raises(OSError, match="no space"),
        storage.atomic_folder(tmp_path / "model", first_wins=first_wins) as aside,
    ):
        write_half(aside / "half", OSError("no space"))
    assert names(tmp_path) == []


def test_of_two_that_write_a_folder_at_once_the_first_one_stays(tmp_path: Path) -> None:
    with storage.atomic_folder(tmp_path / "cache", first_wins=True) as slow:
        (slow / "slow").touch()
        with storage.atomic_folder(tmp_path / "cache", first_wins=True) as fast:
            (fast / "fast").touch()
    assert names(tmp_path) == ["cache"]
    assert names(tmp_path / "cache") == ["fast"]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_content_is_on_the_disk_before_the_name_is(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power failure leaves an empty file under the final name."""
    path, flushed = tmp_path / "a", list[tuple[str, bool]]()
    monkeypatch.setattr(storage, "_flush", lambda one: flushed.append((one.name, path.exists())))
    if what == "file":
        storage.write_atomically(path, b"one")
        assert flushed == [("a.part", False), (tmp_path.name, True)]
    else:
        with storage.atomic_folder(path) as aside:
            (aside / "b").touch()
        assert flushed == [("b", False), (".a.part", False), (tmp_path.name, True)]


def test_a_process_killed_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    code = (
        "import itertools, sys; from pathlib import Path; from vatt.storage import *\n"
        "for number in itertools.count():\n"
        "    write_atomically(Path(sys.argv[1]), bytes([number % 256]) * 300_000)\n"
    )
    path = tmp_path / "a"
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT)
        before = path.stat().st_mtime_ns if path.exists() else 0
        while not path.exists() or path.stat().st_mtime_ns == before:
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        content = path.read_bytes()
        assert len(content) == 300_000
        assert len(set(content)) == 1


def test_the_hash_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 10**6)
    assert storage.sha256_of(tmp_path / "a") == hashlib.sha256(b"abc" * 10**6).hexdigest()


@pytest.mark.parametrize(
    ("found", "refused"), [("1.0", False), ("1.9", False), (1, False), ("2.0", True), ("10", True)]
)
def test_only_a_newer_major_version_is_refused(found: object, refused: bool) -> None:
    if refused:
        with pytest.raises(DataError, match=rf"^a: found format version {found}, expected 1\.1"):
            storage.refuse_newer(Path("a"), found, "1.1", DataError)
    else:
        storage.refuse_newer(Path("a"), found, "1.1", DataError)


@pytest.mark.parametrize("found", ["x", None, ""])
def test_what_is_no_version_is_told_apart_from_a_newer_one(found: object) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        storage.refuse_newer(Path("a"), found, "1.1", DataError)


def test_a_lock_keeps_others_out_and_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from vatt.storage import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(100)\n"
    )
    path = tmp_path / ".lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    for shared in (False, True):
        with pytest.raises(BlockingIOError), storage.locked(path, shared=shared):
            pass
    holder.kill()
    holder.communicate()
    with storage.locked(path):
        pass


def test_a_shared_lock_is_held_by_several_but_by_none_alone(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with (
        storage.locked(path, shared=True),
        storage.locked(path, shared=True),
        pytest.raises(BlockingIOError),
        storage.locked(path),
    ):
        pass
    with storage.locked(path):
        pass


def test_a_disk_without_locks_is_told_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with storage.locked(tmp_path / ".lock"):
        assert "cannot be locked (Operation not supported): start no second run" in caplog.text


def test_a_lock_ends_with_its_process_though_a_child_lives_on(tmp_path: Path) -> None:
    code = """
import os, sys, time
from pathlib import Path
from vatt.storage import locked
with locked(Path(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(60)
    os.write(1, str(os.getpid()).encode())
    os._exit(0)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True)
    assert process.wait(timeout=30) == 0
    try:
        with storage.locked(tmp_path / "lock"):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
