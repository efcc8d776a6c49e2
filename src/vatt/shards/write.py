"""Write shards and the index over them, each file atomically."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Self

import pyarrow as pa
import pyarrow.parquet as pq

from vatt.shards.index import index_row, index_table, totals
from vatt.shards.layout import (
    DATASET_FILE,
    FAILURES_FILE,
    FORMAT_VERSION,
    INDEX_FILE,
    KEY,
    RECORDS_FILE,
    SHARD_NAME,
    shard_paths,
)
from vatt.shards.read import read_shard
from vatt.shards.record import SampleRecord, json_bytes
from vatt.storage import atomic_file, write_atomically


class ShardWriter:
    """Writes one shard; use as a context manager. An error inside the block leaves no shard."""

    def __init__(self, path: Path) -> None:
        assert SHARD_NAME.fullmatch(path.name), path.name
        self.path = path
        self.rows: list[dict[str, Any]] = []  # of the index, one for each video so far
        with ExitStack() as opened:
            self._file = opened.enter_context(opened.enter_context(atomic_file(path)).open("wb"))
            self._tar = opened.enter_context(
                tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)
            )
            self._opened = opened.pop_all()

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    def add(self, record: SampleRecord, video: Path | bytes) -> None:
        """Append one video and its record; the record's checksum is filled in here."""
        assert KEY.fullmatch(record.key), record.key
        with video.open("rb") if isinstance(video, Path) else BytesIO(video) as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            size = content.seek(0, os.SEEK_END)
            content.seek(0)
            video_at = self._member(f"{record.key}.mp4", content, size), size
        record = replace(record, sha256=digest)
        text = record.to_json()
        text_at = self._member(f"{record.key}.json", BytesIO(text), len(text)), text
        self.rows.append(index_row(self.path.name, record, video_at, text_at))

    def copy(self, row: Mapping[str, Any], shard: BinaryIO) -> None:
        """Append a video and its record from where a row of the index has them in another shard."""

        def member(kind: str, ending: str) -> int:
            shard.seek(row[f"{kind}_offset"])
            content = BytesIO(shard.read(size := row[f"{kind}_size"]))
            return self._member(f"{row['key']}.{ending}", content, size)

        places = {"video_offset": member("video", "mp4"), "json_offset": member("json", "json")}
        self.rows.append({**row, "shard": self.path.name, **places})

    def _member(self, name: str, content: BinaryIO, size: int) -> int:
        """Append a file; returns the offset of its content."""
        member = tarfile.TarInfo(name)  # time and owner stay 0: the same videos, the same bytes
        member.size = size
        self._tar.addfile(member, content)
        padding = -size % tarfile.BLOCKSIZE
        return self._file.tell() - size - padding

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)


def write_index(
    folder: Path,
    *,
    made: Mapping[str, Any],
    skipped: Sequence[Mapping[str, Any]] = (),
    table: pa.Table | None = None,
    records_beside: bool = False,
) -> dict[str, Any]:
    """Make index.parquet, failures.jsonl and, last, dataset.json from the shards of a folder.

    Args:
        folder: holds the shards.
        made: how they were made (settings, versions), kept in dataset.json.
        skipped: one mapping per skipped item, with at least `source` and `cause`.
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
        "skipped": dict(sorted(Counter(one["cause"] for one in skipped).items())),
        "made": dict(made),
        **({"records": RECORDS_FILE} if records_beside else {}),
    }
    content = BytesIO()
    pq.write_table(table, content)
    write_atomically(folder / INDEX_FILE, content.getvalue())
    lines = b"".join(json_bytes(one) + b"\n" for one in skipped)
    write_atomically(folder / FAILURES_FILE, lines)
    write_atomically(folder / DATASET_FILE, json.dumps(info, ensure_ascii=False, indent=2))
    return info
