"""Audit prepared folders: run every check, compare all videos, sort what was found."""

from __future__ import annotations

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vatt.audit import languages
from vatt.audit.check_shards import check_index, check_shard, indexed_shards, open_index
from vatt.audit.check_videos import Checks, StoredVideo, VideoReport, check_video, thumbnails
from vatt.audit.duplicates import Entry, compare
from vatt.audit.findings import KINDS, Finding
from vatt.audit.fingerprints import Likeness
from vatt.errors import ConfigError, DataError
from vatt.shards.read import ShardFolder
from vatt.workers.pool import run_in_order
from vatt.workers.process import Lost, TimeLimit

_SHARE_OF_MAIN_LANGUAGE = 0.5  # below it a folder has no main language, and none is "another"


@dataclass(slots=True, kw_only=True)
class Audit:
    """What an audit found.

    folders: those that could be opened.
    findings: by kind in the order of `KINDS`, the worst of a kind first.
    checked: shards and videos → how many were expected and how many checked.
    totals: sums over the videos that were checked.
    """

    folders: list[ShardFolder] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    checked: dict[str, dict[str, int]] = field(default_factory=dict)
    totals: dict[str, float] = field(default_factory=lambda: defaultdict(float))


class _StoredVideos(Sequence[StoredVideo]):
    """Videos by their place in all folders together, each made when it is asked for."""

    def __init__(self, folders: Sequence[ShardFolder], places: NDArray[np.int64]) -> None:
        self._folders, self._places = folders, places
        self._ends = np.cumsum([len(data) for data in folders], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: Any) -> Any:
        place = int(self._places[number])
        folder = int(np.searchsorted(self._ends, place, side="right"))
        data = self._folders[folder]
        row = place - int(self._ends[folder]) + len(data)
        values = data.index.slice(row, 1).to_pylist()[0]
        return StoredVideo(folder=data.folder, row=values, info=data.info)


def audit_folders(
    folders: Sequence[Path],
    *,
    checks: Checks,
    likeness: Likeness,
    deep: bool,
    most_videos: int,
    seed: int,
    workers: int,
) -> Audit:
    """Check folders and compare their videos.

    Args:
        folders: made by `vatt prepare` or `vatt index-shards`.
        checks: from which values on something is a finding.
        likeness: how alike near-duplicates are.
        deep: decode every frame.
        most_videos: check only so many, drawn by the seed; 0: all. Shards are checked all.
        seed: of that draw.
        workers: processes; 0 takes one per core.

    Raises:
        ConfigError: a folder does not exist.
    """
    audit = Audit()
    for path in folders:
        if not path.is_dir():
            raise ConfigError(f"{path}: no such folder; expected one made by `vatt prepare`")
        try:
            data = open_index(path)
        except DataError as error:
            unreadable = Finding("unreadable folder", folder=str(path), detail=str(error))
            audit.findings.append(unreadable)
            continue
        audit.folders.append(data)
        audit.findings += check_index(data)
        skipped = data.info.get("skipped")
        for cause, count in skipped.items() if isinstance(skipped, dict) else ():
            audit.totals[f"skipped when made: {cause}"] += count if isinstance(count, int) else 0
    if languages.identifier() is None:
        detail = 'languages of captions: pip install "vatt[audit]"'
        audit.findings.append(Finding("not looked at", folder="", detail=detail))
    _check_shards(audit, workers=workers)
    check = functools.partial(check_video, checks=checks, deep=deep)
    entries = _check_videos(audit, check, most=most_videos, seed=seed, workers=workers)
    audit.findings += compare(entries, likeness)
    audit.totals = {
        name: round(value, 3) if value % 1 else int(value)
        for name, value in audit.totals.items()
        if math.isfinite(value)
    }
    order = {kind: number for number, kind in enumerate(KINDS)}
    audit.findings.sort(key=lambda one: (order[one.kind], -one.weight, one.folder, one.key))
    return audit


