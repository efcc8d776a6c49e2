"""What `vatt prepare` has done so far in its folder, on disk, so that it can continue.

    journal.jsonl               while a run lasts: a line for each finished shard (its rows of the
                                index) and for each skipped item
    journal-03of16.jsonl        the same of one task among 16; its last line says when it is done
    .lock, .lock-03of16         held while a run, or a task, is at work

When all is done, the journals are merged into the index and removed. Without them nothing is lost:
shards that neither the index nor a journal knows are read.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vatt import storage
from vatt.errors import ConfigError, DataError
from vatt.ingest.sources import Item, Skipped
from vatt.shards.index import WRITTEN_SCHEMA, index_table
from vatt.shards.layout import FAILURES_FILE, INDEX_FILE, shard_paths
from vatt.shards.read import read_shard
from vatt.shards.record import json_bytes


class BusyError(DataError):
    """Another run is at work in the folder."""


@dataclass(frozen=True, slots=True)
class Share:
    """A task's share of the items of a folder, as of `--task 3/16`; `number` counts from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """Read "3/16".

        Raises:
            ConfigError: it is something else, or there is no such task.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        share = cls(*map(int, match.groups())) if match else None
        if share is None or not 1 <= share.number <= share.of:
            raise ConfigError(
                f'task: found {text!r}, expected for instance "3/16": task 3 of 16, counted from 1'
            )
        return share

    def __str__(self) -> str:
        return f"{self.number:0{len(str(self.of))}d}of{self.of}"

    def takes(self, item: Item) -> bool:
        """Whether an item belongs to it, whatever other items there are."""
        return int(item.digest, 16) % self.of == self.number - 1


def label(share: Share | None) -> str:
    """What the files of a task have in their names: "-03of16"; nothing for a run of its own."""
    return f"-{share}" if share else ""


@contextmanager
def locked(folder: Path, share: Share | None) -> Iterator[None]:
    """Keep other runs out of the folder; a task leaves room for the other tasks.

    Raises:
        BusyError: another one is at work there.
    """
    with ExitStack() as stack:
        for path in dict.fromkeys((folder / ".lock", folder / f".lock{label(share)}")):
            shared = share is not None and path.name == ".lock"
            try:
                stack.enter_context(storage.locked(path, shared=shared))
            except BlockingIOError:
                raise BusyError(
                    f"{folder}: another `vatt prepare` is at work there ({path.name} is locked); "
                    "wait until it has ended, or share the work by --task 1/2 and --task 2/2"
                ) from None
        yield


class Journal:
    """The journal of this run, open for appending."""

    def __init__(self, folder: Path, share: Share | None) -> None:
        self._file = _path(folder, share).open("ab")
        self._file.write(b"\n")  # ends a line that a killed run has not

    def add_shard(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """A shard is finished and on the disk."""
        self._add({"shard": name, "rows": rows})

    def add_skipped(self, skipped: Skipped) -> None:
        """An item was skipped; a continued run does not try it again."""
        self._add({"failure": asdict(skipped)})

    def add_done(self) -> None:
        """All that this task had to do is done."""
        self._add({"done": True})

    def _add(self, line: Mapping[str, Any]) -> None:
        self._file.write(json_bytes(line) + b"\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@dataclass(frozen=True, slots=True)
class Stored:
    """What the folder holds: rows of all stored videos in the order of the shards; what not."""

    table: pa.Table
    skipped: Sequence[Skipped]

    def missing(self, items: Sequence[Item]) -> list[Item]:
        """Those of the items that are not stored."""
        keys = set(self.table["key"].to_pylist())
        return [item for item in items if keys.isdisjoint((item.key, item.part_key(0)))]


def read_stored(folder: Path) -> Stored:  # noqa: C901 one story
    """What the index, the journals and, for shards that these do not know, the shards say.

    Raises:
        DataError: a shard is damaged.
    """
    tables, skipped = dict[str, pa.Table](), dict[str, Skipped]()
    try:
        index = pq.read_table(folder / INDEX_FILE).select(WRITTEN_SCHEMA.names)
    except (OSError, KeyError, pa.ArrowException):
        pass  # absent, damaged or of an older version: the shards are read
    else:
        shards = pc.run_end_encode(index["shard"].combine_chunks())  # its rows lie together
        places = pairwise([0, *shards.run_ends.to_pylist()])
        for name, (start, end) in zip(shards.values.to_pylist(), places, strict=True):
            tables[name] = index.slice(start, end - start)
    journals = map(_lines, [_path(folder, None), *sorted(folder.glob("journal-*.jsonl"))])
    indexed = ({"failure": line} for line in _lines(folder / FAILURES_FILE))
    for line in chain(indexed, *journals):
        if "shard" in line:
            tables[line["shard"]] = index_table(line["rows"])
        elif "failure" in line:
            skipped[line["failure"]["source"]] = Skipped(**line["failure"])
    of_shards = []
    for path in shard_paths(folder):
        if (table := tables.get(path.name)) is not None:
            end = pc.max(pc.add(table["json_offset"], table["json_size"])).as_py()
            if path.stat().st_size < (end or 0):
                table = None
        if table is None:
            table = index_table([row for _, row in read_shard(path)])
        of_shards.append(table)
    return Stored(pa.concat_tables([index_table([]), *of_shards]), list(skipped.values()))


def unfinished(folder: Path, share: Share) -> list[Share]:
    """The shares of the same job, this one among them, that are not done."""
    shares = [Share(number, share.of) for number in range(1, share.of + 1)]
    return [one for one in shares if not _is_done(_path(folder, one))]


def forget(folder: Path) -> None:
    """Remove the journals: the index holds what they say. Of a task's it stays that it is done."""
    _path(folder, None).unlink(missing_ok=True)
    for path in folder.glob("journal-*.jsonl"):
        if _is_done(path):
            storage.write_atomically(path, json_bytes({"done": True}) + b"\n")


def _path(folder: Path, share: Share | None) -> Path:
    return folder / f"journal{label(share)}.jsonl"


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a journal; the last one may be half written, as a killed run leaves it."""
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _is_done(path: Path) -> bool:
    last = deque(_lines(path), maxlen=1)
    return bool(last) and "done" in last[0]
