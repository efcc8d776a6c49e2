"""Prepared data on disk: tar shards of videos, one index over them, and what was skipped.

    shard-000000.tar     members <key>.mp4 and <key>.json, in WebDataset's layout
    index.parquet        one row per video: where its bytes lie, and what a sampler needs to know
    dataset.json         format version, totals, how it was made, counts of what was skipped
    failures.jsonl       one line per skipped item
    records.jsonl        the records of videos in tars that others made (`vatt index-shards`)

A shard is written aside, flushed and renamed: it is whole or absent. Index and dataset.json can
be made again from the shards alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vatt.data.index import INDEX_SCHEMA, SOUND_SCHEMA, index_row, index_table, totals
from vatt.data.records import SampleRecord, json_bytes
from vatt.data.whole import finish, write_whole
from vatt.errors import DataError
from vatt.media.container import FilePart, Source
from vatt.media.joining import join

FORMAT_VERSION = "1.1"  # a reader refuses a newer major version
INDEX_FILE, DATASET_FILE, FAILURES_FILE = "index.parquet", "dataset.json", "failures.jsonl"
RECORDS_FILE = "records.jsonl"  # all records, where they do not lie in the shards

_KEY = re.compile(r"[A-Za-z0-9_-]{1,90}")  # no dots: WebDataset cuts names at the first one
# Of others' shards, also in folders below; never one that leads out of the folder.
_SHARD = re.compile(r"(?:[\w+=@,~-][\w .+=@,~-]{0,100}/){0,4}[\w .+=@,~-]{1,200}\.tar")
_MAX_RECORD_BYTES = 64 * 2**20


class ShardWriter:
    """Writes one shard; use as a context manager. An error inside the block leaves no shard."""

    def __init__(self, path: Path) -> None:
        assert _SHARD.fullmatch(path.name), path.name
        self.path = path
        self.rows: list[dict[str, Any]] = []  # of the index, one for each video so far
        self._aside = path.with_name(path.name + ".part")
        self._file = self._aside.open("wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 closed in __exit__

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    def add(self, record: SampleRecord, video: Path | bytes) -> None:
        """Append one video and its record; the record's checksum is filled in here."""
        assert _KEY.fullmatch(record.key), record.key
        with video.open("rb") if isinstance(video, Path) else BytesIO(video) as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            size = content.seek(0, os.SEEK_END)
            content.seek(0)
            video_at = self._member(f"{record.key}.mp4", content, size), size
        record = replace(record, sha256=digest)
        text = record.to_json()
        text_at = self._member(f"{record.key}.json", BytesIO(text), len(text)), text
        self.rows.append(index_row(self.path.name, record, video_at, text_at))

    def _member(self, name: str, content: BinaryIO, size: int) -> int:
        """Append a file; returns the offset of its content."""
        member = tarfile.TarInfo(name)  # time and owner stay 0: the same videos, the same bytes
        member.size = size
        self._tar.addfile(member, content)
        padding = -size % tarfile.BLOCKSIZE
        return self._file.tell() - size - padding

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._tar.close()
        finish(self._file, self._aside, self.path if kind is None else None)


def shard_paths(folder: Path) -> list[Path]:
    """The finished shards of a folder, in order."""
    return sorted(path for path in folder.glob("shard-*.tar") if _SHARD.fullmatch(path.name))


def is_shard_name(name: str) -> bool:
    """Whether a shard may be called so, relative to its folder."""
    return _SHARD.fullmatch(name) is not None


def shard_path(folder: Path, name: str) -> Path:
    """Where the shard of that name lies.

    Raises:
        DataError: it is no name of a shard; it could lead out of the folder.
    """
    if not is_shard_name(name):
        raise DataError(f"{folder / INDEX_FILE}: {name!r} is no name of a shard")
    return folder / name


def read_shard(path: Path) -> Iterator[tuple[SampleRecord, dict[str, Any]]]:
    """The records of a shard, each with its row of the index.

    Raises:
        DataError: the tar is damaged, or holds anything but pairs of `<key>.mp4` and `<key>.json`.
    """
    try:
        with tarfile.open(path, mode="r:") as tar:
            while (video := tar.next()) is not None:
                text = tar.next()
                content = _read_pair(path, tar, video, text)
                assert text is not None
                record = SampleRecord.from_json(content, where=f"{path}: {text.name}")
                video_at, text_at = (video.offset_data, video.size), (text.offset_data, content)
                yield record, index_row(path.name, record, video_at, text_at)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            f"{path}: not a whole tar file ({error}); remove it and prepare again"
        ) from error


