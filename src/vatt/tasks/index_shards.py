"""`vatt index-shards`: WebDataset tars made by others become a prepared folder, without a copy."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
from tyro.conf import Positional

from vatt.errors import ConfigError, DataError
from vatt.ingest.foreign import Indexed, Sample, index_sample, list_tar
from vatt.ingest.sources import Skipped
from vatt.shards.index import WRITTEN_SCHEMA, index_table
from vatt.shards.layout import (
    DATASET_FILE,
    FAILURES_FILE,
    RECORDS_FILE,
    is_shard_name,
    shard_paths,
    tar_paths,
)
from vatt.shards.read import ShardFolder
from vatt.shards.tar import COMPRESSED, STRANGE
from vatt.shards.write import write_index
from vatt.workers.pool import run_in_order
from vatt.workers.process import Lost

logger = logging.getLogger(__name__)

_PACKED = ("*.tar.gz", "*.tgz", "*.tar.bz2", "*.tar.xz", "*.tar.zst")
_AT_ONCE = 16  # tars whose samples are in memory
_SAVE_AFTER_S = 60.0  # an index of what is done so far, so that a killed run can go on


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexShardsConfig:
    """Write an index beside WebDataset tars; the same command reads tars that were added since."""

    folder: Positional[Path]
    """Holds the tars, also in folders below: train/00000.tar …"""
    workers: int = 0
    """Processes; 0 takes one per core."""
    max_bad_fraction: float = 0.1
    """With a larger share of videos and members refused, the exit code is 1."""
    overwrite: bool = False
    """Forget what an earlier run read; the tars themselves are never changed."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ConfigError(f"workers: found {self.workers}, expected 0 or more")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError(f"max_bad_fraction: found {self.max_bad_fraction}, expected 0 to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexShardsResult:
    """What the folder holds now; `read` counts the tars that this run read.

    skipped: cause → how many. other_members: ending → how many were of no use, in this run.
    problem: why the exit code is 1.
    """

    folder: Path
    tars: int
    read: int
    videos: int
    hours: float
    gigabytes: float
    splits: Mapping[str, Mapping[str, Any]]
    missing: Mapping[str, int]
    skipped: Mapping[str, int]
    other_members: Mapping[str, int]
    seconds: float
    problem: str | None

    def shown(self) -> dict[str, Any]:
        """For people: without what there is none of."""
        given = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: one for name, one in given.items() if name != "problem" and one != {}}


@dataclass(slots=True, kw_only=True)
class _State:
    """What is known of the folder so far.

    tars: name → size and time of change, of those that were read.
    failures: lines of failures.jsonl, each with its tar.
    """

    table: pa.Table = field(default_factory=lambda: index_table([]))
    tars: dict[str, list[int]] = field(default_factory=dict)
    failures: list[dict[str, str]] = field(default_factory=list)
    other: Counter[str] = field(default_factory=Counter)


def run(config: IndexShardsConfig) -> IndexShardsResult:
    """Index the tars that are new or have changed; those that are gone are forgotten.

    Raises:
        ConfigError: the folder does not exist, or was made by `vatt prepare`.
        DataError: there are no tars, or the folder cannot be written.
    """
    started = time.monotonic()
    stamps = _stamps(config.folder)
    try:
        state = _State() if config.overwrite else _known(config.folder, stamps)
        new = [name for name in stamps if name not in state.tars]
        with _records(config.folder, state) as records:
            saved = time.monotonic()
            for done in _index(config, new, state, records):
                state.tars |= {name: stamps[name] for name in done}
                if time.monotonic() - saved > _SAVE_AFTER_S:
                    _save(config.folder, state)
                    saved = time.monotonic()
        info = _save(config.folder, state)
    except OSError as error:
        raise DataError(
            f"{error.filename or config.folder}: {error.strerror}; the index is written beside the "
            "tars: make the folder writable, or make a folder with links to them"
        ) from error
    return IndexShardsResult(
        folder=config.folder,
        tars=len(stamps),
        read=len(new),
        videos=info["videos"],
        hours=info["hours"],
        gigabytes=info["bytes"] / 1e9,
        splits=info["splits"],
        missing=info["missing"],
        skipped=info["skipped"],
        other_members=dict(sorted(state.other.items())),
        seconds=time.monotonic() - started,
        problem=_too_many(config, info["videos"], state.failures),
    )


