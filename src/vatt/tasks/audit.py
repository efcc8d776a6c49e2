"""`vatt audit`: check prepared folders for damage, duplicates and leaks; say what to do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from vatt.audit.audit_folders import audit_folders, thumbnails_of
from vatt.audit.check_videos import Checks
from vatt.audit.findings import KINDS
from vatt.audit.fingerprints import Likeness
from vatt.config import to_values
from vatt.errors import ConfigError, DataError
from vatt.report.audit_page import audit_page
from vatt.storage import write_atomically

REPORT_FILE, PAGE_FILE = "audit.json", "audit.html"


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


def run(config: AuditConfig) -> AuditResult:
    """Audit the folders; write audit.json and audit.html.

    Raises:
        ConfigError: a folder does not exist.
        DataError: the report cannot be written.
    """
    audit = audit_folders(
        config.folders,
        checks=config.checks,
        likeness=config.likeness,
        deep=config.deep,
        most_videos=config.videos,
        seed=config.seed,
        workers=config.workers,
    )
    counts = Counter(one.kind for one in audit.findings)
    out, folders = config.out or config.folders[0], [str(folder) for folder in config.folders]
    result = AuditResult(
        checked=audit.checked,
        totals=audit.totals,
        found=[
            {"severity": one.severity, "kind": kind, "count": counts[kind], "what to do": one.to_do}
            for kind, one in KINDS.items()
            if counts[kind]
        ],
        report=out / REPORT_FILE,
        page=out / PAGE_FILE,
    )
    report = {
        "format": "vatt-audit",
        "format_version": "1.0",
        "folders": folders,
        "settings": to_values(replace(config, out=None)),
        "checked": result.checked,
        "totals": result.totals,
        "found": result.found,
        "findings": [
            {name: value for name, value in asdict(one).items() if name != "weight"}
            for one in audit.findings
        ],
    }
    shown = thumbnails_of(audit, most=config.pictures, workers=config.workers)
    page = audit_page(
        folders, result.checked, result.totals, audit.findings, shown, most=config.pictures
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(result.report, json.dumps(report, ensure_ascii=True, indent=1))
        write_atomically(result.page, page.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written ({error.strerror}); choose another --out"
        ) from error
    return result
