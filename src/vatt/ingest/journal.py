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
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Stored:
    """What the folder holds: rows of all stored videos in the order of the shards; what not."""

    table: pa.Table
    skipped: Sequence[Skipped]

    def missing(self, items: Sequence[Item]) -> list[Item]:
        """Those of the items that are not stored."""
        keys = set(self.table["key"].to_pylist())
        return [item for item in items if keys.isdisjoint((item.key, item.part_key(0)))]


class Journal:
    """What is done in a folder: written down by this run, read together with what others did.

    label: what the files of this run have in their names: "-03of16", or nothing.
    """

    def __init__(self, folder: Path, share: Share | None) -> None:
        self._folder, self._share = folder, share
        self.label = f"-{share}" if share else ""

    @contextmanager
    def locked(self, *, alone: bool = False) -> Iterator[None]:
        """Keep other runs out of the folder; a task leaves room for the others, unless `alone`.

        Raises:
            BusyError: another one is at work there.
        """
        alone = alone or self._share is None
        with ExitStack() as stack:
            for name in (".lock",) if alone else (".lock", f".lock{self.label}"):
                try:
                    shared = name == ".lock" and not alone
                    stack.enter_context(storage.locked(self._folder / name, shared=shared))
                except BlockingIOError:
                    raise BusyError(
                        f"{self._folder}: another `vatt prepare` is at work there ({name} is "
                        "locked); wait until it has ended, or share the work by --task 1/2 and "
                        "--task 2/2"
                    ) from None
            yield

    def add_shard(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """A shard is finished and on the disk."""
        self._add({"shard": name, "rows": rows})

    def add_skipped(self, skipped: Skipped) -> None:
        """An item was skipped; a continued run does not try it again."""
        self._add({"failure": asdict(skipped)})

    def add_done(self) -> None:
        """All that this run had to do is done."""
        self._add({"done": True})

    def _add(self, line: Mapping[str, Any]) -> None:
        with self._path(self.label).open("ab") as file:
            file.write(b"\n" + json_bytes(line) + b"\n")  # first ends what a killed run began

    def stored(self) -> Stored:  # noqa: C901 one story
        """What the index, the journals and, for shards that these do not know, the shards say.

        Raises:
            DataError: a shard is damaged.
        """
        tables, skipped = dict[str, pa.Table](), dict[str, Skipped]()
        try:
            index = pq.read_table(self._folder / INDEX_FILE).select(WRITTEN_SCHEMA.names)
        except (OSError, KeyError, pa.ArrowException):
            pass  # absent, damaged or of an older version: the shards are read
        else:
            shards = pc.run_end_encode(index["shard"].combine_chunks())  # its rows lie together
            places = pairwise([0, *shards.run_ends.to_pylist()])
            for name, (start, end) in zip(shards.values.to_pylist(), places, strict=True):
                tables[name] = index.slice(start, end - start)
        journals = map(_lines, [self._path(""), *sorted(self._folder.glob("journal-*.jsonl"))])
        indexed = ({"failure": line} for line in _lines(self._folder / FAILURES_FILE))
        for line in chain(indexed, *journals):
            if "shard" in line:
                tables[line["shard"]] = index_table(line["rows"])
            elif "failure" in line:
                skipped[line["failure"]["source"]] = Skipped(**line["failure"])
        of_shards = []
        for path in shard_paths(self._folder):
            if (table := tables.get(path.name)) is not None:
                end = pc.max(pc.add(table["json_offset"], table["json_size"])).as_py()
                if path.stat().st_size < (end or 0):
                    table = None
            if table is None:
                table = index_table([row for _, row in read_shard(path)])
            of_shards.append(table)
        return Stored(pa.concat_tables([index_table([]), *of_shards]), list(skipped.values()))

    def unfinished(self) -> list[Share]:
        """The shares of this run's job that are not done, its own among them."""
        of = self._share.of if self._share else 0
        shares = [Share(number, of) for number in range(1, of + 1)]
        return [one for one in shares if not _is_done(self._path(f"-{one}"))]

    def forget(self) -> None:
        """Remove the journals: the index holds what they say. Only that a task is done stays."""
        self._path("").unlink(missing_ok=True)
        for path in self._folder.glob("journal-*.jsonl"):
            if _is_done(path):
                storage.write_atomically(path, json_bytes({"done": True}) + b"\n")

    def _path(self, label: str) -> Path:
        return self._folder / f"journal{label}.jsonl"


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a journal; one may be half written, as a killed run leaves it."""
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _is_done(path: Path) -> bool:
    last = deque(_lines(path), maxlen=1)
    return bool(last) and "done" in last[0]