def _stamps(folder: Path) -> dict[str, list[int]]:
    """Size and time of change of every tar, packed ones too."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; expected one with WebDataset tars")
    if (folder / "config.toml").exists() and shard_paths(folder):
        raise ConfigError(f"{folder}: made by `vatt prepare`, which writes the index itself")
    paths = [*tar_paths(folder), *sorted(path for end in _PACKED for path in folder.rglob(end))]
    if not paths:
        raise DataError(f"{folder}: holds no .tar; expected WebDataset shards, such as 00000.tar")
    stats = {path.relative_to(folder).as_posix(): path.stat() for path in paths}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def _known(folder: Path, stamps: Mapping[str, list[int]]) -> _State:
    """What an earlier run found in tars that are still as they were."""
    if not (folder / DATASET_FILE).exists():
        return _State()
    try:
        data = ShardFolder.load(folder, WRITTEN_SCHEMA)
        if "records" not in data.info:
            raise ConfigError(f"{folder}: has an index already, of `vatt prepare`")
        before = data.info["made"]["tars"]
        lines = (folder / FAILURES_FILE).read_bytes().splitlines()
        failures = [json.loads(line) for line in lines]
        tars = {name: stamps[name] for name, stamp in before.items() if stamps.get(name) == stamp}
        same = pa.array(list(tars), pa.string())
        return _State(
            table=data.index.filter(pc.is_in(data.index["shard"], value_set=same)),
            tars=tars,
            failures=[line for line in failures if line["tar"] in tars],
        )
    except (DataError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s: what an earlier run wrote is damaged (%s); read anew", folder, error)
        return _State()


def _records(folder: Path, state: _State) -> BinaryIO:
    """The file of records, open behind the last one that an index knows."""
    file = (folder / RECORDS_FILE).open("ab" if len(state.table) else "wb")
    file.seek(0, 2)
    return file


def _index(
    config: IndexShardsConfig, tars: Sequence[str], state: _State, records: BinaryIO
) -> Iterator[Sequence[str]]:
    """Read tars, some at a time; yields which are done. Their records are on the disk then."""
    taken = set(state.table["key"].to_pylist())
    for first in range(0, len(tars), _AT_ONCE):
        chunk = tars[first : first + _AT_ONCE]
        samples = list(_samples(config, chunk, state, taken))
        says = f"videos of tars {first + 1}-{first + len(chunk)} of {len(tars)}"
        rows = []
        for sample, outcome in run_in_order(
            index_sample, samples, workers=config.workers, progress=says
        ):
            if isinstance(outcome, Indexed):
                at = records.tell()
                records.write(outcome.text + b"\n")
                rows.append(outcome.row | {"json_offset": at})
            else:
                _fail(state, sample.tar, outcome, sample.source)
        records.flush()
        os.fsync(records.fileno())
        state.table = pa.concat_tables([state.table, index_table(rows)])
        yield chunk


def _samples(
    config: IndexShardsConfig, tars: Sequence[str], state: _State, taken: set[str]
) -> Iterator[Sample]:
    """The samples of tars; a key that is taken gets the tar's name before it."""
    good = []
    for name in tars:
        if is_shard_name(name):
            good.append((config.folder, name))
        else:
            reason = f"{config.folder / name}: not read"
            cause = COMPRESSED if not name.endswith(".tar") else STRANGE
            advice = "unpack it to a plain .tar" if cause == COMPRESSED else "rename it"
            _fail(state, name, Skipped(source=name, cause=cause, reason=f"{reason}; {advice}"))
    for (_, name), listing in run_in_order(list_tar, good, workers=config.workers, progress="tars"):
        if isinstance(listing, Lost):
            _fail(state, name, listing, name)
            continue
        state.other.update(listing.other)
        for failure in listing.failures:
            _fail(state, name, failure)
        for sample in listing.samples:
            if sample.key in taken:
                stem = PurePosixPath(name).with_suffix("")
                sample = replace(sample, key=str(stem / PurePosixPath(sample.key).name))
            taken.add(sample.key)
            yield sample


def _fail(state: _State, tar: str, failure: Skipped | Lost, source: str = "") -> None:
    if isinstance(failure, Lost):
        failure = Skipped(source=source, cause=failure.cause, reason=f"{source}: {failure.reason}")
    state.failures.append({**asdict(failure), "tar": tar})


def _save(folder: Path, state: _State) -> dict[str, Any]:
    made = {
        "command": "index-shards",
        "tars": state.tars,
        "versions": {"vatt": importlib.metadata.version("vatt")},
    }
    return write_index(
        folder, made=made, failures=state.failures, table=state.table, records_beside=True
    )


def _too_many(
    config: IndexShardsConfig, videos: int, failures: Sequence[Mapping[str, str]]
) -> str | None:
    if not failures or len(failures) <= config.max_bad_fraction * (videos + len(failures)):
        return None
    counts = Counter(failure["cause"] for failure in failures)
    causes = ", ".join(f"{count} {cause}" for cause, count in counts.most_common())
    return (
        f"{config.folder}: {len(failures)} of {videos + len(failures)} were refused ({causes}; "
        f"first: {failures[0]['reason']}), expected at most {config.max_bad_fraction:.0%}; see "
        f"{config.folder / FAILURES_FILE}, or raise max_bad_fraction"
    )