def _read_pair(
    path: Path, tar: tarfile.TarFile, video: tarfile.TarInfo, text: tarfile.TarInfo | None
) -> bytes:
    key, _, ending = video.name.partition(".")
    paired = text is not None and text.name == f"{key}.json" and ending == "mp4"
    if not (paired and _KEY.fullmatch(key) and video.isreg() and text is not None and text.isreg()):
        raise DataError(
            f"{path}: member {video.name!r} at byte {video.offset}: expected a pair of plain files "
            "<key>.mp4 and <key>.json; this shard was not written by `vatt prepare`"
        )
    if text.size > _MAX_RECORD_BYTES:
        raise DataError(f"{path}: {text.name}: {text.size:,} bytes, expected a small JSON record")
    content = tar.extractfile(text)
    assert content is not None
    return content.read()


def write_index(
    folder: Path,
    *,
    made: Mapping[str, Any],
    failures: Sequence[Mapping[str, Any]] = (),
    table: pa.Table | None = None,
    records_beside: bool = False,
) -> dict[str, Any]:
    """Make index.parquet, failures.jsonl and, last, dataset.json from the shards of a folder.

    Args:
        folder: holds the shards.
        made: how they were made (settings, versions), kept in dataset.json.
        failures: one mapping per skipped item, with at least `source` and `cause`.
        table: the rows of all videos, in the order of the shards; when None the shards are read.
        records_beside: the records lie in RECORDS_FILE, not in the shards.

    Returns:
        What dataset.json holds.
    """
    if table is None:
        table = index_table([row for path in shard_paths(folder) for _, row in read_shard(path)])
    info = {
        "format": "vatt-shards",
        "format_version": FORMAT_VERSION,
        **totals(table),
        "skipped": dict(sorted(Counter(item["cause"] for item in failures).items())),
        "made": dict(made),
        **({"records": RECORDS_FILE} if records_beside else {}),
    }
    content = BytesIO()
    pq.write_table(table, content)
    write_whole(folder / INDEX_FILE, content.getvalue())
    write_whole(folder / FAILURES_FILE, b"".join(json_bytes(item) + b"\n" for item in failures))
    write_whole(folder / DATASET_FILE, json.dumps(info, ensure_ascii=False, indent=2).encode())
    return info


