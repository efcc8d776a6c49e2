"""`vatt audit`: check prepared folders for damage, duplicates and leaks; say what to do."""

from __future__ import annotations

import functools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional

from vatt.audit.check_shards import (
    check_shard,
    open_index,
    repeated_keys,
    shard_subjects,
    wrong_totals,
)
from vatt.audit.check_videos import Checks, Look, StoredVideo, film, found, knows_languages, look
from vatt.audit.duplicates import Entry, compare
from vatt.audit.findings import KINDS, Finding
from vatt.audit.fingerprints import Likeness
from vatt.config import to_values
from vatt.errors import ConfigError, DataError
from vatt.report.audit_page import audit_page
from vatt.shards.read import ShardFolder
from vatt.storage import write_atomically
from vatt.workers.pool import run_in_order
from vatt.workers.process import Lost

REPORT_FILE, PAGE_FILE = "audit.json", "audit.html"
_SHARE_OF_MAIN_LANGUAGE = 0.5  # below it a folder has no main language, and none is "another"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditConfig:
    """Check prepared folders: bytes, index, frames, audio, captions, duplicates, leaks."""

    folders: Positional[tuple[Path, ...]]
    """Folders made by `vatt prepare` or `vatt index-shards`; several are also compared."""
    out: Path | None = None
    """Where audit.json and audit.html go; the first folder, if not set."""
    deep: bool = False
    """Decode every frame, not only five of each video."""
    videos: int = 0
    """Check at most this many videos, drawn by the seed; 0: all. All shards are checked."""
    seed: int = 0
    workers: int = 0
    """Processes; 0 takes one per core."""
    pictures: int = 6
    """Videos of each kind of finding that the page shows."""
    checks: Checks = field(default_factory=Checks)
    likeness: Likeness = field(default_factory=Likeness)

    def __post_init__(self) -> None:
        if not self.folders:
            raise ConfigError("folders: found nothing, expected one or more prepared folders")
        if len({folder.resolve() for folder in self.folders}) < len(self.folders):
            raise ConfigError("folders: found one twice, expected different folders")
        for name in ("videos", "workers", "pictures"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditResult:
    """What was checked, of how much, and what was found; totals are of the videos checked."""

    checked: Mapping[str, Mapping[str, int]]
    totals: Mapping[str, float]
    found: Sequence[Mapping[str, Any]]
    report: Path
    page: Path

    @property
    def problem(self) -> str | None:
        """Why the exit code is 1: something is damaged."""
        errors = [row for row in self.found if row["severity"] == "error"]
        if not errors:
            return None
        counts = ", ".join(f"{row['count']} {row['kind']}" for row in errors)
        return f"damage was found ({counts}); {self.page} says where, and what to do"


class _Subjects(Sequence[StoredVideo]):
    """The videos of folders, or a sample of them; rows are read when asked for."""

    def __init__(self, folders: Sequence[ShardFolder], most: int, seed: int) -> None:
        self._folders = folders
        sizes = [len(data) for data in folders]
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self.expected = sum(sizes)
        chosen = np.arange(self.expected)
        if 0 < most < self.expected:
            chosen = np.sort(np.random.default_rng(seed).permutation(chosen)[:most])
        self._chosen: NDArray[np.int64] = chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, place: Any) -> Any:
        at = int(self._chosen[place])
        number = int(np.searchsorted(self._ends, at, side="right"))
        data = self._folders[number]
        row = at - int(self._ends[number]) + len(data)
        return StoredVideo(
            folder=data.folder, row=data.index.slice(row, 1).to_pylist()[0], info=data.info
        )


@dataclass(slots=True, kw_only=True)
class _Audit:
    """What an audit gathers."""

    folders: list[ShardFolder] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    languages: list[tuple[Entry, str]] = field(default_factory=list)
    shards: Counter[str] = field(default_factory=Counter)
    totals: dict[str, float] = field(default_factory=lambda: defaultdict(float))


def run(config: AuditConfig) -> AuditResult:
    """Audit the folders; write audit.json and audit.html.

    Raises:
        ConfigError: a folder does not exist.
        DataError: the report cannot be written.
    """
    out = config.out or config.folders[0]
    audit = _Audit()
    _open_folders(config, audit)
    _check_shards(config, audit)
    subjects = _Subjects(audit.folders, config.videos, config.seed)
    _look_at_videos(config, audit, subjects)
    audit.findings += compare(audit.entries, config.likeness)
    audit.findings += _other_languages(audit)
    order = list(KINDS)
    audit.findings.sort(key=lambda one: (order.index(one.kind), -one.weight, one.folder, one.key))
    result = AuditResult(
        checked={
            "shards": {"expected": audit.shards["expected"], "checked": audit.shards["checked"]},
            "videos": {"expected": subjects.expected, "checked": len(subjects)},
        },
        totals={
            name: round(value, 3) if value % 1 else int(value)
            for name, value in audit.totals.items()
            if math.isfinite(value)
        },
        found=_summary(audit.findings),
        report=out / REPORT_FILE,
        page=out / PAGE_FILE,
    )
    _write(config, audit, result, _films(config, audit))
    return result


def _open_folders(config: AuditConfig, audit: _Audit) -> None:
    for folder in config.folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder; expected one made by `vatt prepare`")
        try:
            data = open_index(folder)
        except DataError as error:
            lost = Finding(kind="unreadable folder", folder=str(folder), detail=str(error))
            audit.findings.append(lost)
            continue
        audit.folders.append(data)
        audit.findings += [*repeated_keys(data), *wrong_totals(data)]
        skipped = data.info.get("skipped")
        for cause, count in skipped.items() if isinstance(skipped, dict) else ():
            audit.totals[f"skipped when made: {cause}"] += count if isinstance(count, int) else 0
    if not knows_languages():
        detail = 'languages of captions: pip install "vatt[audit]"'
        audit.findings.append(Finding(kind="not looked at", folder="", detail=detail))


