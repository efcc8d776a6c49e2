"""The index of a library: its files and windows, and which windows are nearest to given vectors.

A folder, or a URL of an object store: `manifest.json`, and two tables of LanceDB. `files` has a row
for each file that is embedded whole, `windows` one for each window. A window counts once its file
has a row. Vectors are unit rows, so that their product is the cosine. Up to `EXACT_BELOW` windows
are compared one by one, in memory; among more an approximate index finds candidates, which are
then compared exactly.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vatt.errors import DataError
from vatt.library.index_place import MANIFEST, IndexPlace, Manifest

SNAPSHOT = "snapshot.arrow"
FILES, WINDOWS = "files", "windows"
EXACT_BELOW = 100_000  # windows
PROBES = 64  # parts of the approximate index that are read
SPARE = 20  # more candidates than hits: their order by 8-bit numbers is not quite the exact one
_AT_ONCE = 16_384  # rows

Column = Literal["vt", "va", "audio_va"]
COLUMNS: tuple[Column, ...] = ("vt", "va", "audio_va")
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file that is embedded whole.

    file_id: SHA-256 of its content, in hexadecimal. path: absolute. title: as its container says,
    else its name. library: the folder or list it was found by. state: what it and its captions
    were, as JSON (`ingest.changes.SourceState`).
    """

    file_id: str
    path: str
    size: int
    mtime_ns: int
    duration_s: float
    width: int
    height: int
    has_audio: bool
    title: str
    n_windows: int
    library: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """One window of a file. window_id: `<file_id>:<start in ms>`; caption: "" if there is none."""

    window_id: str
    file_id: str
    start_s: float
    end_s: float
    has_audio: bool
    caption: str


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a query: a unit vector, what it is compared with, and how much it counts.

    A negative weight moves away what is like it.
    """

    vector: Vectors
    column: Column
    weight: float = 1.0


def window_schema(dims: Mapping[str, int]) -> pa.Schema:
    """Columns of the table of windows."""
    return pa.schema(
        [
            ("window_id", pa.string()),
            ("file_id", pa.string()),
            ("start_s", pa.float64()),
            ("end_s", pa.float64()),
            ("has_audio", pa.bool_()),
            ("caption", pa.string()),
            *((name, pa.list_(pa.float32(), dims[name])) for name in COLUMNS if name in dims),
        ]
    )


FILE_SCHEMA = pa.schema(
    [
        (one.name, {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}.get(
            str(one.type), pa.bool_()
        ))
        for one in fields(FileEntry)
    ]
)  # fmt: skip


def vector_array(vectors: Vectors, present: NDArray[np.bool_]) -> pa.Array:
    """Rows [N, E] as a column; null where not `present` [N]."""
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1], mask=pa.array(~present))


def matrix_of(column: pa.ChunkedArray) -> tuple[Vectors, NDArray[np.bool_]]:
    """Rows [N, E], and which are present [N]; of one chunk without absent rows it is no copy."""
    chunk = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    width = column.type.list_size
    flat = chunk.values.slice(chunk.offset * width, len(chunk) * width)
    flat = flat.fill_null(0.0) if flat.null_count else flat
    return flat.to_numpy().reshape(-1, width), chunk.is_valid().to_numpy(zero_copy_only=False)


def open_index(path: Path | str) -> Index:
    """Open an index to search it; it may be one that is being written.

    Args:
        path: its folder, or its URL in an object store.

    Raises:
        DataError: there is no index, it is damaged, or of a newer format.
        MissingExtraError: LanceDB is not installed.
    """
    place = IndexPlace(path)
    manifest = place.manifest()
    if manifest is None:
        raise DataError(
            f"{place}: no index here ({MANIFEST} is absent); expected a folder or a URL that "
            "`vatt embed --out` wrote"
        )
    return Index(place, manifest)


class Index:
    """An open index; `open_index` makes one.

    Attributes:
        place: where it lies.
        manifest: what it was made with.
    """

    def __init__(self, place: IndexPlace, manifest: Manifest) -> None:
        self.place, self.manifest = place, manifest

    @cached_property
    def _tables(self) -> tuple[Any, Any]:
        with self.place.errors():
            database = self.place.connect()
            return database.open_table(FILES), database.open_table(WINDOWS)

    @cached_property
    def _snapshot(self) -> tuple[list[dict[str, Any]], pa.Table] | None:
        """Files and windows of a small index that is whole, without LanceDB: quick to open."""
        path = self.place.folder and self.place.folder / SNAPSHOT
        if path is None or not path.exists():
            return None
        with pa.memory_map(str(path)) as source:
            windows = pa.ipc.open_file(source).read_all()
        files = json.loads(windows.schema.metadata[b"files"])
        return files, windows

    @cached_property
    def _files(self) -> dict[str, FileEntry]:
        rows = self._snapshot[0] if self._snapshot else self._tables[0].to_arrow().to_pylist()
        return {row["file_id"]: FileEntry(**row) for row in rows}

    @cached_property
    def num_windows(self) -> int:
        """How many windows its files have."""
        return sum(one.n_windows for one in self._files.values())

    @property
    def is_exact(self) -> bool:
        """Whether all windows are compared with a query, not candidates alone."""
        return self.num_windows < EXACT_BELOW

    @cached_property
    def _rows(self) -> _Rows:
        """All windows, in memory."""
        windows = self._snapshot[1] if self._snapshot else self._tables[1].to_arrow()
        return _Rows(windows, list(self._files))

    def files(self) -> list[FileEntry]:
        """All files, by path."""
        return sorted(self._files.values(), key=lambda one: one.path)

    def file(self, file_id: str) -> FileEntry:
        """One file.

        Raises:
            DataError: there is none of this id.
        """
        if file_id not in self._files:
            raise DataError(f"{self.place}: no file {file_id!r}; see its list of files")
        return self._files[file_id]

    def windows(self, file_id: str) -> list[Window]:
        """The windows of a file, by start."""
        self.file(file_id)
        if self.is_exact:
            found = self._rows.windows(self._rows.of_file(file_id))
        else:
            found = _windows(self._where(_one_of("file_id", [file_id]), vectors=False))
        return sorted(found, key=lambda one: one.start_s)

    def window(self, window_id: str) -> Window:
        """One window.

        Raises:
            DataError: there is none of this id.
        """
        file_id = window_id.partition(":")[0]
        for one in self.windows(file_id):
            if one.window_id == window_id:
                return one
        raise DataError(f"{self.place}: no window {window_id!r}; its file has other windows")

    def vectors(self, window_ids: Sequence[str], column: Column) -> list[Vectors | None]:
        """The unit vectors of windows in a column; None where a window has none there."""
        if self.is_exact:
            rows = self._rows.at(window_ids)
            matrix, present = self._rows.matrix(column)
            return [matrix[row] if present[row] else None for row in rows]
        found = self._where(_one_of("window_id", window_ids), vectors=True)
        matrix, present = matrix_of(found[column])
        where = {one: row for row, one in enumerate(found["window_id"].to_pylist())}
        return [matrix[where[one]] if present[where[one]] else None for one in window_ids]

    def all_vectors(self, column: Column) -> tuple[list[Window], Vectors]:
        """Windows that have a vector in a column, and these vectors [N, E]; all in memory."""
        rows = self._rows
        matrix, present = rows.matrix(column)
        where = np.flatnonzero(present & rows.known)
        return rows.windows(where), matrix[where]

    def scores(
        self, terms: Sequence[Term], within: Collection[str] | None = None, limit: int = 1000
    ) -> list[tuple[Window, float]]:
        """The windows with the highest sums of weight × cosine, best first.

        A window without what a term of positive weight is compared with is left out; a negative
        term does not change its score.

        Args:
            terms: at least one.
            within: ids of the files to search; all if not given.
            limit: how many windows at most.

        Raises:
            DataError: a term's vector is not of this index.
        """
        for term in terms:
            if self.manifest.dims.get(term.column) != term.vector.shape[-1]:
                raise DataError(
                    f"{self.place}: found a query of {term.vector.shape[-1]} numbers for "
                    f"{term.column!r}, expected {self.manifest.dims.get(term.column, 'none')}; "
                    "search with the model it was made with"
                )
        if self.is_exact:
            return self._rows.best(terms, within, limit)
        found = [self._candidates(one, within, limit) for one in terms if one.weight > 0]
        return _Rows(_joined(found), list(self._files)).best(terms, within, limit)

    def _candidates(self, term: Term, within: Collection[str] | None, limit: int) -> pa.Table:
        """The windows nearest to one term, by the approximate index."""
        query = self._tables[1].search(term.vector, vector_column_name=term.column)
        query = query.distance_type("cosine").nprobes(PROBES).limit(limit + SPARE)
        if within is not None:
            query = query.where(_one_of("file_id", within), prefilter=True)
        names = window_schema(self.manifest.dims).names
        return query.select([*names, "_distance"]).to_arrow().select(names)

    def _where(self, condition: str, *, vectors: bool) -> pa.Table:
        names = window_schema(self.manifest.dims).names
        chosen = [name for name in names if vectors or name not in COLUMNS]
        return self._tables[1].search().where(condition).select(chosen).limit(None).to_arrow()

    def batches(self) -> Iterator[pa.Table]:
        """All windows with their vectors, some at a time."""
        if self._snapshot:
            yield from (pa.Table.from_batches([one]) for one in self._snapshot[1].to_batches())
            return
        for batch in self._tables[1].search().limit(None).to_batches(batch_size=_AT_ONCE):
            table = pa.Table.from_batches([batch])
            yield table.filter(pc.is_in(table["file_id"], pa.array(list(self._files))))


class _Rows:
    """Windows in memory, and the exact comparison with all of them."""

    def __init__(self, table: pa.Table, file_ids: Sequence[str]) -> None:
        self._table = table
        numbers = pc.index_in(table["file_id"], pa.array(file_ids, pa.string()))
        self._file = np.asarray(pc.fill_null(numbers, -1)).astype(np.int64)
        self._number = {one: number for number, one in enumerate(file_ids)}
        self.known = self._file >= 0  # others are of files that are not embedded whole yet
        self._matrices: dict[str, tuple[Vectors, NDArray[np.bool_]]] = {}

    def matrix(self, column: str) -> tuple[Vectors, NDArray[np.bool_]]:
        """Vectors [N, E], and which windows have one [N]."""
        if column not in self._matrices:
            self._matrices[column] = matrix_of(self._table[column])
        return self._matrices[column]

    def of_file(self, file_id: str) -> NDArray[np.int64]:
        """Rows of a file's windows."""
        return np.flatnonzero(self._file == self._number[file_id])

    def at(self, window_ids: Sequence[str]) -> list[int]:
        """Rows of windows."""
        found = pc.index_in(pa.array(window_ids, pa.string()), self._table["window_id"])
        return cast("list[int]", found.to_pylist())

    def windows(self, rows: NDArray[np.int64]) -> list[Window]:
        """What is known of the windows in these rows, in their order."""
        return _windows(self._table.take(pa.array(rows)))

    def best(
        self, terms: Sequence[Term], within: Collection[str] | None, limit: int
    ) -> list[tuple[Window, float]]:
        """As `Index.scores`."""
        allowed = self.known.copy()
        if within is not None:
            chosen = [self._number[one] for one in within if one in self._number]
            allowed &= np.isin(self._file, chosen)
        total = np.zeros(len(allowed), np.float32)
        for term in terms:
            matrix, present = self.matrix(term.column)
            total += np.where(present, matrix @ np.float32(term.weight * term.vector), 0.0)
            if term.weight > 0:
                allowed &= present
        rows = np.flatnonzero(allowed)
        if len(rows) > limit:
            rows = rows[np.argpartition(-total[rows], limit)[:limit]]
        rows = rows[np.lexsort((rows, -total[rows]))]
        return list(zip(self.windows(rows), total[rows].tolist(), strict=True))


def _windows(table: pa.Table) -> list[Window]:
    columns = (table[one.name].to_pylist() for one in fields(Window))
    return [Window(*row) for row in zip(*columns, strict=True)]


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Rows of all tables, each window once."""
    table = pa.concat_tables(tables)
    _, first = np.unique(table["window_id"].to_numpy(zero_copy_only=False), return_index=True)
    return table.take(pa.array(np.sort(first)))


def _one_of(column: str, values: Collection[str]) -> str:
    """A condition of SQL."""
    quoted = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    return f"{column} IN ({quoted})" if values else "false"
