"""Prepared data on disk: tar shards of videos, one index over them, and what was skipped.

    shard-000000.tar     members <key>.mp4 and <key>.json, in WebDataset's layout
    index.parquet        one row per video: where its bytes lie, and what a sampler needs to know
    dataset.json         format version, totals, how it was made, counts of what was skipped
    failures.jsonl       one line per skipped item

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

from vatt.data.records import SampleRecord
from vatt.errors import DataError
from vatt.media.container import FilePart

FORMAT_VERSION = "1.0"  # a reader refuses a newer major version
INDEX_FILE, DATASET_FILE, FAILURES_FILE = "index.parquet", "dataset.json", "failures.jsonl"

_KEY = re.compile(r"[A-Za-z0-9_-]{1,90}")  # no dots: WebDataset cuts names at the first one
_SHARD = re.compile(r"[A-Za-z0-9_.-]{1,200}\.tar")
_MAX_RECORD_BYTES = 64 * 2**20

_INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),
        ("video_offset", pa.int64()),
        ("video_size", pa.int64()),
        ("json_offset", pa.int64()),
        ("json_size", pa.int64()),
        ("duration_s", pa.float64()),
        ("fps", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("has_audio", pa.bool_()),
        ("captions", pa.int32()),  # how many
        ("labels", pa.int32()),  # how many
        ("cuts", pa.list_(pa.float64())),  # seconds; no clip may cross them
        ("sha256", pa.string()),  # of the video member
        ("split", pa.string()),
    ]
)


class ShardWriter:
    """Writes one shard; use as a context manager. An error inside the block leaves no shard."""

    def __init__(self, path: Path) -> None:
        assert _SHARD.fullmatch(path.name), path.name
        self.path = path
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
            self._member(f"{record.key}.mp4", content, size)
        text = replace(record, sha256=digest).to_json()
        self._member(f"{record.key}.json", BytesIO(text), len(text))

    def _member(self, name: str, content: BinaryIO, size: int) -> None:
        member = tarfile.TarInfo(name)  # time and owner stay 0: the same videos, the same bytes
        member.size = size
        self._tar.addfile(member, content)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._tar.close()
        _finish(self._file, self._aside, self.path if kind is None else None)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file aside, flush it to the disk and rename it: it is whole or absent."""
    aside = path.with_name(path.name + ".part")
    with aside.open("wb") as file:
        file.write(content)
        _finish(file, aside, path)


def _finish(file: BinaryIO, aside: Path, path: Path | None) -> None:
    if path is None:
        file.close()
        aside.unlink(missing_ok=True)
        return
    file.flush()
    os.fsync(file.fileno())
    file.close()
    aside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)


def shard_paths(folder: Path) -> list[Path]:
    """The finished shards of a folder, in order."""
    return sorted(path for path in folder.glob("shard-*.tar") if _SHARD.fullmatch(path.name))


def read_shard(path: Path) -> Iterator[tuple[SampleRecord, dict[str, Any]]]:
    """The records of a shard, each with its row of the index.

    Raises:
        DataError: the tar is damaged, or holds anything but pairs of `<key>.mp4` and `<key>.json`.
    """
    try:
        with tarfile.open(path, mode="r:") as tar:
            while (video := tar.next()) is not None:
                text = tar.next()
                record = _read_pair(path, tar, video, text)
                assert text is not None
                yield record, _index_row(path.name, record, video, text)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            f"{path}: not a whole tar file ({error}); remove it and prepare again"
        ) from error


def _read_pair(
    path: Path, tar: tarfile.TarFile, video: tarfile.TarInfo, text: tarfile.TarInfo | None
) -> SampleRecord:
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
    return SampleRecord.from_json(content.read(), where=f"{path}: {text.name}")


def _index_row(
    shard: str, record: SampleRecord, video: tarfile.TarInfo, text: tarfile.TarInfo
) -> dict[str, Any]:
    picture = record.facts.video
    return {
        "key": record.key,
        "shard": shard,
        "video_offset": video.offset_data,
        "video_size": video.size,
        "json_offset": text.offset_data,
        "json_size": text.size,
        "duration_s": record.facts.duration_s,
        "fps": float(picture.fps or 0) if picture else 0.0,
        "width": picture.width if picture else 0,
        "height": picture.height if picture else 0,
        "has_audio": record.facts.audio is not None,
        "captions": len(record.captions),
        "labels": len(record.labels),
        "cuts": list(record.cuts),
        "sha256": record.sha256,
        "split": record.split,
    }


