"""Writing an index: one writer at a time, in few large writes, whole after each of them."""

from __future__ import annotations

import importlib.metadata
import json
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.ipc

from vatt.errors import ConfigError
from vatt.ingest.journal import BusyError
from vatt.library.index_place import MANIFEST, IndexPlace, Manifest, as_values
from vatt.library.vector_index import (
    COLUMNS,
    EXACT_BELOW,
    FILE_SCHEMA,
    FILES,
    SNAPSHOT,
    WINDOWS,
    FileEntry,
    matrix_of,
    vector_array,
    window_schema,
)
from vatt.storage import atomic_file, locked

logger = logging.getLogger(__name__)

_FRAGMENTS = 512  # writes, after which the parts of a table are joined
_MOST_IDS = 1000  # in one condition


@contextmanager
def index_writer(
    place: IndexPlace, manifest: Manifest, *, rebuild: bool = False
) -> Iterator[IndexWriter]:
    """Begin an index, or go on with one, alone.

    What a killed writer left of files that were not whole is removed. What the context has written
    by its end, with an error or without, is whole; only without one the index is made fast.

    Args:
        place: where it lies.
        manifest: what it is made with; counts do not matter.
        rebuild: remove all that is in it first.

    Raises:
        ConfigError: it is of another model, or has other windows.
        BusyError: another process writes it.
        DataError: it cannot be read or written.
        MissingExtraError: LanceDB is not installed.
    """
    with ExitStack() as stack:
        if place.folder is not None:
            place.folder.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(locked(place.folder / ".lock"))
            except BlockingIOError:
                raise BusyError(
                    f"{place}: another process is writing this index (.lock is locked); wait until "
                    "it has ended, or give another --out"
                ) from None
        before = place.manifest()
        if before is not None and not rebuild:
            _refuse_other(place, before, manifest)
        elif before is None and not rebuild:
            _refuse_foreign(place)
        with place.errors():
            writer = IndexWriter(place, manifest, anew=before is None or rebuild)
        yield writer
        with place.errors():
            writer.finish()


def _refuse_other(place: IndexPlace, before: Manifest, now: Manifest) -> None:
    for name in ("model_hash", "clip_s", "every_s", "dims"):
        found, expected = getattr(now, name), getattr(before, name)
        if found != expected:
            models = f" ({now.model} and {before.model})" if name == "model_hash" else ""
            raise ConfigError(
                f"{place}: found {name} {found}, expected {expected} as in its {MANIFEST}{models}; "
                "its vectors could not be compared: give another --out, or --rebuild to remove "
                "what is in it"
            )


def _refuse_foreign(place: IndexPlace) -> None:
    if place.folder is None:
        return
    others = [one.name for one in place.folder.iterdir() if not one.name.startswith(".")]
    ours = {f"{FILES}.lance", f"{WINDOWS}.lance"}  # of a writer killed before its first manifest
    if others := sorted(set(others) - ours):
        raise ConfigError(
            f"{place}: no index, but it holds {others[0]!r}; give another --out, or an empty folder"
        )


