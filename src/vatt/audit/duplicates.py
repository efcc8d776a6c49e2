"""Compare videos with each other: equal files, near-duplicates, and what leaks between splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vatt.audit.findings import Finding
from vatt.audit.fingerprints import Fingerprint, Likeness, alike, groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a video is compared by.

    source: the same text for all videos made of one file or address; empty if not known.
    """

    folder: str
    shard: str
    key: str
    split: str
    source: str
    sha256: str
    fingerprint: Fingerprint | None

    @property
    def name(self) -> str:
        """How findings name the video."""
        return f"{self.folder}: {self.key} ({self.split})"


def compare(entries: Sequence[Entry], likeness: Likeness) -> Iterator[Finding]:
    """One finding for each group of videos that are equal, or alike, or of one source."""
    for group in _groups_by(entries, "sha256"):
        yield _finding(group, "same content")
    pairs = [
        (one, two)
        for one, two, _ in alike([entry.fingerprint for entry in entries], likeness)
        if entries[one].sha256 != entries[two].sha256
        # Parts of a long video may look alike; a leak between them is a `same source`.
        and not (entries[one].source and entries[one].source == entries[two].source)
    ]
    for places in groups(pairs):
        yield _finding([entries[place] for place in places], "near-duplicate")
    for group in _groups_by(entries, "source"):
        if len({one.sha256 for one in group}) > 1 and len({one.split for one in group}) > 1:
            yield _finding(group, "same source")


def _groups_by(entries: Sequence[Entry], attribute: str) -> list[list[Entry]]:
    members = defaultdict[str, list[Entry]](list)
    for entry in entries:
        if value := getattr(entry, attribute):
            members[value].append(entry)
    return [group for group in members.values() if len(group) > 1]


def _finding(group: Sequence[Entry], kind: str) -> Finding:
    leaks = len({one.split for one in group}) > 1
    first, *others = group[:6]
    return Finding(
        f"leak: {kind}" if leaks else kind,
        folder=first.folder,
        shard=first.shard,
        key=first.key,
        detail=f"{len(group)} videos: " + ", ".join(one.name for one in group[:6]),
        weight=len(group),
        others=tuple((one.folder, one.key) for one in others),
    )
