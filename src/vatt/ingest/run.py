"""One run of `vatt prepare`: what its folder does not hold yet is made ready and stored."""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import shutil
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import av
import pyarrow as pa

from vatt.config import CONFIG_FILE, read_toml
from vatt.errors import ConfigError, DataError
from vatt.ingest.item import Making, Prepared, look_at, prepare_item
from vatt.ingest.journal import BusyError, Journal, Share, Stored
from vatt.ingest.sources import Found, Item, Skipped, without_duplicates
from vatt.shards.index import num_sources, totals
from vatt.shards.layout import DATASET_FILE, FAILURES_FILE, INDEX_FILE, shard_paths
from vatt.shards.write import ShardWriter, write_index
from vatt.storage import claim_folder
from vatt.workers.pool import run_in_order
from vatt.workers.process import Limits, Lost

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestPlan:
    """What a run is to store, how, and where.

    found: what lies under the sources.
    out: the folder of the shards.
    settings: how the shards are made, for config.toml and dataset.json; a folder is continued with
        the same settings but for the `free_settings`.
    share: of a job of several tasks; None: all.
    retry_skipped: try again what an earlier run skipped.
    overwrite: remove what an earlier run stored, and begin anew.
    """

    found: Found
    out: Path
    making: Making
    settings: Mapping[str, Any]
    free_settings: Sequence[str]
    shard_bytes: int
    executor: Literal["processes", "ray"]
    workers: int
    limits: Limits
    share: Share | None = None
    retry_skipped: bool = False
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOutcome:
    """What the folder holds, and what not.

    table: the index's rows of all that is stored.
    skipped: ordered by name.
    to_prepare: how many videos are still to be prepared: of a preview.
    seconds: of video that this run has stored, or would store.
    unfinished: shares of the job; the index is written when there are none.
    """

    table: pa.Table
    skipped: Sequence[Skipped]
    to_prepare: int = 0
    seconds: float = 0.0
    unfinished: Sequence[Share] = ()


def preview(plan: IngestPlan) -> IngestOutcome:
    """What a run would do, by the headers of the files; writes nothing.

    Raises:
        ConfigError: `out` holds shards that `vatt prepare` did not write, or something else.
    """
    _refuse_other_folder(plan.out)
    stored = Journal(plan.out, plan.share).stored()
    todo, skipped = _left_to_do(plan, stored)
    looks = run_in_order(
        look_at, todo, workers=plan.workers, limits=plan.limits, executor=plan.executor
    )
    with closing(looks):
        durations_s = list[float]()
        for item, outcome in looks:
            if isinstance(outcome, float):
                durations_s.append(outcome)
            else:
                skipped[item.name] = _skipped(item, outcome)
    return IngestOutcome(
        table=stored.table,
        skipped=list(skipped.values()),
        to_prepare=len(durations_s),
        seconds=sum(durations_s),
    )


