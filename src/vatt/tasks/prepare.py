"""`vatt prepare`: folders of videos, captions and labels become shards with an index."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from vatt.config import to_values
from vatt.errors import ConfigError
from vatt.ingest.item import Making
from vatt.ingest.journal import Share
from vatt.ingest.run import IngestPlan, ingest, preview
from vatt.ingest.sources import DUPLICATE, Found, find_items, printable, too_many_skipped
from vatt.media.captions.choose import CaptionChoice
from vatt.media.captions.sidecars import caption_files
from vatt.media.stored_form import StoredForm
from vatt.public_data.choice import (
    FREE_OF_CHOICE,
    NOT_CHOSEN,
    DatasetChoice,
    chosen_folder,
    found_files,
)
from vatt.shards.index import caption_sources, damage_lost_s, num_sources, totals
from vatt.workers.process import Limits

# What a continued preparation may change: none of it changes what is stored.
FREE_SETTINGS = (
    "out", "executor", "workers", "task", "item_minutes", "worker_gigabytes", "max_bad_fraction",
    "max_damage", "retry_failed", "overwrite", "dry_run",
)  # fmt: skip
_SHOWN = 20  # caption files, and damaged files, that the table names


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareConfig(DatasetChoice):
    """Make shards from folders of videos; the same command continues an interrupted run."""

    src: Positional[tuple[Path, ...]] = ()
    """Folders (read with their sub-folders), files, and lists of files (.txt, .csv, .jsonl).
    Captions lie beside each video. None with a --dataset."""
    out: Path
    """Where the shards go."""
    manifest: Path | None = None
    """CSV or JSONL with labels, cuts and splits of the files, named relative to it."""
    short_side: int | None = None
    """Height or width to scale down to, whichever is less; smaller videos keep their size. "none":
    256, or what the protocol of the data set needs (§4.3)."""
    fps: float | Literal["source"] | None = None
    """Frames per second to store; "source", or a video of fewer, keeps the video's own rate.
    "none": 10, or what the protocol of the data set needs (§4.3)."""
    gop: int = 16
    """Frames from one key frame to the next at most: what reading at random has to decode."""
    part_minutes: float = 5.0
    """Longer videos are cut into parts of this length."""
    languages: str | None = None
    """Of captions: en,de takes German where there is no English, en,any whatever there is."""
    asr: str | None = None
    """Speech to text where there are none: pocketsphinx, or faster-whisper:MODEL_FOLDER."""
    copy: bool = False
    """Keep files that already fit (H.264 in MP4 …, docs/shard-format.md) byte for byte."""
    workers: int = 0
    """Processes; 0 takes one per core."""
    executor: Literal["processes", "ray"] = "processes"
    """Where they run: on this machine, or on a Ray cluster (RAY_ADDRESS, or one started here)."""
    task: str | None = None
    """Do only a share of the work: 3/16 is task 3 of 16, counted from 1; the last one done writes
    the index."""
    item_minutes: float = 0.0
    """Time limit for one file; 0: a minute, and 20 s for each second of it as it is read."""
    worker_gigabytes: float = 4.0
    """Memory that one process may ask for, used or not; its resident memory is less."""
    shard_megabytes: int = 256
    """A shard is closed once it is this large."""
    max_bad_fraction: float = 0.1
    """With a larger share of the videos skipped, duplicates not counted, the exit code is 1."""
    max_damage: float = 0.1
    """A file of which a larger share is damaged is skipped; of others all but that is stored."""
    retry_failed: bool = False
    """Try again what an earlier run skipped."""
    overwrite: bool = False
    """Remove what an earlier run stored in `out`, and begin anew."""
    dry_run: bool = False
    """Only say what would be prepared."""

    def __post_init__(self) -> None:
        if bool(self.src) == (self.public is not None):
            raise ConfigError(
                "src: found nothing, expected one or more folders or video files"
                if not self.src
                else "dataset: found beside src, expected one of the two"
            )
        if self.public is not None and self.manifest is not None:
            raise ConfigError("manifest: not with dataset, whose lists give labels and splits")
        least = {
            "short_side": 16, "gop": 1, "workers": 0, "shard_megabytes": 1, "item_minutes": 0,
            "worker_gigabytes": 0.25, "part_minutes": 0.05,
        }  # fmt: skip
        for name, minimum in least.items():
            if getattr(self, name) is not None and getattr(self, name) < minimum:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected >= {minimum}")
        if self.fps not in (None, "source") and not 0 < float(self.fps) <= 240:
            raise ConfigError(f'fps: found {self.fps}, expected 0 < fps <= 240, or "source"')
        for name in ("max_bad_fraction", "max_damage"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected 0 to 1")
        if self.task and Share.parse(self.task) and self.overwrite:
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
        fps = None if self.fps == "source" else Fraction(self._rate).limit_denominator(1001)
        return StoredForm(short_side=self._side, fps=fps, gop=self.gop)

    @property
    def _rate(self) -> float:
        return float(self.fps or (self.public.fps if self.public is not None else 10.0))

    @property
    def _side(self) -> int:
        return self.short_side or (self.public.short_side if self.public is not None else 256)

    def settings(self) -> dict[str, Any]:
        """How the shards are made, with the numbers that were chosen."""
        rate: Any = self.fps if self.fps == "source" else self._rate
        made = replace(self, task=None, retry_failed=False, overwrite=False)
        values = to_values(replace(made, short_side=self._side, fps=rate))
        return {k: v for k, v in values.items() if self.dataset is not None or k not in NOT_CHOSEN}


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareResult:
    """What lies in the prepared folder, and what became of each file under the sources.

    sources: videos found under the sources, and files listed but absent.
    videos, parts: of those stored; a long video has several parts.
    changed: those that an earlier run stored or skipped and that are not what they were: they were
        prepared again.
    duplicates: not stored, because a stored video has the same bytes.
    skipped: cause → how many.
    captions: origin and language → how many videos have such captions.
    missing: audio or captions → how many parts lack them.
    damaged: source → how many seconds of it are damaged or cut off; the rest of it is stored.
    lost_seconds: of all of these.
    other_files: suffix → how many files under the sources are no videos and no captions of one.
    lone_captions: those among them that are captions of no video.
    unread_captions: caption files of videos that could not be read, each with its reason.
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
    changed: int
    caption_files: int
    captions: Mapping[str, int]
    splits: Mapping[str, Mapping[str, Any]]
    missing: Mapping[str, int]
    damaged: Mapping[str, float]
    lost_seconds: float
    skipped: Mapping[str, int]
    other_files: Mapping[str, int]
    lone_captions: Sequence[str]
    unread_captions: Sequence[str]
    seconds: float
    rate: float
    unfinished_tasks: Sequence[str]
    problem: str | None

    def shown(self) -> dict[str, Any]:
        """For people: without what there is none of."""
        given = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("lone_captions", "unread_captions"):
            if more := given[name][_SHOWN:]:
                given[name] = [*given[name][:_SHOWN], f"and {len(more)} more"]
        if not self.damaged:
            del given["lost_seconds"]
        elif len(worst := sorted(self.damaged, key=lambda one: -self.damaged[one])) > _SHOWN:
            rest = f"{len(worst) - _SHOWN} more"
            lost = sum(self.damaged[name] for name in worst[_SHOWN:])
            given["damaged"] = {one: self.damaged[one] for one in worst[:_SHOWN]} | {rest: lost}
        return {
            name: value
            for name, value in given.items()
            if name != "problem" and value not in ((), {}, [])
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparePreview:
    """What `vatt prepare --dry-run` found; hours as the files declare them."""

    out: Path
    sources: int
    to_prepare: int
    hours: float
    stored: int
    duplicates: int
    changed: int
    skipped: Mapping[str, int]
    caption_files: int
    other_files: Mapping[str, int]
    lone_captions: Sequence[str]


def plan_of(config: PrepareConfig, found: Found) -> IngestPlan:
    """What to do with the files that were found."""
    return IngestPlan(
        found=found,
        out=config.out,
        making=Making(
            form=config.form,
            captions=config.choice,
            copy=config.copy,
            part_s=config.part_minutes * 60,
            max_damage=config.max_damage,
            item_s=config.item_minutes * 60 or None,
            lone_audio=config.public is not None and config.public.kind == "audio",
        ),
        settings=config.settings(),
        # What another manifest says is compared file by file; without one labels would be lost.
        free_settings=FREE_SETTINGS + FREE_OF_CHOICE + (("manifest",) if config.manifest else ()),
        shard_bytes=config.shard_megabytes * 1_000_000,
        share=Share.parse(config.task) if config.task else None,
        retry_skipped=config.retry_failed,
        overwrite=config.overwrite,
        executor=config.executor,
        workers=config.workers,
        limits=Limits(gigabytes=config.worker_gigabytes),
    )


def run(config: PrepareConfig) -> PrepareResult | PreparePreview:
    """Prepare all videos that are not stored yet, then write the index.

    Raises:
        ConfigError: `out` holds shards made with other settings, or something else.
        DataError: nothing to prepare, `out` cannot be written, or another run is at work there.
    """
    started = time.monotonic()
    if config.public is not None:
        found = found_files(chosen_folder(config), config.dataset_split)
    else:
        found = find_items(config.src, config.manifest, leave_out=config.out)
    plan = plan_of(config, found)
    outcome = preview(plan) if config.dry_run else ingest(plan)
    seconds = time.monotonic() - started
    info, videos = totals(outcome.table), num_sources(outcome.table)
    damaged = damage_lost_s(outcome.table)
    causes = Counter(one.cause for one in outcome.skipped)
    duplicates = causes.pop(DUPLICATE, 0)
    repeats = {one.source for one in outcome.skipped if one.cause == DUPLICATE}
    in_both: dict[str, Any] = {
        "out": config.out,
        "sources": len(found.items) + len(found.skipped),
        "duplicates": duplicates,
        "changed": outcome.changed,
        "skipped": dict(sorted(causes.items())),
        "caption_files": found.caption_files,
        "other_files": found.other_files,
        "lone_captions": [printable(name) for name in found.lone_captions],
    }
    if config.dry_run:
        return PreparePreview(
            to_prepare=outcome.to_prepare, hours=outcome.seconds / 3600, stored=videos, **in_both
        )
    return PrepareResult(
        videos=videos,
        parts=info["videos"],
        shards=info["shards"],
        hours=info["hours"],
        megabytes=info["bytes"] / 1e6,
        captions=caption_sources(outcome.table),
        splits=info["splits"],
        missing=info["missing"],
        damaged={printable(name): round(lost, 3) for name, lost in damaged.items()},
        lost_seconds=round(sum(damaged.values()), 3),
        unread_captions=[
            printable(one)
            for item in found.items
            if item.name in outcome.states
            for one in outcome.states[item.name].unread
        ]
        + [
            printable(f"{Path(item.name).with_name(file.name)}: of a duplicate: not read")
            for item in found.items
            if item.name in repeats
            for file in caption_files(item.path)
        ],
        seconds=seconds,
        rate=outcome.seconds / seconds,
        unfinished_tasks=list(map(str, outcome.unfinished)),
        problem=None
        if outcome.unfinished
        else too_many_skipped(
            [one for one in outcome.skipped if one.cause != DUPLICATE],
            stored=videos,
            most=config.max_bad_fraction,
            what="videos were skipped",
            folder=config.out,
        ),
        **in_both,
    )
