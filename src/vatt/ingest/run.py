"""One run of `vatt prepare`: what its folder does not hold yet is made ready and stored."""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import av
import pyarrow as pa
import pyarrow.compute as pc

from vatt.config import CONFIG_FILE, read_toml
from vatt.errors import ConfigError, DataError
from vatt.ingest.changes import FileState, SourceState, changed_sources, state_of_row
from vatt.ingest.item import Making, Prepared, look_at, prepare_item
from vatt.ingest.journal import BusyError, Journal, Share, Stored
from vatt.ingest.sources import DUPLICATE, Found, Item, Skipped, without_duplicates
from vatt.run_folder import claim_folder, write_settings
from vatt.shards.index import num_sources, totals
from vatt.shards.layout import DATASET_FILE, FAILURES_FILE, INDEX_FILE, SOURCES_FILE, shard_paths
from vatt.shards.write import ShardWriter, write_index
from vatt.storage import sha256_of
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
    states: name → what each source was when it was stored or skipped.
    changed: how many videos were stored or skipped before, and are not what they were.
    to_prepare: how many videos are still to be prepared: of a preview.
    seconds: of video that this run has stored, or would store.
    unfinished: shares of the job; the index is written when there are none.
    """

    table: pa.Table
    skipped: Sequence[Skipped]
    states: Mapping[str, SourceState]
    changed: int = 0
    to_prepare: int = 0
    seconds: float = 0.0
    unfinished: Sequence[Share] = ()


def preview(plan: IngestPlan) -> IngestOutcome:
    """What a run would do, by the headers of the files; writes nothing.

    Raises:
        ConfigError: `out` holds shards that `vatt prepare` did not write, or something else.
    """
    _refuse_other_folder(plan.out)
    work = _left_to_do(plan, Journal(plan.out, plan.share).stored())
    skipped = work.skipped
    job = functools.partial(look_at, lone_audio=plan.making.lone_audio)
    looks = run_in_order(
        job, work.todo, workers=plan.workers, limits=plan.limits, executor=plan.executor
    )
    with closing(looks):
        durations_s = list[float]()
        for item, outcome in looks:
            if isinstance(outcome, float):
                durations_s.append(outcome)
            else:
                skipped[item.name] = _skipped(item, outcome)
    return IngestOutcome(
        table=work.stored.table,
        skipped=list(skipped.values()),
        states=work.states,
        changed=work.changed,
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
            before = journal.stored()
            work = _left_to_do(plan, before)
            todo = {one.name for one in work.todo}
            known = {name: one for name, one in work.states.items() if name not in todo}
            journal.add_known(
                {name: one for name, one in known.items() if before.states.get(name) != one},
                work.outdated,
            )
            seconds = _store(plan, journal, work)
            if plan.share is None:
                return _write_index(plan, journal, work, seconds)
        waiting = journal.unfinished()
        if not waiting:
            try:
                with journal.locked(alone=True):
                    return _write_index(plan, journal, work, seconds)
            except BusyError:
                _logger.info("%s: another task is writing the index", out)
        return _outcome(plan, journal.stored(), work, seconds, waiting)
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
        files = (CONFIG_FILE, INDEX_FILE, DATASET_FILE, FAILURES_FILE, SOURCES_FILE)
        leftovers += [*shard_paths(out), *out.glob("journal*.jsonl")]
        leftovers += [out / name for name in files]
    for path in set(leftovers):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    advice = "choose another --out, or --overwrite"
    claim_folder(out, plan.settings, free=plan.free_settings, advice=advice)
    if plan.settings.get("manifest") != read_toml(out / CONFIG_FILE).get("manifest"):
        write_settings(out, plan.settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What a run is to do.

    stored: what the folder holds, without what is outdated.
    todo: in the order of the shards.
    skipped: name → what is not to be prepared, and what this run will skip.
    states: name → what the other sources are; those of `todo` are known when they are prepared.
    outdated: shard → keys of stored videos whose sources have changed.
    changed: how many sources, stored or skipped, have changed.
    """

    stored: Stored
    todo: Sequence[Item]
    skipped: dict[str, Skipped]
    states: Mapping[str, SourceState]
    outdated: Mapping[str, Sequence[str]]
    changed: int