def ingest(plan: IngestPlan) -> IngestOutcome:
    """Store all videos that are not stored yet, then write the index.

    Raises:
        ConfigError: `out` holds shards made with other settings, or something else.
        DataError: `out` cannot be written, or another run is at work there.
    """
    out, journal = plan.out, Journal(plan.out, plan.share)
    _refuse_other_folder(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with journal.locked():
            _make_ready(plan, journal.label)
            todo, skipped = _left_to_do(plan, journal.stored())
            seconds = _store(plan, journal, todo, skipped)
            if plan.share is None:
                return _write_index(plan, journal, skipped, seconds)
        waiting = journal.unfinished()
        if not waiting:
            try:
                with journal.locked(alone=True):
                    return _write_index(plan, journal, skipped, seconds)
            except BusyError:
                _logger.info("%s: another task is writing the index", out)
        return _outcome(plan, journal.stored(), skipped, seconds, waiting)
    except KeyboardInterrupt:
        table = journal.stored().table
        counts = f"{num_sources(table)} videos in {totals(table)['shards']} shards"
        _logger.info("%s: stored so far: %s", out, counts)
        raise
    except OSError as error:
        raise DataError(
            f"{error.filename or out}: {error.strerror}; what is stored so far is whole: "
            "the same command continues"
        ) from error


def _refuse_other_folder(out: Path) -> None:
    """A folder with shards, or settings, that another program or command wrote is left alone."""
    settings = out / CONFIG_FILE
    ours = settings.exists() and "shard_megabytes" in read_toml(settings)
    if settings.exists() and not ours:
        raise ConfigError(f"{settings}: not of `vatt prepare`; choose another --out")
    if not ours and (tar := next(iter(sorted(out.glob("*.tar"))), None)):
        raise ConfigError(
            f"{out}: holds {tar.name} but no {CONFIG_FILE}: these shards were not written by "
            "`vatt prepare`; choose another --out"
        )


def _make_ready(plan: IngestPlan, label: str) -> None:
    """Remove what a killed run left, or all with `overwrite`; then claim the folder."""
    out = plan.out
    leftovers = [*out.glob(f"shard{label}-*.part"), *out.glob(f".work{label}-*")]
    if plan.share is None:
        leftovers += [*out.glob("*.part"), *out.glob(".work-*")]
    if plan.overwrite:
        files = (CONFIG_FILE, INDEX_FILE, DATASET_FILE, FAILURES_FILE)
        leftovers += [*shard_paths(out), *out.glob("journal*.jsonl")]
        leftovers += [out / name for name in files]
    for path in set(leftovers):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    advice = "choose another --out, or --overwrite"
    claim_folder(out, plan.settings, free=plan.free_settings, advice=advice)


def _left_to_do(plan: IngestPlan, stored: Stored) -> tuple[list[Item], dict[str, Skipped]]:
    """What this run is to prepare, in the order of the shards; and name → what is skipped."""
    missing = stored.missing(plan.found.items)
    names = {item.name for item in missing}
    earlier = [] if plan.retry_skipped else stored.skipped
    skipped = {one.source: one for one in earlier if one.source in names}
    contents = [stored.table[f"source{what}"].to_pylist() for what in ("_bytes", "_sha256", "")]
    items, repeats = without_duplicates(
        [item for item in missing if item.name not in skipped],
        {(size, sha256): name for size, sha256, name in zip(*contents, strict=True)},
    )
    skipped |= {one.source: one for one in (*repeats, *plan.found.skipped)}
    return [one for one in items if plan.share is None or plan.share.takes(one)], skipped


def _store(
    plan: IngestPlan, journal: Journal, todo: Sequence[Item], skipped: dict[str, Skipped]
) -> float:
    """Prepare items and store them in shards; returns how many seconds of video these are.

    skipped: name → what is known to be skipped; what this run skips is added.
    """
    out, start, known = plan.out, f"shard{journal.label}-", len(skipped)
    used = [path.stem.removeprefix(start) for path in shard_paths(out)]
    number = 1 + max((int(digits) for digits in used if digits.isdecimal()), default=-1)
    seconds, started = 0.0, time.monotonic()

    def note() -> str:
        rate = seconds / (time.monotonic() - started)
        return f"{rate:.1f} s of video/s, {len(skipped) - known} skipped"

    with tempfile.TemporaryDirectory(prefix=f".work{journal.label}-", dir=out) as folder:
        making = replace(plan.making, folder=Path(folder).resolve())
        outcomes = run_in_order(
            functools.partial(prepare_item, making=making),
            todo,
            workers=plan.workers,
            limits=plan.limits,
            executor=plan.executor,
            progress="preparing",
            note=note,
        )

        def ready() -> Generator[Prepared, None, None]:
            """What can be stored; what cannot is written down on the way."""
            nonlocal seconds
            for item, outcome in outcomes:
                if isinstance(outcome, Prepared):
                    yield outcome
                    seconds += outcome.seconds
                else:
                    skipped[item.name] = _skipped(item, outcome)
                    journal.add_skipped(skipped[item.name])

        with closing(outcomes), closing(ready()) as good:
            for first in good:
                with ShardWriter(out / f"{start}{number:06d}.tar") as shard:
                    for prepared in chain([first], good):
                        for record, video in prepared.parts:  # all parts of a file in one shard
                            shard.add(record, video)
                        if prepared.folder is not None:
                            shutil.rmtree(prepared.folder)
                        if shard.size >= plan.shard_bytes:
                            break
                journal.add_shard(shard.path.name, shard.rows)
                number += 1
    journal.add_done()
    return seconds


def _skipped(item: Item, outcome: Skipped | Lost) -> Skipped:
    if isinstance(outcome, Skipped):
        return outcome
    reason = f"{item.path}: {outcome.reason}"
    return Skipped(source=item.name, cause=outcome.cause, reason=reason)


def _outcome(
    plan: IngestPlan,
    stored: Stored,
    skipped: dict[str, Skipped],
    seconds: float,
    waiting: Sequence[Share] = (),
) -> IngestOutcome:
    """What is stored by now, and what was skipped by this run or an earlier one, by name."""
    known = {one.source: one for one in stored.skipped} | skipped
    names = {item.name for item in stored.missing(plan.found.items)}
    names |= {one.source for one in plan.found.skipped}
    return IngestOutcome(
        table=stored.table,
        skipped=[known[name] for name in sorted(known.keys() & names)],
        seconds=seconds,
        unfinished=waiting,
    )


def _write_index(
    plan: IngestPlan, journal: Journal, skipped: dict[str, Skipped], seconds: float
) -> IngestOutcome:
    """Make the index of all that is stored; the journals are then no longer needed."""
    outcome = _outcome(plan, journal.stored(), skipped, seconds)
    versions = {
        "vatt": importlib.metadata.version("vatt"),
        "av": av.__version__,
        "libavcodec": ".".join(map(str, av.library_versions["libavcodec"])),
    }
    write_index(
        plan.out,
        made={"settings": plan.settings, "versions": versions},
        skipped=list(map(asdict, outcome.skipped)),
        table=outcome.table,
    )
    journal.forget()
    return outcome
