"""What one run of `vatt prepare` has to do in its folder, does, and did."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from vatt.ingest.item import Making, Prepared, look_at, prepare_item
from vatt.ingest.journal import Journal, State, Task, forget, label, read_state
from vatt.ingest.sources import Found, Item, Skipped, without_duplicates
from vatt.shards.layout import shard_paths
from vatt.shards.write import ShardWriter, write_index
from vatt.workers.process import Lost

Run = Callable[..., Generator[tuple[Item, Any], None, None]]
"""`run_in_order`, with all that says where and how."""


class Ingest:
    """The videos that a folder does not hold yet, and what becomes of them.

    todo: in the order in which they are stored.
    failures: name → what is known of it, from earlier runs and from this one.
    seconds: of video stored by this run.
    """

    def __init__(self, out: Path, found: Found, task: Task | None, *, retry_failed: bool) -> None:
        self._out, self._found, self._task = out, found, task
        self.state = read_state(out)
        stored = _keys(self.state)
        names = {item.name for item in found.items if not _is_stored(item, stored)}
        before = [] if retry_failed else self.state.failures
        self.failures = {one.source: one for one in before if one.source in names}
        items = [item for item in found.items if item.name in names - self.failures.keys()]
        items, repeats = without_duplicates(items, _contents(self.state))
        self.failures |= {one.source: one for one in (*repeats, *found.skipped)}
        self.todo = [item for item in items if task is None or task.takes(item)]
        self.seconds = 0.0

    def look(self, run: Run) -> None:
        """Add up the declared durations of what is to be done, and do nothing."""
        for item, outcome in run(look_at, self.todo):
            if isinstance(outcome, float):
                self.seconds += outcome
            else:
                self.failures[item.name] = _as_failure(item, outcome)
        self.todo = [item for item in self.todo if item.name not in self.failures]

    def do(
        self, making: Making, run: Run, *, shard_bytes: int, note: Callable[[Ingest], str]
    ) -> None:
        """Store what is to be done; `note` says more beside the progress bar.

        Raises:
            OSError: the disk is full.
        """
        prefix = f".work{label(self._task)}-"
        with (
            Journal(self._out, self._task) as journal,
            tempfile.TemporaryDirectory(prefix=prefix, dir=self._out) as folder,
        ):
            making = replace(making, folder=Path(folder).resolve())
            job = partial(prepare_item, making=making)
            outcomes = run(job, self.todo, progress="preparing", note=partial(note, self))
            with closing(outcomes):
                self._store(self._good(outcomes, journal), journal, shard_bytes)
            journal.done()

    def _good(self, outcomes: Iterator[tuple[Item, Any]], journal: Journal) -> Iterator[Prepared]:
        """What is ready to be stored; failures are kept on the way."""
        for item, outcome in outcomes:
            if isinstance(outcome, Prepared):
                yield outcome
                self.seconds += outcome.seconds
            else:
                self.failures[item.name] = _as_failure(item, outcome)
                journal.failure(self.failures[item.name])

    def _store(self, good: Iterator[Prepared], journal: Journal, shard_bytes: int) -> None:
        start = f"shard{label(self._task)}-"
        used = [path.stem.removeprefix(start) for path in shard_paths(self._out)]
        number = 1 + max((int(digits) for digits in used if digits.isdecimal()), default=-1)
        for first in good:
            with ShardWriter(self._out / f"{start}{number:06d}.tar") as shard:
                for prepared in chain([first], good):
                    for record, video in prepared.parts:  # all parts of a video in one shard
                        shard.add(record, video)
                    if prepared.folder is not None:
                        shutil.rmtree(prepared.folder)
                    if shard.size >= shard_bytes:
                        break
            journal.shard(shard.path.name, shard.rows)
            number += 1

    def outcome(self) -> tuple[pa.Table, list[Skipped]]:
        """The rows of all that is stored by now, and the failures that still hold, by name."""
        state = read_state(self._out)
        stored = _keys(state)
        failures = {one.source: one for one in state.failures} | self.failures
        current = {item.name for item in self._found.items if not _is_stored(item, stored)}
        current |= {one.source for one in self._found.skipped}
        return state.table, [failures[name] for name in sorted(failures.keys() & current)]

    def write_index(self, made: Mapping[str, Any]) -> None:
        """Make the index of all that is stored; the journals are then no longer needed."""
        table, failures = self.outcome()
        write_index(self._out, made=made, failures=list(map(asdict, failures)), table=table)
        forget(self._out)


def _keys(state: State) -> set[str]:
    return set(state.table["key"].to_pylist())


def _is_stored(item: Item, stored: set[str]) -> bool:
    return item.key in stored or item.part_key(0) in stored


def _contents(state: State) -> dict[tuple[int, str], str]:
    """(Size, checksum) of what is stored → its name."""
    columns = [
        state.table[name].to_pylist() for name in ("source_bytes", "source_sha256", "source")
    ]
    return {(size, sha256): name for size, sha256, name in zip(*columns, strict=True)}


def _as_failure(item: Item, outcome: Skipped | Lost) -> Skipped:
    if isinstance(outcome, Skipped):
        return outcome
    reason = f"{item.path}: {outcome.reason}"
    return Skipped(source=item.name, cause=outcome.cause, reason=reason)