class IndexWriter:
    """What `index_writer` yields.

    files: those that are whole, by id.
    """

    def __init__(self, place: IndexPlace, manifest: Manifest, *, anew: bool) -> None:
        self.place, self.manifest = place, manifest
        database = place.connect()
        tables = {FILES: FILE_SCHEMA, WINDOWS: window_schema(manifest.dims)}
        self._forget_snapshot()
        how: Any = {"mode": "overwrite"} if anew else {"exist_ok": True}
        opened = {
            name: database.create_table(name, schema=one, **how) for name, one in tables.items()
        }
        self._files, self._windows = opened[FILES], opened[WINDOWS]
        place.write(MANIFEST, as_values(manifest))
        self.files = {
            row["file_id"]: FileEntry(**row) for row in self._files.to_arrow().to_pylist()
        }
        self._num_writes = 0
        self._remove_orphans()

    def _forget_snapshot(self) -> None:
        if self.place.folder is not None:
            (self.place.folder / SNAPSHOT).unlink(missing_ok=True)

    def _remove_orphans(self) -> None:
        """Windows of files that are not whole, and so will be embedded again."""
        expected = sum(one.n_windows for one in self.files.values())
        if self._windows.count_rows() == expected:
            return
        ids = self._windows.search().select(["file_id"]).limit(None).to_arrow()["file_id"]
        self._delete(self._windows, set(ids.unique().to_pylist()) - self.files.keys())

    def _delete(self, table: Any, file_ids: Collection[str]) -> None:
        ids = sorted(file_ids)
        for first in range(0, len(ids), _MOST_IDS):
            quoted = ", ".join(f"'{one}'" for one in ids[first : first + _MOST_IDS])
            with self.place.errors():
                table.delete(f"file_id IN ({quoted})")

    def add(self, windows: pa.Table, whole: Sequence[FileEntry]) -> None:
        """Write windows in bulk, then the files that are whole with them.

        Args:
            windows: of `window_schema`; of files that are not in the index.
            whole: files all of whose windows are written now, or were before.
        """
        with self.place.errors():
            if len(windows):
                self._windows.add(windows)
            if whole:
                self._files.add(pa.Table.from_pylist([asdict(one) for one in whole], FILE_SCHEMA))
        self.files |= {one.file_id: one for one in whole}
        self._num_writes += 1
        if self._num_writes % _FRAGMENTS == 0:
            with self.place.errors():
                self._optimize()

    def drop(self, file_ids: Collection[str]) -> None:
        """Remove files and their windows."""
        self._delete(self._files, file_ids)
        self._delete(self._windows, file_ids)
        for one in file_ids:
            self.files.pop(one, None)

    def describe(self, entries: Sequence[FileEntry]) -> None:
        """Describe files of the index anew (moved, or touched); their windows stay."""
        if entries:
            rows = pa.Table.from_pylist([asdict(one) for one in entries], FILE_SCHEMA)
            with self.place.errors():
                self._files.merge_insert("file_id").when_matched_update_all().execute(rows)
            self.files |= {one.file_id: one for one in entries}

    def _optimize(self) -> None:
        for table in (self._files, self._windows):
            table.optimize(cleanup_older_than=timedelta(minutes=10))

    def finish(self) -> Manifest:
        """Join small parts, index what is large, and say what there is."""
        windows = self._windows.count_rows()
        if self._num_writes:
            self._optimize()
        if windows >= EXACT_BELOW:
            self._index_columns()
        seconds = sum(one.duration_s for one in self.files.values())
        versions = {name: importlib.metadata.version(name) for name in ("vatt", "lancedb", "av")}
        self.manifest = replace(
            self.manifest,
            files=len(self.files),
            windows=windows,
            hours=round(seconds / 3600, 4),
            versions=versions,
        )
        self.place.write(MANIFEST, as_values(self.manifest))
        if windows < EXACT_BELOW and self.place.folder is not None:
            self._save_snapshot()
        return self.manifest

    def _index_columns(self) -> None:
        """One approximate index for each column of vectors, and one of files, where they are not.

        One after the other: LanceDB's commits of several at once can fail.
        """
        there = {tuple(one.columns) for one in self._windows.list_indices()}
        for name in (one for one in COLUMNS if one in self.manifest.dims):
            if (name,) not in there:
                logger.info("%s: indexing %s of %d windows", self.place, name, len(self))
                make_ann(self._windows, name, len(self))
        if ("file_id",) not in there:
            self._windows.create_scalar_index("file_id")

    def __len__(self) -> int:
        return int(self._windows.count_rows())

    def _save_snapshot(self) -> None:
        """All of a small index in one file, which is read in milliseconds and without LanceDB."""
        assert self.place.folder is not None
        table = self._windows.to_arrow()
        for name in self.manifest.dims:  # without absent numbers, to be read without a copy
            number = table.column_names.index(name)
            table = table.set_column(number, name, vector_array(*matrix_of(table[name])))
        files = self._files.to_arrow().to_pylist()
        table = table.replace_schema_metadata({"files": json.dumps(files)})
        with (
            atomic_file(self.place.folder / SNAPSHOT) as aside,
            pa.OSFile(str(aside), "wb") as sink,
            pyarrow.ipc.new_file(sink, table.schema) as writer,
        ):
            writer.write_table(table)


def make_ann(table: Any, column: str, rows: int) -> None:
    """The approximate index of a column of vectors: cosine, a part for some thousand rows."""
    table.create_index(
        metric="cosine",
        vector_column_name=column,
        index_type="IVF_SQ",
        num_partitions=max(64, rows // 4000),
        sample_rate=64,
    )