def _check_shards(config: AuditConfig, audit: _Audit) -> None:
    items = [subject for data in audit.folders for subject in shard_subjects(data)]
    audit.shards["expected"] = len(items)
    for item, outcome in run_in_order(
        check_shard, items, workers=config.workers, progress="shards"
    ):
        if isinstance(outcome, Lost):
            detail = f"{outcome.cause}: {outcome.reason}"
            outcome = [
                Finding(kind="damaged tar", folder=str(item.folder), shard=item.name, detail=detail)
            ]
        audit.findings += outcome
        audit.shards["checked"] += not any(one.kind == "missing shard" for one in outcome)


def _look_at_videos(config: AuditConfig, audit: _Audit, subjects: _Subjects) -> None:
    job = functools.partial(look, checks=config.checks, deep=config.deep)
    for subject, seen in run_in_order(job, subjects, workers=config.workers, progress="videos"):
        row = subject.row
        if isinstance(seen, Lost):
            detail = f"{seen.cause}: {seen.reason}"
            seen = Look(findings=[found(subject, "lost decoder", detail)])
        audit.findings += seen.findings
        entry = Entry(
            folder=str(subject.folder),
            shard=row["shard"],
            key=row["key"],
            split=row["split"],
            source=_source(subject, seen),
            sha256=row["sha256"],
            fingerprint=seen.fingerprint,
        )
        audit.entries.append(entry)
        audit.languages += [(entry, seen.language)] if seen.language else []
        _add_up(audit.totals, row, seen)


def _source(subject: StoredVideo, seen: Look) -> str:
    """What a video was made from; the same for the same file or address in all folders."""
    everywhere = seen.source if "://" in seen.source else subject.row["source_sha256"]
    return everywhere or (seen.source and f"{subject.folder}: {seen.source}")


def _add_up(totals: dict[str, float], row: Mapping[str, Any], seen: Look) -> None:
    bad = any(KINDS[one.kind].severity == "error" for one in seen.findings)
    totals["whole videos"] += not bad
    totals["gigabytes"] += row["video_size"] / 1e9
    totals["frames decoded"] += seen.decoded
    totals["hours"] += row["duration_s"] / 3600
    totals["hours with captions"] += seen.covered_s / 3600
    totals["videos with captions"] += row["captions"] > 0
    totals["videos with sound"] += row["has_audio"]


def _other_languages(audit: _Audit) -> Iterator[Finding]:
    counts = Counter(language for _, language in audit.languages)
    for language, count in counts.items():
        audit.totals[f"videos with captions in {language}"] = count
    main, most = counts.most_common(1)[0] if counts else ("", 0)
    if most <= _SHARE_OF_MAIN_LANGUAGE * counts.total():
        return
    for entry, language in audit.languages:
        if language != main:
            yield Finding(
                kind="other language",
                folder=entry.folder,
                shard=entry.shard,
                key=entry.key,
                detail=f"{language}; most are in {main}",
            )


def _summary(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    counts = Counter(one.kind for one in findings)
    return [
        {"severity": kind.severity, "kind": name, "count": counts[name], "what to do": kind.to_do}
        for name, kind in KINDS.items()
        if counts[name]
    ]


Place = tuple[str, str]  # folder and key of a video


def _films(config: AuditConfig, audit: _Audit) -> dict[Place, NDArray[np.uint8]]:
    """Frames of the worst videos of each kind, and of what they are compared with."""
    wanted: dict[Place, None] = {}
    for kind in KINDS:
        worst = [one for one in audit.findings if one.kind == kind and one.key]
        for one in worst[: config.pictures]:
            wanted |= dict.fromkeys([(one.folder, one.key), *one.others])
    films: dict[Place, NDArray[np.uint8]] = {}
    subjects = [subject for data in audit.folders for subject in _named(data, wanted)]
    for subject, frames in run_in_order(film, subjects, workers=config.workers, progress="frames"):
        if isinstance(frames, np.ndarray) and len(frames):
            films[str(subject.folder), subject.row["key"]] = frames
    return films


def _named(data: ShardFolder, wanted: Mapping[Place, None]) -> Iterator[StoredVideo]:
    keys = {key for folder, key in wanted if folder == str(data.folder)}
    for row in np.flatnonzero(np.isin(data.column("key"), list(keys))) if keys else ():
        values = data.index.slice(int(row), 1).to_pylist()[0]
        yield StoredVideo(folder=data.folder, row=values, info=data.info)


def _write(
    config: AuditConfig,
    audit: _Audit,
    result: AuditResult,
    films: Mapping[Place, NDArray[np.uint8]],
) -> None:
    report = {
        "format": "vatt-audit",
        "format_version": "1.0",
        "folders": [str(folder) for folder in config.folders],
        "settings": to_values(replace(config, out=None)),
        "checked": result.checked,
        "totals": result.totals,
        "found": result.found,
        "findings": [_plain(one) for one in audit.findings],
    }
    text = audit_page(
        [str(folder) for folder in config.folders],
        result.checked,
        result.totals,
        audit.findings,
        films,
        most=config.pictures,
    )
    try:
        result.report.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(result.report, json.dumps(report, ensure_ascii=True, indent=1).encode())
        write_atomically(result.page, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise DataError(
            f"{result.report.parent}: cannot be written ({error.strerror}); choose another --out"
        ) from error


def _plain(finding: Finding) -> dict[str, Any]:
    values = asdict(finding)
    del values["weight"]  # only sorts
    return values