class Dataset:
    """A prepared folder: its index in memory, its videos read one by one.

    index: one row per video, columns as in `vatt info` and docs/data.md.
    info: what dataset.json holds.
    """

    def __init__(self, folder: Path, index: pa.Table, info: Mapping[str, Any]) -> None:
        self.folder, self.index, self.info = folder, index, info

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """Read the index of a prepared folder and check that its shards are there and whole.

        Raises:
            DataError: dataset.json or the index is missing, damaged or of a newer format; a shard
                is missing or shorter than the index says.
        """
        dataset = cls.load(folder)
        dataset._check_shards()
        return dataset

    @classmethod
    def load(cls, folder: Path, schema: pa.Schema = INDEX_SCHEMA) -> Dataset:
        """Read the index of a prepared folder without looking at its shards.

        Args:
            folder: the folder.
            schema: which columns; those that an older version has not written are null.

        Raises:
            DataError: dataset.json or the index is missing, damaged or of a newer format.
        """
        info = _read_info(folder)
        if info.get("records"):
            schema = pa.unify_schemas([schema, SOUND_SCHEMA])
        try:
            index = pq.read_table(folder / INDEX_FILE)
            for column in schema:
                if column.name not in (*INDEX_SCHEMA.names, *index.column_names):
                    index = index.append_column(column, pa.nulls(len(index), column.type))
            index = index.select(schema.names).cast(schema)
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            raise DataError(
                f"{folder / INDEX_FILE}: cannot be read ({error}); run `vatt prepare` again with "
                "the same settings: it makes the index anew from the shards"
            ) from error
        # In one piece: slices would each be sent to a spawned worker with all that they are cut of.
        return cls(folder, index.combine_chunks(), info)

    def _check_shards(self) -> None:
        beside = bool(self.info.get("records"))
        if beside and len(self):
            self._check_size(self.folder / RECORDS_FILE, pc.max(self._ends("json")).as_py())
        ends = self.index.append_column("end", self._ends("video" if beside else "json"))
        for row in ends.group_by("shard").aggregate([("end", "max")]).to_pylist():
            self._check_size(shard_path(self.folder, row["shard"]), row["end_max"])

    def _ends(self, part: str) -> Any:
        return pc.add(self.index[f"{part}_offset"], self.index[f"{part}_size"])

    def _check_size(self, path: Path, end: int) -> None:
        size = path.stat().st_size if path.is_file() else 0
        if size < end:
            found = f"{size:,} bytes" if size else "missing"
            raise DataError(
                f"{path}: found {found}, expected at least {end:,} bytes; copy it again, or "
                "remove it and dataset.json and run `vatt prepare` again"
            )

    def __len__(self) -> int:
        return int(self.index.num_rows)

    def column(self, name: str) -> NDArray[Any]:
        """One column of the index as an array, in row order."""
        return np.asarray(self.index[name].to_numpy())

    def rows(self, split: str | None = None) -> NDArray[np.int64]:
        """Row numbers of a split, ascending; of all splits when None.

        Raises:
            DataError: no video is in that split; says which splits there are.
        """
        if split is None:
            return np.arange(len(self), dtype=np.int64)
        found = np.flatnonzero(self.column("split") == split).astype(np.int64)
        if not len(found):
            raise DataError(
                f"{self.folder}: no video in split {split!r}; it has {sorted(self.info['splits'])}"
            )
        return found

    def cuts(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """How many cuts each of the rows has, and all of them, one row after the other."""
        cuts = self.index["cuts"].combine_chunks().take(pa.array(rows))
        counts = pc.list_value_length(cuts).to_numpy(zero_copy_only=False)
        return counts.astype(np.int64), pc.list_flatten(cuts).to_numpy()

    def source(self, row: int) -> Source:
        """The video file of a row with its sound, to be read where it lies if it can be.

        Raises:
            DataError, MediaError: as `read_video`, when its sound lies beside it.
        """
        if self._has_sound_beside(row):
            return self.read_video(row)
        path = shard_path(self.folder, self._value(row, "shard"))
        return FilePart(path, self._value(row, "video_offset"), self._value(row, "video_size"))

    def read_video(self, row: int) -> bytes:
        """The video file of a row, with its sound, wherever that is stored.

        Raises:
            DataError: the shard ends before it.
            MediaError: its sound lies beside it and cannot be joined with it.
        """
        video = self.read_stored_video(row)
        return join(video, self._read(row, "sound")) if self._has_sound_beside(row) else video

    def _has_sound_beside(self, row: int) -> bool:
        return "sound_size" in self.index.column_names and bool(self._value(row, "sound_size"))

    def read_stored_video(self, row: int) -> bytes:
        """The video file of a row, byte for byte.

        Raises:
            DataError: the shard ends before it.
        """
        return self._read(row, "video")

    def read_record(self, row: int) -> SampleRecord:
        """Captions, labels, cuts and facts of a row.

        Raises:
            DataError: the shard ends before it, or it is not such a record.
        """
        where = f"{self.folder / self._value(row, 'shard')}: {self._value(row, 'key')}.json"
        return SampleRecord.from_json(self.read_record_text(row), where=where)

    def read_record_text(self, row: int) -> bytes:
        """The record of a row as it is stored.

        Raises:
            DataError: the file ends before it.
        """
        return self._read(row, "json")

    def verify(self, row: int) -> None:
        """Check the stored video against its checksum.

        Raises:
            DataError: they differ.
        """
        found = hashlib.sha256(self.read_stored_video(row)).hexdigest()
        expected = self._value(row, "sha256")
        if found != expected:
            raise DataError(
                f"{self.folder / self._value(row, 'shard')}: {self._value(row, 'key')}.mp4: "
                f"checksum {found[:12]}…, expected {expected[:12]}…; copy the shard again"
            )

    def _value(self, row: int, column: str) -> Any:
        return self.index[column][row].as_py()

    def _read(self, row: int, part: str) -> bytes:
        path = shard_path(self.folder, self._value(row, "shard"))
        if part == "json" and self.info.get("records"):
            path = self.folder / RECORDS_FILE
        offset, size = (self._value(row, f"{part}_{what}") for what in ("offset", "size"))
        content = b""
        try:
            with path.open("rb") as file:
                if 0 <= offset <= offset + size <= file.seek(0, os.SEEK_END):
                    file.seek(offset)
                    content = file.read(size)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        if not content or len(content) != size:
            raise DataError(f"{path}: ends within {self._value(row, 'key')}; copy it again")
        return content


def _read_info(folder: Path) -> dict[str, Any]:
    path = folder / DATASET_FILE
    try:
        info = json.loads(path.read_bytes())
        version = str(info["format_version"])
        newer = int(version.split(".")[0]) > int(FORMAT_VERSION.split(".")[0])
    except FileNotFoundError:
        raise DataError(
            f"{path}: missing; expected a folder made by `vatt prepare` (if it was interrupted, "
            "the same command finishes it)"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not the description of a prepared dataset ({error})") from error
    if info.get("format") != "vatt-shards" or newer:
        raise DataError(
            f"{path}: format {info.get('format')} {version}, expected vatt-shards up to "
            f"{FORMAT_VERSION}; install a newer vatt"
        )
    if info.get("records", RECORDS_FILE) != RECORDS_FILE:
        raise DataError(f"{path}: records in {info['records']!r}, expected {RECORDS_FILE!r}")
    return dict(info)
