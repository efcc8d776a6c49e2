"""The index of a prepared folder: a row for each stored video, and what they add up to."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vatt.media.frame_filters import shown_size
from vatt.shards.record import SampleRecord

REQUIRED_COLUMNS = pa.schema(
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
# Of tars made by others, where the audio may be a member of its own; null elsewhere.
AUDIO_MEMBER_COLUMNS = pa.schema([("sound_offset", pa.int64()), ("sound_size", pa.int64())])
# Since 1.2: start and end of each gap, in seconds; null in older folders.
GAPS_COLUMNS = pa.schema([("gaps", pa.list_(pa.float64()))])
# Columns since 1.1; a reader does without.
ALL_COLUMNS = pa.schema(
    [
        *REQUIRED_COLUMNS,
        ("source", pa.string()),  # for people: bytes that are no text are escaped
        ("part", pa.int32()),
        ("parts", pa.int32()),
        ("source_bytes", pa.int64()),
        ("source_sha256", pa.string()),
        ("missing", pa.list_(pa.string())),
        ("captions_from", pa.string()),  # file, stream, or the program that heard them
        ("language", pa.string()),
        ("json_sha256", pa.string()),  # of the record
        *GAPS_COLUMNS,
        *AUDIO_MEMBER_COLUMNS,
    ]
)


def index_row(
    shard: str, record: SampleRecord, video_at: tuple[int, int], text_at: tuple[int, bytes]
) -> dict[str, Any]:
    """A row of the index: the video's offset and size, the record's offset and content."""
    video = record.facts.video
    height, width = (
        (0, 0)
        if video is None
        else map(
            round, shown_size(video.height, video.width, video.sample_aspect, video.rotation // 90)
        )
    )
    return {
        "key": record.key,
        "shard": shard,
        "video_offset": video_at[0],
        "video_size": video_at[1],
        "json_offset": text_at[0],
        "json_size": len(text_at[1]),
        "duration_s": record.facts.duration_s,
        "fps": float(video.fps or 0) if video else 0.0,
        "width": width,
        "height": height,
        "has_audio": record.facts.audio is not None,
        "captions": len(record.captions),
        "labels": len(record.labels),
        "cuts": list(record.cuts),
        "gaps": [time_s for gap in record.gaps for time_s in (gap.start_s, gap.end_s)],
        "sha256": record.sha256,
        "split": record.split,
        "source": os.fsencode(record.source).decode("utf-8", "backslashreplace"),
        "part": record.part.index if record.part else 0,
        "parts": record.part.count if record.part else 1,
        "source_bytes": record.source_bytes,
        "source_sha256": record.source_sha256,
        "missing": sorted(record.missing),
        "captions_from": record.captions_kind,
        "language": record.language,
        "json_sha256": hashlib.sha256(text_at[1]).hexdigest(),
    }


def index_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as the table that index.parquet holds."""
    return pa.Table.from_pylist(rows, schema=ALL_COLUMNS)


def _counts(column: Any) -> dict[str, int]:
    """How often each value stands in a column of names, by name."""
    found = {one["values"]: one["counts"] for one in pc.value_counts(column).to_pylist()}
    return dict(sorted(found.items()))


def totals(table: pa.Table) -> dict[str, Any]:
    """What dataset.json says of the rows of an index: sums of all, and of each split."""
    splits = sorted(pc.unique(table["split"]).to_pylist())
    damaged = damage_lost_s(table)
    return {
        "shards": pc.count_distinct(table["shard"]).as_py(),
        **_totals(table),
        "damaged": len(damaged),
        "lost_s": sum(damaged.values()),
        "splits": {name: _totals(table.filter(pc.equal(table["split"], name))) for name in splits},
        "missing": _counts(pc.list_flatten(table["missing"])),
    }


def caption_sources(table: pa.Table) -> dict[str, int]:
    """How many videos have captions of which origin and language, such as {"file, en": 3}."""
    captioned = pc.and_(pc.equal(table["part"], 0), pc.not_equal(table["captions_from"], ""))
    found = table.filter(captioned)
    languages = pc.if_else(pc.equal(found["language"], ""), "language unknown", found["language"])
    return _counts(pc.binary_join_element_wise(found["captions_from"], languages, ", "))


def damage_lost_s(table: pa.Table) -> dict[str, float]:
    """Source → seconds in its gaps, of the sources that have any; by name."""
    lost_s = dict[str, float]()
    damaged = table.filter(pc.greater(pc.list_value_length(table["gaps"]), 0))
    for row in damaged.select(["source", "gaps"]).to_pylist():
        seconds = sum(row["gaps"][1::2]) - sum(row["gaps"][::2])
        lost_s[row["source"]] = lost_s.get(row["source"], 0.0) + seconds
    return dict(sorted(lost_s.items()))


def num_sources(table: pa.Table) -> int:
    """How many videos were prepared, however many parts they have."""
    return int(pc.sum(pc.equal(table["part"], 0)).as_py() or 0)


def _totals(table: pa.Table) -> dict[str, Any]:
    def total(column: str) -> Any:
        return pc.sum(table[column]).as_py() or 0

    return {
        "videos": table.num_rows,
        "hours": total("duration_s") / 3600,
        "bytes": total("video_size"),
        "with_audio": total("has_audio"),
        "captions": total("captions"),
        "labels": total("labels"),
    }
