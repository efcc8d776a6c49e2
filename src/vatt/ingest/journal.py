"""What `vatt prepare` has done so far, on disk: so that it can continue, in several tasks at once.

    journal.jsonl               while a run lasts: a line for each finished shard (its rows of the
                                index) and for each skipped item
    journal-03of16.jsonl        the same of one task among 16; its last line says when it is done
    .lock, .lock-03of16         held while a run, or a task, is at work

When all is done, the journals are merged into the index and removed. Without them nothing is lost:
shards that neither the index nor a journal knows are read.
"""

from __future__ import annotations

import fcntl
import json
import logging
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vatt.errors import ConfigError, DataError
from vatt.ingest.sources import Item, Skipped
from vatt.shards.index import WRITTEN_SCHEMA, index_table
from vatt.shards.layout import FAILURES_FILE, INDEX_FILE, shard_paths
from vatt.shards.read import read_shard
from vatt.shards.record import json_bytes
from vatt.storage import write_whole

_LOCK = ".lock"
_logger = logging.getLogger(__name__)


class BusyError(DataError):
    """Another run is at work in the folder."""


Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Task:
    """One of several runs that share the items of one folder; `number` counts from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Task:
        """Read "3/16".

        Raises:
            ConfigError: it is something else, or there is no such task.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        task = cls(*map(int, match.groups())) if match else None
        if task is None or not 1 <= task.number <= task.of:
            raise ConfigError(
                f'task: found {text!r}, expected for instance "3/16": task 3 of 16, counted from 1'
            )
        return task

    def __str__(self) -> str:
        return f"{self.number:0{len(str(self.of))}d}of{self.of}"

    def takes(self, item: Item) -> bool:
        """Whether an item is among this task's share, whatever else there is."""
        return int(item.digest, 16) % self.of == self.number - 1

    def all(self) -> list[Task]:
        """All tasks of the job."""
        return [Task(number, self.of) for number in range(1, self.of + 1)]


def label(task: Task | None) -> str:
    """What the files of a task have in their names: "-03of16"; nothing for a run of its own."""
    return f"-{task}" if task else ""


@contextmanager
def locked(folder: Path, task: Task | None) -> Iterator[None]:
    """Keep other runs out of the folder; a task leaves room for the other tasks.

    Raises:
        BusyError: another one is at work there.
    """
    with ExitStack() as stack:
        stack.enter_context(_lock(folder / _LOCK, alone=task is None))
        if task:
            stack.enter_context(_lock(folder / f"{_LOCK}{label(task)}", alone=True))
        yield


@contextmanager
def _lock(path: Path, *, alone: bool) -> Iterator[None]:
    with path.open("wb") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"{path.parent}: another `vatt prepare` is at work there ({path.name} is locked); "
                "wait until it has ended, or share the work by --task 1/2 and --task 2/2"
            ) from None
        except OSError as error:  # some network disks have no locks
            _logger.warning("%s: cannot be locked (%s): start no second run", path, error.strerror)
        yield


class Journal:
    """The journal of this run, open for appending."""

    def __init__(self, folder: Path, task: Task | None) -> None:
        self._file = _path(folder, task).open("ab")
        self._file.write(b"\n")  # ends a line that a killed run has not

    def shard(self, name: str, rows: Rows) -> None:
        """A shard is finished and on the disk."""
        self._add({"shard": name, "rows": rows})

    def failure(self, failure: Skipped) -> None:
        """An item was skipped; a continued run does not try it again."""
        self._add({"failure": asdict(failure)})

    def done(self) -> None:
        """All that this task had to do is done."""
        self._add({"done": True})

    def _add(self, line: Mapping[str, Any]) -> None:
        self._file.write(json_bytes(line) + b"\n")
        self._file.flush()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _path(folder: Path, task: Task | None) -> Path:
    return folder / f"journal{label(task)}.jsonl"


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a journal; the last one may be half written, as a killed run leaves it."""
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def unfinished(folder: Path, task: Task) -> list[Task]:
    """The tasks of this task's job that have not done their share."""
    return [one for one in task.all() if not _is_done(_path(folder, one))]


def _is_done(path: Path) -> bool:
    last = deque(_lines(path), maxlen=1)
    return bool(last) and "done" in last[0]


@dataclass(frozen=True, slots=True)
class State:
    """What is in the folder: rows of all stored videos in the order of the shards, and failures."""

    table: pa.Table
    failures: Sequence[Skipped]


def read_state(folder: Path) -> State:
    """What the index, the journals and, for shards that these do not know, the shards say.

    Raises:
        DataError: a shard is damaged.
    """
    tables, failures = _indexed(folder), dict[str, Skipped]()
    journals = [_path(folder, None), *sorted(folder.glob("journal-*.jsonl"))]
    for line in chain(_failure_lines(folder), *map(_lines, journals)):
        if "shard" in line:
            tables[line["shard"]] = index_table(line["rows"])
        elif "failure" in line:
            failure = Skipped(**line["failure"])
            failures[failure.source] = failure
    of_shards = []
    for path in shard_paths(folder):
        known = tables.get(path.name)
        if known is None or path.stat().st_size < _end(known):
            known = index_table([row for _, row in read_shard(path)])
        of_shards.append(known)
    return State(pa.concat_tables([index_table([]), *of_shards]), list(failures.values()))


def _indexed(folder: Path) -> dict[str, pa.Table]:
    """The rows of the index, by shard; those of a shard lie together in it."""
    try:
        table = pq.read_table(folder / INDEX_FILE).select(WRITTEN_SCHEMA.names)
    except (OSError, KeyError, pa.ArrowException):
        return {}  # absent, damaged or of an older version: the shards are read
    shards = pc.run_end_encode(table["shard"].combine_chunks())
    starts = [0, *shards.run_ends.to_pylist()]
    names = shards.values.to_pylist()
    return {
        name: table.slice(first, end - first)
        for name, first, end in zip(names, starts, starts[1:], strict=False)
    }


def _end(table: pa.Table) -> int:
    """Where the last record of a shard ends."""
    return int(pc.max(pc.add(table["json_offset"], table["json_size"])).as_py() or 0)


def _failure_lines(folder: Path) -> Iterator[dict[str, Any]]:
    return ({"failure": line} for line in _lines(folder / FAILURES_FILE))


def forget(folder: Path) -> None:
    """Remove the journals: the index holds what they say. Of a task's it stays that it is done."""
    _path(folder, None).unlink(missing_ok=True)
    for path in folder.glob("journal-*.jsonl"):
        if _is_done(path):
            write_whole(path, json_bytes({"done": True}) + b"\n")
