"""What `vatt prepare` has done so far in its folder, on disk, so that it can continue.

    journal.jsonl               while a run lasts: a line for each finished shard (its rows of the
                                index) and for each skipped item, with what their sources were
    journal-03of16.jsonl        the same of one task among 16; its last line says when it is done
    sources.jsonl               what each source was when it was stored or skipped
    .lock, .lock-03of16         held while a run, or a task, is at work

When all is done, the journals are merged into the index and sources.jsonl, and removed. Without
them nothing is lost: shards that neither the index nor a journal knows are read.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vatt import storage
from vatt.errors import ConfigError, DataError
from vatt.ingest.changes import SourceState
from vatt.ingest.sources import Item, Skipped
from vatt.shards.index import ALL_COLUMNS, index_table
from vatt.shards.layout import FAILURES_FILE, INDEX_FILE, SOURCES_FILE, shard_paths
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
    """What the folder holds: rows of all stored videos in the order of the shards; what not.

    states: name → what a source was when it was stored or skipped.
    outdated: shard → keys of videos in it that do not count: their sources have changed since.
    """

    table: pa.Table
    skipped: Sequence[Skipped]
    states: Mapping[str, SourceState] = field(default_factory=dict)
    outdated: Mapping[str, set[str]] = field(default_factory=dict)

    def rows_of_sources(self) -> Mapping[str, Sequence[int]]:
        """Key of an item → the rows of its video, or of its parts."""
        rows = defaultdict[str, list[int]](list)
        keys, parts = (self.table[name].to_pylist() for name in ("key", "parts"))
        for row, (key, count) in enumerate(zip(keys, parts, strict=True)):
            rows[key.rpartition("-p")[0] if count > 1 else key].append(row)
        return rows

    def without(self, outdated: Mapping[str, Sequence[str]]) -> Stored:
        """The same but for these videos, which are outdated; shard → keys."""
        both = {name: {*self.outdated.get(name, ()), *keys} for name, keys in outdated.items()}
        table = _without_keys(self.table, set(chain.from_iterable(outdated.values())))
        return replace(self, table=table, outdated={**self.outdated, **both})

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

    def add_shard(
        self,
        name: str,
        rows: Sequence[Mapping[str, Any]],
        states: Mapping[str, SourceState] | None = None,
    ) -> None:
        """A shard is finished and on the disk; `states` of its sources, by name."""
        self._add({"shard": name, "rows": rows}, states)

    def add_skipped(self, skipped: Skipped, state: SourceState | None = None) -> None:
        """An item was skipped; a continued run does not try it again while it is as it was."""
        self._add({"failure": asdict(skipped)}, {skipped.source: state} if state else None)

    def add_known(
        self, states: Mapping[str, SourceState], outdated: Mapping[str, Sequence[str]]
    ) -> None:
        """What this run found before it began.

        Args:
            states: name → what sources are that need no work.
            outdated: shard → keys of videos whose sources have changed; they are prepared again.
        """
        if states or outdated:
            self._add({"outdated": outdated}, states)

    def add_rewriting(self, name: str) -> None:
        """A shard is about to be replaced, or removed: where its videos lie is to be read anew."""
        self._add({"rewriting": name})

    def add_done(self) -> None:
        """All that this run had to do is done."""
        self._add({"done": True})

    def _add(
        self, line: Mapping[str, Any], states: Mapping[str, SourceState] | None = None
    ) -> None:
        if states:
            values = {name: state.to_values() for name, state in states.items()}
            line = {**line, "sources": values}
        with self._path(self.label).open("ab") as file:
            file.write(b"\n" + json_bytes(line) + b"\n")  # first ends what a killed run began

    def stored(self) -> Stored:  # noqa: C901 one story
        """What the index, the journals and, for shards that these do not know, the shards say.

        Raises:
            DataError: a shard is damaged.
        """
        tables, skipped = dict[str, pa.Table](), dict[str, Skipped]()
        states, outdated = dict[str, SourceState](), dict[str, set[str]]()
        try:
            index = pq.read_table(self._folder / INDEX_FILE).select(ALL_COLUMNS.names)
        except (OSError, KeyError, pa.ArrowException):
            pass  # absent, damaged or of an older version: the shards are read
        else:
            shards = pc.run_end_encode(index["shard"].combine_chunks())  # its rows lie together
            places = pairwise([0, *shards.run_ends.to_pylist()])
            for name, (start, end) in zip(shards.values.to_pylist(), places, strict=True):
                tables[name] = index.slice(start, end - start)
        journals = map(_lines, [self._path(""), *sorted(self._folder.glob("journal-*.jsonl"))])
        indexed = ({"failure": line} for line in _lines(self._folder / FAILURES_FILE))
        for line in chain(indexed, _lines(self._folder / SOURCES_FILE), *journals):
            for name, values in line.get("sources", {}).items():
                states[name] = SourceState.from_values(values)
            for name, keys in line.get("outdated", {}).items():
                outdated.setdefault(name, set()).update(keys)
            if "rewriting" in line:
                tables.pop(line["rewriting"], None)
            elif "shard" in line:
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
            of_shards.append(_without_keys(table, outdated.get(path.name, set())))
        table = pa.concat_tables([index_table([]), *of_shards])
        return Stored(table, list(skipped.values()), states, outdated)

    def unfinished(self) -> list[Share]:
        """The shares of this run's job that are not done, its own among them."""
        of = self._share.of if self._share else 0
        shares = [Share(number, of) for number in range(1, of + 1)]
        return [one for one in shares if not _is_done(self._path(f"-{one}"))]

    def save_states(self, states: Mapping[str, SourceState]) -> None:
        """Name → what each source was when it was stored or skipped, for later runs."""
        lines = ({"sources": {name: state.to_values()}} for name, state in states.items())
        content = b"".join(json_bytes(line) + b"\n" for line in lines)
        storage.write_atomically(self._folder / SOURCES_FILE, content)

    def forget(self) -> None:
        """Remove the journals: the index holds what they say. Only that a task is done stays."""
        self._path("").unlink(missing_ok=True)
        for path in self._folder.glob("journal-*.jsonl"):
            if _is_done(path):
                storage.write_atomically(path, json_bytes({"done": True}) + b"\n")

    def _path(self, label: str) -> Path:
        return self._folder / f"journal{label}.jsonl"


def _without_keys(table: pa.Table, keys: Collection[str]) -> pa.Table:
    if not keys:
        return table
    return table.filter(pc.invert(pc.is_in(table["key"], value_set=pa.array(keys, pa.string()))))


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
