"""`vatt prepare`: folders of videos, captions and labels become shards with an index."""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import os
import secrets
import shutil
import time
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import tomli_w
from tyro.conf import Positional

from vatt.config import read_toml, to_values
from vatt.errors import ConfigError, DataError
from vatt.ingest import journal
from vatt.ingest.item import Making
from vatt.ingest.run import Ingest, Run
from vatt.ingest.sources import DUPLICATE, Found, Skipped, find_items, printable
from vatt.media.captions.choose import CaptionChoice
from vatt.media.encode import StoredForm
from vatt.shards.index import caption_sources, num_sources, totals
from vatt.shards.layout import DATASET_FILE, FAILURES_FILE, INDEX_FILE, shard_paths
from vatt.workers.pool import run_in_order
from vatt.workers.process import Limits

CONFIG_FILE = "config.toml"
# What a continued preparation may change: none of it changes what is stored.
FREE_SETTINGS = (
    "out", "executor", "workers", "task", "item_minutes", "worker_gigabytes", "max_bad_fraction",
    "retry_failed", "overwrite", "dry_run",
)  # fmt: skip
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareConfig:
    """Make shards from folders of videos; the same command continues an interrupted run."""

    src: Positional[tuple[Path, ...]]
    """Folders (read with their sub-folders), files, and lists of files (.txt, .csv, .jsonl).
    Captions lie beside each video."""
    out: Path
    """Where the shards go."""
    manifest: Path | None = None
    """CSV or JSONL with labels, cuts and splits of the files, named relative to it."""
    short_side: int = 256
    """Height or width to scale down to, whichever is less; smaller videos keep their size."""
    fps: float | Literal["source"] = 10.0
    """Frames per second to store; "source", or a video of fewer, keeps the video's own rate."""
    gop: int = 16
    """Frames from one key frame to the next at most: what reading at random has to decode."""
    part_minutes: float = 5.0
    """Longer videos are cut into parts of this length."""
    languages: str | None = None
    """Of captions: en,de takes German where there is no English, en,any whatever there is."""
    asr: str | None = None
    """Speech to text where there are none: pocketsphinx, or faster-whisper:MODEL_FOLDER."""
    copy: bool = False
    """Keep files that already fit (H.264 in MP4 …, docs/data.md) byte for byte."""
    workers: int = 0
    """Processes; 0 takes one per core."""
    executor: Literal["processes", "ray"] = "processes"
    """Where they run: on this machine, or on a Ray cluster (RAY_ADDRESS, or one started here)."""
    task: str | None = None
    """Do only a share of the work: 3/16 is task 3 of 16, counted from 1; the last one done writes
    the index."""
    item_minutes: float = 0.0
    """Time limit for one file; 0: a minute and 20 times the duration that it declares."""
    worker_gigabytes: float = 4.0
    """Memory limit of one process."""
    shard_megabytes: int = 256
    """A shard is closed once it is this large."""
    max_bad_fraction: float = 0.1
    """With a larger share of videos skipped, the exit code is 1."""
    retry_failed: bool = False
    """Try again what an earlier run skipped."""
    overwrite: bool = False
    """Remove what an earlier run stored in `out`, and begin anew."""
    dry_run: bool = False
    """Only say what would be prepared."""

    def __post_init__(self) -> None:
        if not self.src:
            raise ConfigError("src: found nothing, expected one or more folders or video files")
        least = {
            "short_side": 16, "gop": 1, "workers": 0, "shard_megabytes": 1, "item_minutes": 0,
            "worker_gigabytes": 0.25, "part_minutes": 0.05,
        }  # fmt: skip
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected >= {minimum}")
        if self.fps != "source" and not 0 < self.fps <= 240:
            raise ConfigError(f'fps: found {self.fps}, expected 0 < fps <= 240, or "source"')
        if not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError(f"max_bad_fraction: found {self.max_bad_fraction}, expected 0 to 1")
        if self.task and journal.Task.parse(self.task) and self.overwrite:
            raise ConfigError("overwrite: not with task: the tasks would remove each other's work")
        _ = self.choice  # checks itself

    @property
    def choice(self) -> CaptionChoice:
        """Which captions to take."""
        names = [name.strip() for name in (self.languages or "").split(",")]
        return CaptionChoice(languages=tuple(filter(None, names)), asr=self.asr)

    @property
    def form(self) -> StoredForm:
        """The form in which videos are stored."""
        fps = None if self.fps == "source" else Fraction(self.fps).limit_denominator(1001)
        return StoredForm(short_side=self.short_side, fps=fps, gop=self.gop)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareResult:
    """What lies in the prepared folder, and what became of each file under the sources.

    sources: videos found under the sources, and files listed but absent.
    videos, parts: of those stored; a long video has several parts.
    duplicates: not stored, because a stored video has the same bytes.
    skipped: cause → how many.
    captions: origin and language → how many videos have such captions.
    missing: sound or captions → of how many parts.
    other_files: suffix → how many files under the sources are no videos and no captions of one.
    lone_captions: those among them that are captions of no video.
    rate: seconds of video prepared in a second.
    unfinished_tasks: of a job of several; the index is written when there are none.
    problem: why the exit code is 1.
    """

    out: Path
    sources: int
    videos: int
    parts: int
    shards: int
    hours: float
    megabytes: float
    duplicates: int
    caption_files: int
    captions: Mapping[str, int]
    splits: Mapping[str, Mapping[str, Any]]
    missing: Mapping[str, int]
    skipped: Mapping[str, int]
    other_files: Mapping[str, int]
    lone_captions: Sequence[str]
    seconds: float
    rate: float
    unfinished_tasks: Sequence[str]
    problem: str | None

    def shown(self) -> dict[str, Any]:
        """For people: without what there is none of."""
        given = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            name: value
            for name, value in given.items()
            if name != "problem" and value not in ((), {}, [])
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparePlan:
    """What `vatt prepare --dry-run` found; hours as the files declare them."""

    out: Path
    sources: int
    to_prepare: int
    hours: float
    stored: int
    duplicates: int
    skipped: Mapping[str, int]
    caption_files: int
    other_files: Mapping[str, int]
    lone_captions: Sequence[str]


