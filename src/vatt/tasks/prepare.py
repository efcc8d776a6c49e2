"""`vatt prepare`: folders of videos, captions and labels become shards with an index."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TextIO

import av
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tyro.conf import Positional

from vatt.config import read_toml, to_values, write_toml
from vatt.data.ingest import Failure, Item, Prepared, find_items, outcomes, prepare_item
from vatt.data.shards import (
    DATASET_FILE,
    FAILURES_FILE,
    INDEX_FILE,
    ShardWriter,
    read_shard,
    shard_paths,
    write_index,
)
from vatt.errors import ConfigError, DataError
from vatt.media.encode import StoredForm

CONFIG_FILE = "config.toml"
_WORK = ".work-"
# What a continued preparation may change: none of it changes what is stored.
FREE_SETTINGS = ("out", "workers", "max_bad_fraction", "retry_failed", "overwrite")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareConfig:
    """Make shards from folders of videos; the same command continues an interrupted run."""

    src: Positional[tuple[Path, ...]]
    """Folders (read with their sub-folders) and files. Captions lie beside each video."""
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
    copy: bool = False
    """Keep files that already fit (H.264 in MP4 …, docs/data.md) byte for byte."""
    workers: int = 0
    """Processes; 0 takes one per core."""
    shard_megabytes: int = 256
    """A shard is closed once it is this large."""
    max_bad_fraction: float = 0.1
    """With a larger share of videos skipped, the command fails at its end."""
    retry_failed: bool = False
    """Try again what an earlier run skipped."""
    overwrite: bool = False
    """Remove what an earlier run stored in `out`, and begin anew."""

    def __post_init__(self) -> None:
        if not self.src:
            raise ConfigError("src: found nothing, expected one or more folders or video files")
        least = {"short_side": 16, "gop": 1, "workers": 0, "shard_megabytes": 1}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected >= {minimum}")
        if self.fps != "source" and not 0 < self.fps <= 240:
            raise ConfigError(f'fps: found {self.fps}, expected 0 < fps <= 240, or "source"')
        if not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError(f"max_bad_fraction: found {self.max_bad_fraction}, expected 0 to 1")

    @property
    def form(self) -> StoredForm:
        """The form in which videos are stored."""
        fps = None if self.fps == "source" else Fraction(self.fps).limit_denominator(1001)
        return StoredForm(short_side=self.short_side, fps=fps, gop=self.gop)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareResult:
    """What lies in the prepared folder, and what was skipped on the way, by cause."""

    out: Path
    shards: int
    videos: int
    hours: float
    megabytes: float
    splits: Mapping[str, Mapping[str, Any]]
    missing: Mapping[str, int]
    skipped: Mapping[str, int]
    seconds: float


def run(config: PrepareConfig) -> PrepareResult:
    """Prepare all videos that are not stored yet, then write the index.

    Raises:
        ConfigError: `out` holds shards made with other settings.
        DataError: nothing to prepare, `out` cannot be written, or too many videos are bad (the
            index is there all the same).
    """
    started = time.monotonic()
    items, absent = find_items(config.src, config.manifest)
    try:
        _open_folder(config)
        failures = _prepare(config, items) + absent
        made = {"settings": to_values(config), "versions": _versions()}
        info = write_index(config.out, made=made, failures=[asdict(item) for item in failures])
    except OSError as error:
        raise DataError(
            f"{error.filename or config.out}: {error.strerror}; what is stored so far is whole: "
            "the same command continues"
        ) from error
    _refuse_too_many(config, info["videos"], failures)
    return PrepareResult(
        out=config.out,
        shards=info["shards"],
        videos=info["videos"],
        hours=info["hours"],
        megabytes=info["bytes"] / 1e6,
        splits=info["splits"],
        missing=info["missing"],
        skipped=info["skipped"],
        seconds=time.monotonic() - started,
    )


def _open_folder(config: PrepareConfig) -> None:
    """Make `out` ready: same settings as before or empty; nothing left of a killed run."""
    config.out.mkdir(parents=True, exist_ok=True)
    leftovers = [*config.out.glob("*.part"), *config.out.glob(f"{_WORK}*")]
    settings = config.out / CONFIG_FILE
    if config.overwrite:
        files = (CONFIG_FILE, INDEX_FILE, DATASET_FILE, FAILURES_FILE)
        leftovers += [*shard_paths(config.out), *(config.out / name for name in files)]
    elif settings.exists():
        _refuse_other_settings(config, read_toml(settings))
    elif shard_paths(config.out):
        raise ConfigError(f"{config.out}: holds shards but no {CONFIG_FILE}; choose another --out")
    for path in leftovers:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    write_toml(config, settings)


def _refuse_other_settings(config: PrepareConfig, before: Mapping[str, Any]) -> None:
    now = to_values(config)
    for name in sorted(now.keys() | before.keys()):
        if name not in FREE_SETTINGS and now.get(name) != before.get(name):
            raise ConfigError(
                f"{config.out}: made with {name} = {before.get(name)!r}, found {now.get(name)!r}; "
                "choose another --out, or --overwrite"
            )


def _prepare(config: PrepareConfig, items: Sequence[Item]) -> list[Failure]:
    """Store what is not stored yet; returns all failures, also those of earlier runs."""
    shards = shard_paths(config.out)
    stored = {record.key for path in shards for record, _ in read_shard(path)}
    failures = [] if config.retry_failed else _known_failures(config.out, items)
    failed = {failure.source for failure in failures}
    todo = [item for item in items if item.key not in stored and item.name not in failed]
    workers = min(config.workers or len(os.sched_getaffinity(0)), max(len(todo), 1))
    with (
        tempfile.TemporaryDirectory(prefix=_WORK, dir=config.out) as folder,
        (config.out / FAILURES_FILE).open("w", encoding="utf-8") as log,
        _progress() as progress,
    ):
        _log(log, failures)
        job = functools.partial(
            prepare_item, form=config.form, copy=config.copy, folder=Path(folder)
        )
        ready = progress.track(
            outcomes(todo, job, workers=workers),
            total=len(items),
            completed=len(items) - len(todo),
            description="preparing",
        )
        good = _without_failures(ready, failures, log)
        first_number = 1 + max((_number(path) for path in shards), default=-1)
        _store(config.out, good, first_number, limit=config.shard_megabytes * 1_000_000)
    return failures


def _store(folder: Path, good: Iterator[Prepared], number: int, *, limit: int) -> None:
    for first in good:
        with ShardWriter(folder / f"shard-{number:06d}.tar") as shard:
            for prepared in chain([first], good):
                shard.add(prepared.record, prepared.video)
                if prepared.temporary:
                    prepared.video.unlink()
                if shard.size >= limit:
                    break
        number += 1


def _number(shard: Path) -> int:
    return int(shard.stem.rpartition("-")[2])


def _without_failures(
    ready: Iterable[Prepared | Failure], failures: list[Failure], log: TextIO
) -> Iterator[Prepared]:
    for outcome in ready:
        if isinstance(outcome, Failure):
            failures.append(outcome)
            _log(log, [outcome])
        else:
            yield outcome


def _log(log: TextIO, failures: Sequence[Failure]) -> None:
    """Into failures.jsonl at once, so that a killed run does not try them again."""
    for failure in failures:
        log.write(json.dumps(asdict(failure), ensure_ascii=False) + "\n")
    log.flush()


def _known_failures(folder: Path, items: Sequence[Item]) -> list[Failure]:
    names = {item.name for item in items}
    path = folder / FAILURES_FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    try:
        failures = [Failure(**json.loads(line)) for line in lines]
    except (ValueError, TypeError):  # its last line was being written when the run was killed
        return []
    return [failure for failure in failures if failure.source in names]


def _refuse_too_many(config: PrepareConfig, videos: int, failures: Sequence[Failure]) -> None:
    fraction = len(failures) / max(videos + len(failures), 1)
    if fraction <= config.max_bad_fraction:
        return
    causes = Counter(failure.cause for failure in failures)
    counts = ", ".join(f"{count} {cause}" for cause, count in causes.most_common())
    raise DataError(
        f"{config.out}: {len(failures)} of {videos + len(failures)} videos were skipped ({counts}; "
        f"first: {failures[0].reason}), expected at most {config.max_bad_fraction:.0%}; see "
        f"{config.out / FAILURES_FILE}, or raise max_bad_fraction"
    )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _versions() -> dict[str, str]:
    ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
    return {"vatt": importlib.metadata.version("vatt"), "av": av.__version__, "libavcodec": ffmpeg}
