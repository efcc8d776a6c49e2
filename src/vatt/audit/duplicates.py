"""Videos against each other: equal files, near-duplicates, and what leaks between splits."""

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
    equal = _same(entries, "sha256")
    for group in equal:
        yield _finding(entries, group, "same content", leak_only=False)
    pairs = [
        (one, two)
        for one, two, _ in alike([entry.fingerprint for entry in entries], likeness)
        if entries[one].sha256 != entries[two].sha256 and not _parts_of_one(entries, one, two)
    ]
    for group in groups(pairs):
        yield _finding(entries, group, "near-duplicate", leak_only=False)
    for group in _same(entries, "source"):
        kinds = [{getattr(entries[place], name) for place in group} for name in ("sha256", "split")]
        if all(len(values) > 1 for values in kinds):
            yield _finding(entries, group, "same source", leak_only=True)


def _same(entries: Sequence[Entry], attribute: str) -> list[list[int]]:
    places = defaultdict[str, list[int]](list)
    for place, entry in enumerate(entries):
        if value := getattr(entry, attribute):
            places[value].append(place)
    return [group for group in places.values() if len(group) > 1]


def _parts_of_one(entries: Sequence[Entry], one: int, two: int) -> bool:
    """Parts of a long video may look alike; a leak between them is of kind `same source`."""
    return bool(entries[one].source) and entries[one].source == entries[two].source


def _finding(
    entries: Sequence[Entry], group: Sequence[int], kind: str, *, leak_only: bool
) -> Finding:
    members = [entries[place] for place in group]
    leaks = leak_only or len({member.split for member in members}) > 1
    return Finding(
        kind=f"leak: {kind}" if leaks else kind,
        folder=members[0].folder,
        shard=members[0].shard,
        key=members[0].key,
        detail=f"{len(members)} videos: " + ", ".join(member.name for member in members[:6]),
        weight=len(members),
        others=tuple((member.folder, member.key) for member in members[1:6]),
    )
