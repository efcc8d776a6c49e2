"""Indexes as a whole: several made one, and one written as Parquet for other programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vatt.errors import ConfigError
from vatt.library.index_place import IndexPlace, Manifest
from vatt.library.index_writer import IndexWriter, index_writer
from vatt.library.vector_index import (
    FILE_SCHEMA,
    Index,
    open_index,
    window_schema,
)
from vatt.storage import atomic_folder

_ROWS = 65_536  # of one write


def add_index(writer: IndexWriter, other: Index) -> int:
    """Add the files of another index that a writer's index lacks; returns how many."""
    new = {one.file_id: one for one in other.files() if one.file_id not in writer.files}
    left = {name: one.n_windows for name, one in new.items()}
    for table in _large(other.batches()):
        chosen = table.filter(pc.is_in(table["file_id"], pa.array(list(new), pa.string())))
        for row in chosen["file_id"].value_counts().to_pylist():
            left[row["values"]] -= row["counts"]
        whole = [name for name, count in left.items() if count <= 0]
        writer.add(chosen, [new[name] for name in whole])
        for name in whole:
            del left[name]
    return len(new) - len(left)


def _large(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows, many at once: each write of an index has its cost."""
    waiting, rows = list[pa.Table](), 0
    for table in tables:
        waiting.append(table.replace_schema_metadata(None))
        rows += len(table)
        if rows >= _ROWS:
            yield pa.concat_tables(waiting)
            waiting, rows = [], 0
    if rows:
        yield pa.concat_tables(waiting)


def merge(sources: list[Path | str], out: Path | str) -> Manifest:
    """One index of several of the same model; a file that several hold is taken once.

    Raises:
        ConfigError: they are of several models, or have other windows.
        DataError: one of them cannot be read, or another process writes `out`.
    """
    indexes = [open_index(one) for one in sources]
    if str(out) in map(str, sources):
        raise ConfigError(f"out: found {out}, which is merged itself; give another folder")
    first = replace(indexes[0].manifest, files=0, windows=0, hours=0.0)
    for one in indexes[1:]:
        for name in ("model_hash", "clip_s", "every_s", "dims"):
            found, expected = getattr(one.manifest, name), getattr(first, name)
            if found != expected:
                raise ConfigError(
                    f"{one.place}: found {name} {found}, expected {expected} as in "
                    f"{indexes[0].place}; only windows of one kind can be compared"
                )
    with index_writer(IndexPlace(out), first) as writer:
        for one in indexes:
            add_index(writer, one)
    return writer.manifest


def export(source: Path | str, out: Path) -> None:
    """Write `files.parquet`, `windows.parquet` and `manifest.json` into a new folder.

    Raises:
        DataError: the index cannot be read.
        ConfigError: `out` exists.
    """
    index = open_index(source)
    if out.exists():
        raise ConfigError(f"{out}: exists already; give another --out")
    with atomic_folder(out) as folder:
        files = [asdict(one) for one in index.files()]
        pq.write_table(pa.Table.from_pylist(files, FILE_SCHEMA), folder / "files.parquet")
        schema = window_schema(index.manifest.dims)
        with pq.ParquetWriter(folder / "windows.parquet", schema) as parquet:
            for table in _large(index.batches()):
                parquet.write_table(table.select(schema.names).cast(schema))
        (folder / "manifest.json").write_text(index.place.read("manifest.json") or "", "utf-8")
