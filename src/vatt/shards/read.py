"""Read folders of shards: the index in memory, videos and records one by one."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vatt.errors import DataError
from vatt.media.container import FilePart, MediaSource
from vatt.media.remux import join
from vatt.shards.index import AUDIO_MEMBER_COLUMNS, GAPS_COLUMNS, REQUIRED_COLUMNS, index_row
from vatt.shards.layout import (
    DATASET_FILE,
    FORMAT_VERSION,
    INDEX_FILE,
    KEY,
    MAX_RECORD_BYTES,
    RECORDS_FILE,
    shard_path,
)
from vatt.shards.record import SampleRecord
from vatt.storage import refuse_newer


def read_shard(path: Path) -> Iterator[tuple[SampleRecord, dict[str, Any]]]:
    """The records of a shard, each with its row of the index.

    Raises:
        DataError: the tar is damaged, or holds anything but pairs of `<key>.mp4` and `<key>.json`.
    """
    try:
        with tarfile.open(path, mode="r:") as tar:
            while (video := tar.next()) is not None:
                text = tar.next()
                key, _, ending = video.name.partition(".")
                plain = video.isreg() and text is not None and text.isreg()
                if text is None or not (
                    plain and KEY.fullmatch(key) and ending == "mp4" and text.name == f"{key}.json"
                ):
                    raise DataError(
                        f"{path}: member {video.name!r} at byte {video.offset}: expected a pair of "
                        "plain files <key>.mp4 and <key>.json; this shard was not written by "
                        "`vatt prepare`"
                    )
                if text.size > MAX_RECORD_BYTES:
                    raise DataError(
                        f"{path}: {text.name}: {text.size:,} bytes, expected a small JSON record"
                    )
                file = tar.extractfile(text)
                assert file is not None
                content = file.read()
                record = SampleRecord.from_json(content, where=f"{path}: {text.name}")
                video_at, text_at = (video.offset_data, video.size), (text.offset_data, content)
                yield record, index_row(path.name, record, video_at, text_at)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            f"{path}: not a whole tar file ({error}); remove it and prepare again"
        ) from error


class ShardFolder:
    """A folder of shards: its index in memory, its videos read one by one.

    index: one row per video, columns as in docs/shard-format.md.
    info: what dataset.json holds.
    """

    def __init__(self, folder: Path, index: pa.Table, info: Mapping[str, Any]) -> None:
        self.folder, self.index, self.info = folder, index, info

    @classmethod
    def open(cls, folder: Path) -> ShardFolder:
        """Read the index of a prepared folder and check that its shards are there and whole.

        Raises:
            DataError: dataset.json or the index is missing, damaged or of a newer format; a shard
                is missing or shorter than the index says.
        """
        data = cls.load(folder)
        last_member = "json"
        if data.has_records_file:
            last_member = "video"
            if len(data):
                data._check_size(folder / RECORDS_FILE, pc.max(data._ends("json")).as_py())
        ends = data.index.append_column("end", data._ends(last_member))
        for row in ends.group_by("shard").aggregate([("end", "max")]).to_pylist():
            data._check_size(shard_path(folder, row["shard"]), row["end_max"])
        return data

    @classmethod
    def load(cls, folder: Path, schema: pa.Schema = REQUIRED_COLUMNS) -> ShardFolder:
        """Read the index of a prepared folder without looking at its shards.

        Args:
            folder: the folder.
            schema: which columns; those that an older version has not written are null.

        Raises:
            DataError: dataset.json or the index is missing, damaged or of a newer format.
        """
        info = _read_info(folder)
        schema = pa.unify_schemas([schema, GAPS_COLUMNS])
        if info.get("records"):
            schema = pa.unify_schemas([schema, AUDIO_MEMBER_COLUMNS])
        try:
            index = pq.read_table(folder / INDEX_FILE)
            for column in schema:
                if column.name not in (*REQUIRED_COLUMNS.names, *index.column_names):
                    index = index.append_column(column, pa.nulls(len(index), column.type))
            index = index.select(schema.names).cast(schema)
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            raise DataError(
                f"{folder / INDEX_FILE}: cannot be read ({error}); run `vatt prepare` again with "
                "the same settings: it makes the index anew from the shards"
            ) from error
        # In one piece: slices would each be sent to a spawned worker with all that they are cut of.
        return cls(folder, index.combine_chunks(), info)

    def _ends(self, member: str) -> Any:
        return pc.add(self.index[f"{member}_offset"], self.index[f"{member}_size"])

    def _check_size(self, path: Path, end: int) -> None:
        size = path.stat().st_size if path.is_file() else 0
        if size < end:
            found = f"{size:,} bytes" if size else "missing"
            raise DataError(
                f"{path}: found {found}, expected at least {end:,} bytes; copy it again, or "
                "remove it and dataset.json and run `vatt prepare` again"
            )

    @property
    def has_records_file(self) -> bool:
        """Whether the records lie in records.jsonl, as those of shards made by others do."""
        return bool(self.info.get("records"))

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

    def gaps(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Damaged stretches of the rows: to which each belongs [n], its start and end [n, 2]."""
        gaps = self.index["gaps"].combine_chunks().take(pa.array(rows))
        counts = pc.fill_null(pc.list_value_length(gaps), 0).to_numpy(zero_copy_only=False)
        owners = np.repeat(np.arange(len(rows)), counts.astype(np.int64) // 2)
        return owners, pc.list_flatten(gaps).to_numpy().reshape(-1, 2)

    def source(self, row: int) -> MediaSource:
        """The video file of a row with its audio, to be read where it lies if it can be.

        Raises:
            DataError, MediaError: as `read_video`, when its audio is a member of its own.
        """
        if self._has_audio_member(row):
            return self.read_video(row)
        path = shard_path(self.folder, self._value(row, "shard"))
        return FilePart(path, self._value(row, "video_offset"), self._value(row, "video_size"))

    def read_video(self, row: int) -> bytes:
        """The video file of a row, with its audio, wherever that is stored.

        Raises:
            DataError: the shard ends before it.
            MediaError: its audio is a member of its own and cannot be joined with it.
        """
        video = self.read_stored_video(row)
        return join(video, self._read(row, "sound")) if self._has_audio_member(row) else video

    def _has_audio_member(self, row: int) -> bool:
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

    def _read(self, row: int, member: str) -> bytes:
        path = shard_path(self.folder, self._value(row, "shard"))
        if member == "json" and self.has_records_file:
            path = self.folder / RECORDS_FILE
        offset, size = (self._value(row, f"{member}_{what}") for what in ("offset", "size"))
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
        if info.get("format") != "vatt-shards":
            raise ValueError(f"format {info.get('format')!r}, expected 'vatt-shards'")
        refuse_newer(path, info["format_version"], FORMAT_VERSION, DataError)
    except FileNotFoundError:
        raise DataError(
            f"{path}: missing; expected a folder made by `vatt prepare` (if it was interrupted, "
            "the same command finishes it)"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not the description of a prepared folder ({error})") from error
    if info.get("records", RECORDS_FILE) != RECORDS_FILE:
        raise DataError(f"{path}: records in {info['records']!r}, expected {RECORDS_FILE!r}")
    return dict(info)