def run(config: PrepareConfig) -> PrepareResult | PreparePlan:
    """Prepare all videos that are not stored yet, then write the index.

    Raises:
        ConfigError: `out` holds shards made with other settings, or something else.
        DataError: nothing to prepare, `out` cannot be written, or another run is at work there.
    """
    started = time.monotonic()
    task = journal.Task.parse(config.task) if config.task else None
    found = find_items(config.src, config.manifest, leave_out=config.out)
    _refuse_foreign(config.out)
    if config.dry_run:
        return _plan(config, found, task)
    try:
        config.out.mkdir(parents=True, exist_ok=True)
        with journal.locked(config.out, task):
            _open_folder(config, task)
            work = _ingest(config, found, task)
            if task is None:
                work.write_index(_made(config))
        waiting = _finish_together(config, work, task) if task else []
    except KeyboardInterrupt:
        table = journal.read_state(config.out).table
        counts = f"{num_sources(table)} videos in {totals(table)['shards']} shards"
        logger.info("%s: stored so far: %s", config.out, counts)
        raise
    except OSError as error:
        raise DataError(
            f"{error.filename or config.out}: {error.strerror}; what is stored so far is whole: "
            "the same command continues"
        ) from error
    return _result(config, found, work, waiting, seconds=time.monotonic() - started)


def _refuse_foreign(out: Path) -> None:
    """A folder with shards, or settings, that another program or command wrote is left alone."""
    settings = out / CONFIG_FILE
    mine = settings.exists() and "shard_megabytes" in read_toml(settings)
    if settings.exists() and not mine:
        raise ConfigError(f"{settings}: not of `vatt prepare`; choose another --out")
    if not mine and (tar := next(iter(sorted(out.glob("*.tar"))), None)):
        raise ConfigError(
            f"{out}: holds {tar.name} but no {CONFIG_FILE}: these shards were not written by "
            "`vatt prepare`; choose another --out"
        )


def _open_folder(config: PrepareConfig, task: journal.Task | None) -> None:
    """Make `out` ready: same settings as before or empty; nothing left of a killed run."""
    name = journal.label(task)
    leftovers = [*config.out.glob(f"shard{name}-*.part"), *config.out.glob(f".work{name}-*")]
    if task is None:
        leftovers += [*config.out.glob("*.part"), *config.out.glob(".work-*")]
    if config.overwrite:
        files = (CONFIG_FILE, INDEX_FILE, DATASET_FILE, FAILURES_FILE)
        leftovers += [*shard_paths(config.out), *config.out.glob("journal*.jsonl")]
        leftovers += [config.out / name for name in files]
    for path in set(leftovers):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    _claim(config)


def _claim(config: PrepareConfig) -> None:
    """Write the settings, or compare them with those that the folder was begun with."""
    path = config.out / CONFIG_FILE
    text = tomli_w.dumps(_lasting(config)).encode("utf-8", "replace")
    aside = config.out / f".settings-{secrets.token_hex(8)}"
    aside.write_bytes(text)
    with suppress(FileExistsError):  # the first of several tasks wins
        os.link(aside, path)
    aside.unlink()
    now, before = tomllib.loads(text.decode()), read_toml(path)
    for name in sorted(now.keys() | before.keys()):
        if name not in FREE_SETTINGS and now.get(name) != before.get(name):
            raise ConfigError(
                f"{config.out}: made with {name} = {before.get(name)!r}, found {now.get(name)!r}; "
                "choose another --out, or --overwrite"
            )


