"""Files and folders written atomically, format versions, hashes, locks."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from vatt.errors import VattError

logger = logging.getLogger(__name__)


def write_atomically(path: Path, content: bytes | str, *, first_wins: bool = False) -> None:
    """Write a file that appears complete or not at all; a text is written as UTF-8."""
    with atomic_file(path, first_wins=first_wins) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_file(path: Path, *, first_wins: bool = False) -> Iterator[Path]:
    """Where to write a file that becomes `path` when the context ends without an error.

    It is flushed to the disk and renamed. After an error nothing is left, and what `path` was
    before stays; what a killed process left is overwritten by the next one.

    Args:
        path: its name then.
        first_wins: several processes may write the same file at once; the first one's stays.
    """
    own = f"-{secrets.token_hex(8)}" if first_wins else ""
    aside = path.with_name(f"{path.name}{own}.part")
    try:
        with _of(path):
            yield aside
            _flush(aside)
        if not (first_wins and _linked(aside, path)):
            aside.replace(path)
        _flush(path.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _of(path: Path) -> Iterator[None]:
    """Errors of a full or broken disk say which file; what writes to an open one does not know."""
    try:
        yield
    except OSError as error:
        full_or_broken = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
        if error.filename is None and error.errno in full_or_broken:
            error.filename = str(path)
        raise


def put_in_place(part: Path, path: Path) -> None:
    """Give a file that was written piece by piece its name, once it is on the disk."""
    _flush(part)
    part.replace(path)
    _flush(path.parent)


def _linked(aside: Path, path: Path) -> bool:
    """Give a file a second name unless another file has it; False on a disk without hard links."""
    try:
        os.link(aside, path)
    except FileExistsError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def atomic_folder(path: Path, *, first_wins: bool = False) -> Iterator[Path]:
    """A new folder to write in that becomes `path` when the context ends without an error.

    All that is in it is flushed to the disk before it is renamed. After an error nothing is left.

    Args:
        path: its name then; a folder that has this name is replaced.
        first_wins: several processes may write the same folder at once; the first one's stays.
    """
    own = f"-{secrets.token_hex(8)}" if first_wins else ""
    aside = path.with_name(f".{path.name}{own}.part")
    shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed while it wrote
    try:
        aside.mkdir(parents=True)
        with _of(path):
            yield aside
            for one in [*aside.rglob("*"), aside]:
                _flush(one)
        if path.exists() and not first_wins:
            shutil.rmtree(path)
        try:
            aside.rename(path)
        except OSError:
            if not (first_wins and path.is_dir()):
                raise
            shutil.rmtree(aside)
        _flush(path.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def set_aside(path: Path, suffix: str) -> Path:
    """Rename a folder to `<name>.<suffix>`, in place of what has that name; returns it."""
    aside = path.with_name(f"{path.name}.{suffix}")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    _flush(path.parent)
    return aside


def flush(file: BinaryIO) -> None:
    """Let all that was written to an open file be on the disk, not only with the system."""
    file.flush()
    os.fsync(file.fileno())


def _flush(path: Path) -> None:
    """As `flush`; of a folder: the names in it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal.

    Raises:
        OSError: it cannot be read; the error says which file.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_newer(path: Path, found: Any, newest: str, error: type[VattError]) -> None:
    """Raise `error` when a file's format version has a higher major number than `newest`.

    Raises:
        ValueError: it is no version.
    """
    if int(str(found).split(".")[0]) > int(newest.split(".")[0]):
        raise error(
            f"{path}: found format version {found}, expected {newest} or older; it was written by "
            "a newer vatt: upgrade to use it"
        )


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock on a file while the context lasts; it also ends with the process.

    On a disk that has no locks, as some network disks, a warning is all.

    Args:
        path: the file, made if absent; it is never removed, or two could hold the lock.
        shared: several may hold the lock at once, but none who wants it alone.

    Raises:
        BlockingIOError: another process holds it.
    """
    with path.open("ab") as file:
        os.register_at_fork(after_in_child=file.close)  # or a child that outlives us would hold it
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as error:
            logger.warning("%s: cannot be locked (%s): start no second run", path, error.strerror)
        yield
