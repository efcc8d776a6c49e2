"""One run of `vatt index-shards`: WebDataset tars made by others get an index beside them."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from vatt.errors import ConfigError, DataError
from vatt.ingest.foreign_samples import Indexed, Sample, index_sample, list_tar
from vatt.ingest.sources import Skipped
from vatt.shards.index import ALL_COLUMNS, index_table
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
from vatt.storage import flush
from vatt.workers.pool import run_in_order
from vatt.workers.process import Lost

_PACKED = ("*.tar.gz", "*.tgz", "*.tar.bz2", "*.tar.xz", "*.tar.zst")
_AT_ONCE = 16  # tars whose samples are in memory
_SAVE_AFTER_S = 60.0  # an index of what is done so far, so that a killed run can go on
_logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class IndexedTars:
    """What is known of the folder: by a run that lasts, or is done.

    table: the index's rows of all samples.
    tars: name → size and time of change, of those that were read; `read` by this run.
    skipped: members and tars, each with the name of its tar.
    other: ending → how many members were of no use, in this run.
    """

    table: pa.Table = field(default_factory=lambda: index_table([]))
    tars: dict[str, list[int]] = field(default_factory=dict)
    read: int = 0
    skipped: list[tuple[Skipped, str]] = field(default_factory=list)
    other: Counter[str] = field(default_factory=Counter)
    keys: set[str] = field(init=False)  # of all samples, also of skipped ones

    def __post_init__(self) -> None:
        self.keys = set(self.table["key"].to_pylist())

    def skip(self, tar: str, outcome: Skipped | Lost, source: str = "") -> None:
        """Keep what was not indexed; `source` names the item of a lost process."""
        if isinstance(outcome, Lost):
            reason = f"{source}: {outcome.reason}"
            outcome = Skipped(source=source, cause=outcome.cause, reason=reason)
        self.skipped.append((outcome, tar))


def index_tars(folder: Path, *, workers: int = 0, overwrite: bool = False) -> IndexedTars:
    """Index the tars that are new or have changed; those that are gone are forgotten.

    Args:
        folder: holds the tars, also in folders below.
        workers: processes; 0 takes one per core.
        overwrite: read all of them, whatever an earlier run has read.

    Raises:
        ConfigError: the folder does not exist, or was made by `vatt prepare`.
        DataError: there are no tars, or the folder cannot be written.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; expected one with WebDataset tars")
    if (folder / "config.toml").exists() and shard_paths(folder):
        raise ConfigError(f"{folder}: made by `vatt prepare`, which writes the index itself")
    paths = [*tar_paths(folder), *sorted(path for end in _PACKED for path in folder.rglob(end))]
    if not paths:
        raise DataError(f"{folder}: holds no .tar; expected WebDataset shards, such as 00000.tar")
    stats = {path.relative_to(folder).as_posix(): path.stat() for path in paths}
    stamps = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
    try:
        state = IndexedTars() if overwrite else _known(folder, stamps)
        new = [name for name in stamps if name not in state.tars]
        with (folder / RECORDS_FILE).open("ab" if len(state.table) else "wb") as records:
            records.seek(0, os.SEEK_END)  # behind the last one that an index knows
            saved = time.monotonic()
            for first in range(0, len(new), _AT_ONCE):
                tars = new[first : first + _AT_ONCE]
                says = f"videos of tars {first + 1}-{first + len(tars)} of {len(new)}"
                _index(folder, tars, state, records, workers=workers, says=says)
                state.tars |= {name: stamps[name] for name in tars}
                state.read += len(tars)
                if time.monotonic() - saved > _SAVE_AFTER_S:
                    _save(folder, state)
                    saved = time.monotonic()
        _save(folder, state)
    except OSError as error:
        raise DataError(
            f"{error.filename or folder}: {error.strerror}; the index is written beside the "
            "tars: make the folder writable, or make a folder with links to them"
        ) from error
    return state


def _known(folder: Path, stamps: Mapping[str, list[int]]) -> IndexedTars:
    """What an earlier run found in tars that are still as they were."""
    if not (folder / DATASET_FILE).exists():
        return IndexedTars()
    try:
        data = ShardFolder.load(folder, ALL_COLUMNS)
        if not data.has_records_file:
            raise ConfigError(f"{folder}: has an index already, of `vatt prepare`")
        before = data.info["made"]["tars"]
        tars = {name: stamps[name] for name, stamp in before.items() if stamps.get(name) == stamp}
        lines = (folder / FAILURES_FILE).read_bytes().splitlines()
        skipped = [(line.pop("tar"), line) for line in map(json.loads, lines)]
        same = pa.array(list(tars), pa.string())
        return IndexedTars(
            table=data.index.filter(pc.is_in(data.index["shard"], value_set=same)),
            tars=tars,
            skipped=[(Skipped(**line), tar) for tar, line in skipped if tar in tars],
        )
    except (DataError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _logger.warning("%s: what an earlier run wrote is damaged (%s); read anew", folder, error)
        return IndexedTars()


def _index(
    folder: Path,
    tars: Sequence[str],
    state: IndexedTars,
    records: BinaryIO,
    *,
    workers: int,
    says: str,
) -> None:
    """Read some tars; their records are on the disk afterwards."""
    samples = list(_samples(folder, tars, state, workers=workers))
    outcomes = run_in_order(index_sample, samples, workers=workers, progress=says)
    rows = []
    with closing(outcomes):
        for sample, outcome in outcomes:
            if isinstance(outcome, Indexed):
                rows.append(outcome.row | {"json_offset": records.tell()})
                records.write(outcome.text + b"\n")
            else:
                state.skip(sample.tar, outcome, sample.source)
    flush(records)
    state.table = pa.concat_tables([state.table, index_table(rows)])


def _samples(
    folder: Path, tars: Sequence[str], state: IndexedTars, *, workers: int
) -> Iterator[Sample]:
    """The samples of tars; a key that is taken gets the tar's name before it."""
    good = []
    for name in tars:
        if is_shard_name(name):
            good.append((folder, name))
        else:
            cause, advice = STRANGE, "rename it"
            if not name.endswith(".tar"):
                cause, advice = COMPRESSED, "unpack it to a plain .tar"
            reason = f"{folder / name}: not read; {advice}"
            state.skip(name, Skipped(source=name, cause=cause, reason=reason))
    listings = run_in_order(list_tar, good, workers=workers, progress="tars")
    with closing(listings):
        for (_, name), listing in listings:
            if isinstance(listing, Lost):
                state.skip(name, listing, name)
                continue
            state.other.update(listing.other)
            for skipped in listing.skipped:
                state.skip(name, skipped)
            for sample in listing.samples:
                if sample.key in state.keys:
                    stem = PurePosixPath(name).with_suffix("")
                    sample = replace(sample, key=str(stem / PurePosixPath(sample.key).name))
                state.keys.add(sample.key)
                yield sample


def _save(folder: Path, state: IndexedTars) -> None:
    made = {
        "command": "index-shards",
        "tars": state.tars,
        "versions": {"vatt": importlib.metadata.version("vatt")},
    }
    write_index(
        folder,
        made=made,
        skipped=[{**asdict(skipped), "tar": tar} for skipped, tar in state.skipped],
        table=state.table,
        records_beside=True,
    )
