"""`vatt index-shards`: WebDataset tars made by others become a prepared folder, without a copy."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from vatt.errors import ConfigError
from vatt.ingest.foreign_run import index_tars
from vatt.ingest.sources import too_many_skipped
from vatt.shards.index import totals


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexShardsConfig:
    """Write an index beside WebDataset tars; the same command reads tars that were added since."""

    folder: Positional[Path]
    """Holds the tars, also in folders below: train/00000.tar …"""
    workers: int = 0
    """Processes; 0 takes one per core."""
    max_bad_fraction: float = 0.1
    """With a larger share refused, of all videos and refused members, the exit code is 1."""
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


def run(config: IndexShardsConfig) -> IndexShardsResult:
    """Index the tars that are new or have changed; those that are gone are forgotten.

    Raises:
        ConfigError: the folder does not exist, or was made by `vatt prepare`.
        DataError: there are no tars, or the folder cannot be written.
    """
    started = time.monotonic()
    found = index_tars(config.folder, workers=config.workers, overwrite=config.overwrite)
    info, skipped = totals(found.table), [one for one, _ in found.skipped]
    return IndexShardsResult(
        folder=config.folder,
        tars=len(found.tars),
        read=found.read,
        videos=info["videos"],
        hours=info["hours"],
        gigabytes=info["bytes"] / 1e9,
        splits=info["splits"],
        missing=info["missing"],
        skipped=dict(sorted(Counter(one.cause for one in skipped).items())),
        other_members=dict(sorted(found.other.items())),
        seconds=time.monotonic() - started,
        problem=too_many_skipped(
            skipped,
            stored=info["videos"],
            most=config.max_bad_fraction,
            what="were refused",
            folder=config.folder,
        ),
    )