def _left_to_do(plan: IngestPlan, stored: Stored) -> _Work:
    items, rows = plan.found.items, stored.rows_of_sources()
    own = [one for one in items if plan.share is None or plan.share.takes(one)]

    def before(item: Item) -> SourceState | None:
        state = stored.states.get(item.name)
        if state is None and item.key in rows:
            first = stored.table.slice(rows[item.key][0], 1).to_pylist()[0]
            state = state_of_row(item, first, plan.making.captions)
        return state

    states, changed = changed_sources(own, before)
    outdated = defaultdict[str, list[str]](list)
    for row in chain.from_iterable(rows.get(one.key, ()) for one in own if one.name in changed):
        outdated[stored.table["shard"][row].as_py()].append(stored.table["key"][row].as_py())
    stored = stored.without(outdated)

    missing = stored.missing(items)
    again = changed | {one.name for one in own if one.name not in stored.states}
    names = {one.name for one in missing} - again
    earlier = [] if plan.retry_skipped else stored.skipped
    skipped = {one.source: one for one in earlier if one.source in names and one.cause != DUPLICATE}

    def sha256(item: Item) -> str:
        status, state = item.path.stat(), states.get(item.name) or stored.states.get(item.name)
        known = state.video if state else FileState(0)
        if (known.size, known.time_ns) != (status.st_size, status.st_mtime_ns):
            known = FileState(0)
        found = known.sha256 or sha256_of(item.path)
        if state is not None and known.size:
            states[item.name] = replace(state, video=replace(known, sha256=found))
        return found

    contents = [stored.table[f"source{what}"].to_pylist() for what in ("_bytes", "_sha256", "")]
    todo, repeats = without_duplicates(
        [item for item in missing if item.name not in skipped],
        {(size, sha256): name for size, sha256, name in zip(*contents, strict=True)},
        sha256,
    )
    skipped |= {one.source: one for one in (*repeats, *plan.found.skipped)}
    names = {one.name for one in own}
    return _Work(
        stored=stored,
        todo=[one for one in todo if one.name in names],
        skipped=skipped,
        states=states,
        outdated=outdated,
        changed=len(changed),
    )


def _store(plan: IngestPlan, journal: Journal, work: _Work) -> float:
    """Prepare items and store them in shards; returns how many seconds of video these are."""
    skipped = work.skipped
    out, start, known = plan.out, f"shard{journal.label}-", len(skipped)
    names = {*(path.name for path in shard_paths(out)), *work.stored.outdated}
    used = [Path(name).stem.removeprefix(start) for name in names]
    number = 1 + max((int(digits) for digits in used if digits.isdecimal()), default=-1)
    seconds, started = 0.0, time.monotonic()

    def note() -> str:
        rate = seconds / (time.monotonic() - started)
        return f"{rate:.1f} s of video/s, {len(skipped) - known} skipped"

    with tempfile.TemporaryDirectory(prefix=f".work{journal.label}-", dir=out) as folder:
        making = replace(plan.making, folder=Path(folder).resolve())
        outcomes = run_in_order(
            functools.partial(prepare_item, making=making),
            work.todo,
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
                    journal.add_skipped(skipped[item.name], work.states.get(item.name))

        with closing(outcomes), closing(ready()) as good:
            for first in good:
                states = dict[str, SourceState]()
                with ShardWriter(out / f"{start}{number:06d}.tar") as shard:
                    for prepared in chain([first], good):
                        for record, video in prepared.parts:  # all parts of a file in one shard
                            shard.add(record, video)
                            states[record.source] = prepared.state
                        if prepared.folder is not None:
                            shutil.rmtree(prepared.folder)
                        if shard.size >= plan.shard_bytes:
                            break
                journal.add_shard(shard.path.name, shard.rows, states)
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
    work: _Work,
    seconds: float,
    waiting: Sequence[Share] = (),
) -> IngestOutcome:
    """What is stored by now, and what was skipped by this run or an earlier one, by name."""
    known = {one.source: one for one in stored.skipped} | work.skipped
    names = {item.name for item in stored.missing(plan.found.items)}
    names |= {one.source for one in plan.found.skipped}
    return IngestOutcome(
        table=stored.table,
        skipped=[known[name] for name in sorted(known.keys() & names)],
        states=stored.states,
        changed=work.changed,
        seconds=seconds,
        unfinished=waiting,
    )


def _write_index(plan: IngestPlan, journal: Journal, work: _Work, seconds: float) -> IngestOutcome:
    """Make the index of all that is stored; the journals are then no longer needed."""
    stored = journal.stored()
    if stored.outdated:
        _remove_outdated(plan.out, journal, stored)
        stored = journal.stored()
    outcome = _outcome(plan, stored, work, seconds)
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
    journal.save_states(outcome.states)
    journal.forget()
    return outcome


def _remove_outdated(out: Path, journal: Journal, stored: Stored) -> None:
    """Write the shards that hold outdated videos anew, without these."""
    for name in stored.outdated:
        path, rows = out / name, stored.table.filter(pc.equal(stored.table["shard"], name))
        if not path.exists():
            continue  # done already, by a run that was killed
        journal.add_rewriting(name)
        if not len(rows):
            path.unlink()
            continue
        with path.open("rb") as old, ShardWriter(path) as shard:
            for row in rows.to_pylist():
                shard.copy(row, old)
        journal.add_shard(name, shard.rows)
