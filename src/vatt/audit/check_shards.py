"""Index against shards: each row points to the video it names, and each video has its row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vatt.audit.findings import Finding
from vatt.errors import DataError
from vatt.shards.index import AUDIO_MEMBER_SCHEMA, INDEX_SCHEMA, WRITTEN_SCHEMA, totals
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
    data = ShardFolder.load(folder, WRITTEN_SCHEMA)
    path = folder / INDEX_FILE
    try:
        data.index.validate(full=True)
    except pa.ArrowException as error:
        raise DataError(f"{path}: damaged: {error}") from error
    names = {*WRITTEN_SCHEMA.names} - {*AUDIO_MEMBER_SCHEMA.names}
    for name in INDEX_SCHEMA.names if data.info["format_version"] == "1.0" else sorted(names):
        if lacking := data.index[name].null_count:
            raise DataError(f"{path}: damaged: {lacking} rows without {name}")
    return data


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSubject:
    """A shard to check, and its rows of the index.

    beside: the records lie in a file beside the shards, as those of others' tars do.
    places: column → a value for each row.
    """

    folder: Path
    name: str
    beside: bool
    places: Mapping[str, Sequence[Any]]


def shard_subjects(data: ShardFolder) -> Iterator[ShardSubject]:
    """Every shard that the index names or the folder holds."""
    beside = bool(data.info.get("records"))
    table = data.index.select(["shard", *_PLACES])
    table = table.take(pc.sort_indices(table["shard"]))
    names = table["shard"].to_numpy()
    borders = np.flatnonzero(names[1:] != names[:-1]) + 1 if len(names) else np.array([], int)
    listed = _tars_read(data.info) if beside else set()
    for first, last in zip([0, *borders], [*borders, len(names)], strict=True):
        if first < last:
            listed.add(names[first])
            places = table.slice(first, last - first).select(_PLACES).to_pydict()
            yield ShardSubject(folder=data.folder, name=names[first], beside=beside, places=places)
    for path in tar_paths(data.folder) if beside else shard_paths(data.folder):
        name = path.relative_to(data.folder).as_posix()
        if name not in listed:
            empty: dict[str, list[Any]] = {column: [] for column in _PLACES}
            yield ShardSubject(folder=data.folder, name=name, beside=beside, places=empty)


def _tars_read(info: Mapping[str, Any]) -> set[str]:
    """Tars that `vatt index-shards` has read; those with nothing of use have no row."""
    made = info.get("made")
    tars = made.get("tars") if isinstance(made, dict) else None
    return set(tars) if isinstance(tars, dict) else set()


def check_shard(subject: ShardSubject, _: TimeLimit) -> list[Finding]:
    """Read the headers of a shard and compare them with the index."""
    try:
        path = shard_path(subject.folder, subject.name)
    except DataError as error:
        return [_finding(subject, "wrong place", detail=str(error))]
    if not path.is_file():
        lost = len(subject.places["key"])
        return [_finding(subject, "missing shard", detail=f"{lost} videos", weight=lost)]
    if not subject.places["key"]:
        return [_finding(subject, "not in the index", detail="the whole shard")]
    found = list(read_members(path))
    refused = [one for one in found if isinstance(one, Refused)]
    members = {one.offset: one for one in found if isinstance(one, Member)}
    kinds = {COMPRESSED: DAMAGED, STRANGE: "refused member" if subject.beside else STRANGE}
    findings = [
        _finding(subject, kinds.get(one.cause, one.cause), detail=one.reason) for one in refused
    ]
    broken = any(one.cause in (DAMAGED, COMPRESSED) for one in refused)
    findings += _first(subject, "wrong place", _misplaced(subject, members, broken=broken))
    if (
        not subject.beside
    ):  # in others' tars, refused members and those that are no videos have no row
        claimed = {*subject.places["video_offset"], *subject.places["json_offset"]}
        extra = (
            (Path(one.name).stem, one.name) for at, one in members.items() if at not in claimed
        )
        findings += _first(subject, "not in the index", extra)
    return findings


def _misplaced(
    subject: ShardSubject, members: Mapping[int, Member], *, broken: bool
) -> Iterator[tuple[str, str]]:
    last = max(members, default=0)
    rows = zip(*(subject.places[name] for name in _PLACES), strict=True)
    for key, *places in rows:
        parts = [("video", "mp4", *places[:2])]
        parts += [] if subject.beside else [("record", "json", *places[2:])]
        for part, ending, offset, size in parts:
            if broken and offset > last:
                continue  # no headers behind the damage; check_videos compares the bytes
            member = members.get(offset)
            name = PurePosixPath(member.name).name if member else ""
            named = name.partition(".")[0] == PurePosixPath(key).name
            if member is None or member.size != size or not named:
                found = f"{member.name} of {member.size:,} bytes" if member else "no file"
                expected = f"its {part} ({ending}) of {size:,} bytes"
                yield key, f"at byte {offset:,}: found {found}, expected {expected}"


def _first(
    subject: ShardSubject, kind: str, faults: Iterator[tuple[str, str]]
) -> Iterator[Finding]:
    """The first few of many: a shard that belongs to another index has thousands."""
    for key, detail in islice(faults, _SHOWN):
        yield _finding(subject, kind, key=key, detail=detail)
    if more := sum(1 for _ in faults):
        yield _finding(subject, kind, detail=f"and {more} more in this shard", weight=-1.0)


def _finding(
    subject: ShardSubject, kind: str, *, key: str = "", detail: str = "", weight: float = 0.0
) -> Finding:
    return Finding(
        kind=kind,
        folder=str(subject.folder),
        shard=subject.name,
        key=key,
        detail=detail,
        weight=weight,
    )


def wrong_totals(data: ShardFolder) -> Iterator[Finding]:
    """Counts in dataset.json that are not those of the index."""
    expected = totals(data.index)
    for name in ("shards", "videos", "bytes", "with_audio", "captions", "labels"):
        if (found := data.info.get(name)) != expected[name]:
            detail = f"dataset.json: {name}: found {found!r}, the index has {expected[name]:,}"
            yield Finding(kind="index differs", folder=str(data.folder), detail=detail)
    splits = data.info.get("splits")
    if not isinstance(splits, dict) or [*splits] != [*expected["splits"]]:
        detail = f"dataset.json: other splits than the index, which has {[*expected['splits']]}"
        yield Finding(kind="index differs", folder=str(data.folder), detail=detail)


def repeated_keys(data: ShardFolder) -> Iterator[Finding]:
    """A finding for each key that more than one row has."""
    for one in pc.value_counts(data.index["key"]).to_pylist():
        if (count := one["counts"]) > 1:
            yield Finding(
                kind="same key twice",
                folder=str(data.folder),
                key=one["values"],
                detail=f"{count} rows",
                weight=count,
            )