def _check_shards(audit: Audit, *, workers: int) -> None:
    shards = [shard for data in audit.folders for shard in indexed_shards(data)]
    audit.checked["shards"] = {"expected": len(shards), "checked": len(shards)}
    for shard, found in run_in_order(check_shard, shards, workers=workers, progress="shards"):
        if isinstance(found, Lost):
            folder, detail = str(shard.folder), f"{found.cause}: {found.reason}"
            found = [Finding("damaged tar", folder=folder, shard=shard.name, detail=detail)]
        audit.findings += found
        audit.checked["shards"]["checked"] -= any(one.kind == "missing shard" for one in found)


def _check_videos(
    audit: Audit,
    check: Callable[[StoredVideo, TimeLimit], VideoReport],
    *,
    most: int,
    seed: int,
    workers: int,
) -> list[Entry]:
    """Check each video by itself; returns what they are compared by."""
    places = np.arange(sum(map(len, audit.folders)))
    audit.checked["videos"] = {"expected": len(places)}
    if 0 < most < len(places):
        places = np.sort(np.random.default_rng(seed).permutation(places)[:most])
    audit.checked["videos"]["checked"] = len(places)
    videos = _StoredVideos(audit.folders, places)
    entries, found_languages = list[Entry](), list[str]()
    for video, report in run_in_order(check, videos, workers=workers, progress="videos"):
        if isinstance(report, Lost):
            lost, report = report, VideoReport.of(video)
            report.add("lost decoder", f"{lost.cause}: {lost.reason}")
        audit.findings += report.findings
        row = video.row
        gaps = row.get("gaps") or []
        errors = any(KINDS[one.kind].severity == "error" for one in report.findings)
        for name, amount in {
            "whole videos": not errors,
            "gigabytes": row["video_size"] / 1e9,
            "frames decoded": report.decoded,
            "hours": row["duration_s"] / 3600,
            "hours with captions": report.covered_s / 3600,
            "videos with captions": row["captions"] > 0,
            "damaged videos": bool(gaps),
            "seconds lost to damage": sum(gaps[1::2]) - sum(gaps[::2]),
            "videos with sound": row["has_audio"],
        }.items():
            audit.totals[name] += amount
        # The same for one file, or one address, in all folders.
        source = report.source if "://" in report.source else row["source_sha256"]
        entries.append(
            Entry(
                folder=report.folder,
                shard=report.shard,
                key=report.key,
                split=row["split"],
                source=source or (report.source and f"{report.folder}: {report.source}"),
                sha256=row["sha256"],
                fingerprint=report.fingerprint,
            )
        )
        found_languages.append(report.language)

    counts = Counter(filter(None, found_languages))
    for language, count in counts.items():
        audit.totals[f"videos with captions in {language}"] = count
    main, most_common = counts.most_common(1)[0] if counts else ("", 0)
    if most_common > _SHARE_OF_MAIN_LANGUAGE * counts.total():
        audit.findings += [
            Finding(
                "other language",
                folder=entry.folder,
                shard=entry.shard,
                key=entry.key,
                detail=f"{language}; most are in {main}",
            )
            for entry, language in zip(entries, found_languages, strict=True)
            if language not in ("", main)
        ]
    return entries


def thumbnails_of(
    audit: Audit, *, most: int, workers: int
) -> Mapping[tuple[str, str], NDArray[np.uint8]]:
    """Frames [T, H, W, 3] of videos with findings, by folder and key.

    Args:
        audit: its findings say which videos.
        most: of each kind of finding so many of the worst, and what these are compared with.
        workers: processes; 0 takes one per core.
    """
    wanted = set[tuple[str, str]]()
    for kind in KINDS:
        worst = [one for one in audit.findings if one.kind == kind and one.key][:most]
        wanted.update(place for one in worst for place in [(one.folder, one.key), *one.others])
    places, first = list[int](), 0
    for data in audit.folders:
        keys = [key for folder, key in wanted if folder == str(data.folder)]
        if keys:
            rows = np.flatnonzero(np.isin(data.column("key"), keys))
            places += (first + rows).tolist()
        first += len(data)
    videos = _StoredVideos(audit.folders, np.array(places, np.int64))
    shown = run_in_order(thumbnails, videos, workers=workers, progress="thumbnails")
    return {
        (str(video.folder), video.row["key"]): frames
        for video, frames in shown
        if not isinstance(frames, Lost) and len(frames)
    }
