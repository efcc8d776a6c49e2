"""Check the index against the shards: a row points to the video it names, a video has its row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vatt.audit.findings import Finding
from vatt.errors import DataError
from vatt.shards.index import (
    ALL_COLUMNS,
    AUDIO_MEMBER_COLUMNS,
    GAPS_COLUMNS,
    REQUIRED_COLUMNS,
    totals,
)
from vatt.shards.layout import INDEX_FILE, shard_path, shard_paths, tar_paths
from vatt.shards.read import ShardFolder
from vatt.shards.tar import COMPRESSED, DAMAGED, STRANGE, Member, Refused, read_members
from vatt.workers.process import TimeLimit

_PLACES = ("key", "video_offset", "video_size", "json_offset", "json_size")
_SHOWN = 20  # findings of one kind in one shard; one more says how many more there are


def open_index(folder: Path) -> ShardFolder:
    """The index with all of its columns, each value checked.

    Raises:
        DataError: it is missing or damaged, or has no value where every version has one.
    """
    data = ShardFolder.load(folder, ALL_COLUMNS)
    path = folder / INDEX_FILE
    try:
        data.index.validate(full=True)
    except pa.ArrowException as error:
        raise DataError(f"{path}: damaged: {error}") from error
    names = {*ALL_COLUMNS.names} - {*AUDIO_MEMBER_COLUMNS.names, *GAPS_COLUMNS.names}
    for name in REQUIRED_COLUMNS.names if data.info["format_version"] == "1.0" else sorted(names):
        if lacking := data.index[name].null_count:
            raise DataError(f"{path}: damaged: {lacking} rows without {name}")
    return data


def check_index(data: ShardFolder) -> Iterator[Finding]:
    """Keys that more than one row has, and counts in dataset.json that the index does not have."""
    folder = str(data.folder)
    for one in pc.value_counts(data.index["key"]).to_pylist():
        if (count := one["counts"]) > 1:
            detail, key = f"{count} rows", one["values"]
            yield Finding("same key twice", folder=folder, key=key, detail=detail, weight=count)
    expected = totals(data.index)
    for name in ("shards", "videos", "bytes", "with_audio", "captions", "labels"):
        if (found := data.info.get(name)) != expected[name]:
            detail = f"dataset.json: {name}: found {found!r}, the index has {expected[name]:,}"
            yield Finding("index differs", folder=folder, detail=detail)
    splits = data.info.get("splits")
    if not isinstance(splits, dict) or [*splits] != [*expected["splits"]]:
        detail = f"dataset.json: other splits than the index, which has {[*expected['splits']]}"
        yield Finding("index differs", folder=folder, detail=detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedShard:
    """A shard to check, and its rows of the index.

    foreign: written by others (`vatt index-shards`): its records lie in a file beside it.
    places: column → a value for each row.
    """

    folder: Path
    name: str
    foreign: bool
    places: Mapping[str, Sequence[Any]]


def indexed_shards(data: ShardFolder) -> Iterator[IndexedShard]:
    """Every shard that the index names or the folder holds."""
    foreign, listed = bool(data.info.get("records")), set()
    if foreign:  # a tar with nothing of use has been read and has no row
        made = data.info.get("made")
        tars = made.get("tars") if isinstance(made, dict) else None
        listed = set(tars) if isinstance(tars, dict) else set()
    table = data.index.select(["shard", *_PLACES])
    table = table.take(pc.sort_indices(table["shard"]))
    names = table["shard"].to_numpy()
    borders = np.flatnonzero(names[1:] != names[:-1]) + 1 if len(names) else np.array([], int)
    for first, last in zip([0, *borders], [*borders, len(names)], strict=True):
        if first < last:
            name, rows = names[first], table.slice(first, last - first)
            places = rows.select(_PLACES).to_pydict()
            listed.add(name)
            yield IndexedShard(folder=data.folder, name=name, foreign=foreign, places=places)
    for path in tar_paths(data.folder) if foreign else shard_paths(data.folder):
        name = path.relative_to(data.folder).as_posix()
        if name not in listed:
            places = {column: [] for column in _PLACES}
            yield IndexedShard(folder=data.folder, name=name, foreign=foreign, places=places)


def check_shard(shard: IndexedShard, _: TimeLimit) -> list[Finding]:
    """Read the headers of a shard and compare them with the index."""
    findings = list[Finding]()

    def add(kind: str, detail: str, *, key: str = "", weight: float = 0.0) -> None:
        folder = str(shard.folder)
        findings.append(
            Finding(kind, folder=folder, shard=shard.name, key=key, detail=detail, weight=weight)
        )

    def add_first(kind: str, keys_and_details: Iterator[tuple[str, str]]) -> None:
        """The first few of many: a shard that belongs to another index has thousands."""
        for key, detail in islice(keys_and_details, _SHOWN):
            add(kind, detail, key=key)
        if more := sum(1 for _ in keys_and_details):
            add(kind, f"and {more} more in this shard", weight=-1.0)

    try:
        path = shard_path(shard.folder, shard.name)
    except DataError as error:
        add("wrong place", str(error))
        return findings
    if not path.is_file():
        lost = len(shard.places["key"])
        add("missing shard", f"{lost} videos", weight=lost)
        return findings
    if not shard.places["key"]:
        add("not in the index", "the whole shard")
        return findings
    found = list(read_members(path))
    kinds = {COMPRESSED: DAMAGED, STRANGE: "refused member" if shard.foreign else STRANGE}
    refused = [one for one in found if isinstance(one, Refused)]
    for one in refused:
        add(kinds.get(one.cause, one.cause), one.reason)
    members = {one.offset: one for one in found if isinstance(one, Member)}
    damaged = any(one.cause in (DAMAGED, COMPRESSED) for one in refused)
    add_first("wrong place", _misplaced(shard, members, damaged=damaged))
    if not shard.foreign:  # there, refused members and those that are no videos have no row
        known = {*shard.places["video_offset"], *shard.places["json_offset"]}
        extra = [one.name for at, one in members.items() if at not in known]
        add_first("not in the index", ((Path(name).stem, name) for name in extra))
    return findings


def _misplaced(
    shard: IndexedShard, members: Mapping[int, Member], *, damaged: bool
) -> Iterator[tuple[str, str]]:
    """Key and detail of each video or record that is not where the index has it."""
    last = max(members, default=0)
    for key, *places in zip(*(shard.places[name] for name in _PLACES), strict=True):
        parts = [("video", "mp4", *places[:2])]
        parts += [] if shard.foreign else [("record", "json", *places[2:])]
        for part, ending, offset, size in parts:
            if damaged and offset > last:
                continue  # no headers behind the damage; check_videos compares the bytes
            member = members.get(offset)
            name = PurePosixPath(member.name).name if member else ""
            stem = normalize("NFC", PurePosixPath(key).name)  # keys of older versions may not be
            named = normalize("NFC", name).startswith(f"{stem}.")
            if member is None or member.size != size or not named:
                found = f"{member.name} of {member.size:,} bytes" if member else "no file"
                expected = f"its {part} ({ending}) of {size:,} bytes"
                yield key, f"at byte {offset:,}: found {found}, expected {expected}"