def write_index(
    folder: Path, *, made: Mapping[str, Any], failures: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Make index.parquet, failures.jsonl and, last, dataset.json from the shards of a folder.

    Args:
        folder: holds the shards.
        made: how they were made (settings, versions), kept in dataset.json.
        failures: one mapping per skipped item, with at least `source` and `cause`.

    Returns:
        What dataset.json holds.
    """
    rows, missing = [], Counter[str]()
    for path in shard_paths(folder):
        for record, row in read_shard(path):
            rows.append(row)
            missing.update(record.missing.keys())
    splits = sorted({row["split"] for row in rows})
    info = {
        "format": "vatt-shards",
        "format_version": FORMAT_VERSION,
        "shards": len(shard_paths(folder)),
        **_totals(rows),
        "splits": {name: _totals([row for row in rows if row["split"] == name]) for name in splits},
        "missing": dict(sorted(missing.items())),
        "skipped": dict(sorted(Counter(item["cause"] for item in failures).items())),
        "made": dict(made),
    }
    table = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=_INDEX_SCHEMA), table)
    write_whole(folder / INDEX_FILE, table.getvalue())
    lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in failures)
    write_whole(folder / FAILURES_FILE, lines.encode())
    write_whole(folder / DATASET_FILE, json.dumps(info, ensure_ascii=False, indent=2).encode())
    return info


def _totals(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "videos": len(rows),
        "hours": sum(row["duration_s"] for row in rows) / 3600,
        "bytes": sum(row["video_size"] for row in rows),
        "with_audio": sum(row["has_audio"] for row in rows),
        "captions": sum(row["captions"] for row in rows),
        "labels": sum(row["labels"] for row in rows),
    }


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
        info = _read_info(folder)
        try:
            index = pq.read_table(folder / INDEX_FILE).select(_INDEX_SCHEMA.names)
            index = index.cast(_INDEX_SCHEMA)
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            raise DataError(
                f"{folder / INDEX_FILE}: cannot be read ({error}); run `vatt prepare` again with "
                "the same settings: it makes the index anew from the shards"
            ) from error
        dataset = cls(folder, index, info)
        dataset._check_shards()
        return dataset

    def _check_shards(self) -> None:
        ends = self.index.append_column(
            "end", pc.add(self.index["json_offset"], self.index["json_size"])
        )
        for row in ends.group_by("shard").aggregate([("end", "max")]).to_pylist():
            name, end = row["shard"], row["end_max"]
            if not _SHARD.fullmatch(name):
                raise DataError(f"{self.folder / INDEX_FILE}: {name!r} is no name of a shard")
            path = self.folder / name
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

    def locate(self, row: int) -> FilePart:
        """Where the stored video of a row lies."""
        return FilePart(
            self.folder / self._value(row, "shard"),
            self._value(row, "video_offset"),
            self._value(row, "video_size"),
        )

    def read_video(self, row: int) -> bytes:
        """The stored video file of a row.

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
        return SampleRecord.from_json(self._read(row, "json"), where=where)

    def verify(self, row: int) -> None:
        """Check the stored video against its checksum.

        Raises:
            DataError: they differ.
        """
        found = hashlib.sha256(self.read_video(row)).hexdigest()
        expected = self._value(row, "sha256")
        if found != expected:
            raise DataError(
                f"{self.folder / self._value(row, 'shard')}: {self._value(row, 'key')}.mp4: "
                f"checksum {found[:12]}…, expected {expected[:12]}…; copy the shard again"
            )

    def _value(self, row: int, column: str) -> Any:
        return self.index[column][row].as_py()

    def _read(self, row: int, part: str) -> bytes:
        path = self.folder / self._value(row, "shard")
        size = self._value(row, f"{part}_size")
        try:
            with path.open("rb") as file:
                file.seek(self._value(row, f"{part}_offset"))
                content: bytes = file.read(size)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        if len(content) < size:
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
    return dict(info)