def _lasting(config: PrepareConfig) -> dict[str, Any]:
    """The settings without what holds for one run only."""
    return to_values(replace(config, task=None, retry_failed=False, overwrite=False))


def _ingest(config: PrepareConfig, found: Found, task: journal.Task | None) -> Ingest:
    work = Ingest(config.out, found, task, retry_failed=config.retry_failed)
    making = Making(
        form=config.form,
        captions=config.choice,
        copy=config.copy,
        part_s=config.part_minutes * 60,
        item_s=config.item_minutes * 60 or None,
    )
    started, known = time.monotonic(), len(work.failures)

    def note(work: Ingest) -> str:
        rate = work.seconds / (time.monotonic() - started)
        return f"{rate:.1f} s of video/s, {len(work.failures) - known} skipped"

    shard_bytes = config.shard_megabytes * 1_000_000
    work.do(making, _run_items(config), shard_bytes=shard_bytes, note=note)
    return work


def _run_items(config: PrepareConfig) -> Run:
    limits = Limits(gigabytes=config.worker_gigabytes)
    return functools.partial(
        run_in_order, workers=config.workers, limits=limits, executor=config.executor
    )


def _made(config: PrepareConfig) -> dict[str, Any]:
    ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
    versions = {
        "vatt": importlib.metadata.version("vatt"), "av": av.__version__, "libavcodec": ffmpeg
    }  # fmt: skip
    return {"settings": _lasting(config), "versions": versions}


def _finish_together(config: PrepareConfig, work: Ingest, task: journal.Task) -> list[journal.Task]:
    """Write the index when this task was the last; returns the tasks that are not done."""
    if not (waiting := journal.unfinished(config.out, task)):
        try:
            with journal.locked(config.out, None):
                work.write_index(_made(config))
        except journal.BusyError:
            logger.info("%s: another task is writing the index", config.out)
    return waiting


def _result(
    config: PrepareConfig,
    found: Found,
    work: Ingest,
    waiting: Sequence[journal.Task],
    *,
    seconds: float,
) -> PrepareResult:
    table, failures = work.outcome()
    causes = Counter(failure.cause for failure in failures)
    info = totals(table)
    return PrepareResult(
        out=config.out,
        sources=len(found.items) + len(found.skipped),
        videos=num_sources(table),
        parts=info["videos"],
        shards=info["shards"],
        hours=info["hours"],
        megabytes=info["bytes"] / 1e6,
        duplicates=causes.pop(DUPLICATE, 0),
        caption_files=found.caption_files,
        captions=caption_sources(table),
        splits=info["splits"],
        missing=info["missing"],
        skipped=dict(sorted(causes.items())),
        other_files=found.other_files,
        lone_captions=[printable(name) for name in found.lone_captions],
        seconds=seconds,
        rate=work.seconds / seconds,
        unfinished_tasks=list(map(str, waiting)),
        problem=None if waiting else _too_many(config, num_sources(table), failures),
    )


def _too_many(config: PrepareConfig, videos: int, failures: Sequence[Skipped]) -> str | None:
    bad = [failure for failure in failures if failure.cause != DUPLICATE]
    if len(bad) <= config.max_bad_fraction * (videos + len(bad)):
        return None
    causes = Counter(failure.cause for failure in bad)
    counts = ", ".join(f"{count} {cause}" for cause, count in causes.most_common())
    return (
        f"{config.out}: {len(bad)} of {videos + len(bad)} videos were skipped ({counts}; "
        f"first: {printable(bad[0].reason)}), expected at most {config.max_bad_fraction:.0%}; see "
        f"{config.out / FAILURES_FILE}, or raise max_bad_fraction"
    )


def _plan(config: PrepareConfig, found: Found, task: journal.Task | None) -> PreparePlan:
    work = Ingest(config.out, found, task, retry_failed=config.retry_failed)
    work.look(_run_items(config))
    causes = Counter(failure.cause for failure in work.failures.values())
    return PreparePlan(
        out=config.out,
        sources=len(found.items) + len(found.skipped),
        to_prepare=len(work.todo),
        hours=work.seconds / 3600,
        stored=num_sources(work.state.table),
        duplicates=causes.pop(DUPLICATE, 0),
        skipped=dict(sorted(causes.items())),
        caption_files=found.caption_files,
        other_files=found.other_files,
        lone_captions=[printable(name) for name in found.lone_captions],
    )
