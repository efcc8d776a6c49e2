"""What a source was when it was stored or skipped, and whether it has changed since.

A source is its video, the caption files beside it, and what folder and manifest say of it. Files
are compared by size and time of change; where only the time differs, by their checksums.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from vatt.ingest.manifest import ManifestEntry
from vatt.ingest.sources import Item
from vatt.media.captions.choose import CaptionChoice, captions_beside
from vatt.media.captions.sidecars import caption_files
from vatt.storage import sha256_of
from vatt.workers.progress import ProgressBar


@dataclass(frozen=True, slots=True)
class FileState:
    """One file: size in bytes, time of change in ns (0: not known), SHA-256 ("": not known)."""

    size: int
    time_ns: int = 0
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """A source at one time.

    captions: name → file, of those beside the video.
    said: a hash of its split, its labels and its cuts.
    unread: caption files that could not be read, each with its reason.
    """

    video: FileState
    captions: Mapping[str, FileState] = field(default_factory=dict)
    said: str = ""
    unread: Sequence[str] = ()

    def to_values(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> SourceState:
        """Read what `to_values` gave."""
        captions = values["captions"]
        return cls(
            video=FileState(**values["video"]),
            captions={name: FileState(**one) for name, one in captions.items()},
            said=values["said"],
            unread=tuple(values["unread"]),
        )


def look_at_source(item: Item) -> SourceState:
    """A source as it is now; its files are not read.

    Raises:
        OSError: it is gone, or cannot be looked at.
    """

    def look(path: Path) -> FileState:
        status = path.stat()
        return FileState(status.st_size, status.st_mtime_ns)

    captions = {one.name: item.path.with_name(one.name) for one in caption_files(item.path)}
    entry = item.entry or ManifestEntry()
    said = json.dumps([item.split, entry.labels, entry.cuts], default=str)
    return SourceState(
        video=look(item.path),
        captions={name: look(path) for name, path in captions.items() if path.is_file()},
        said=hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:16],
    )


def unread_captions(item: Item, others: Sequence[str]) -> Iterator[str]:
    """Caption files beside a video that were not read, each with its reason.

    Args:
        item: the video.
        others: captions that were not taken, as `FoundCaptions` has them.
    """
    for file in caption_files(item.path):
        path, reason = item.path.with_name(file.name), file.problem
        for one in () if reason else others:
            if one.startswith(f"{path}: ") or one == f"{file.name}: holds no text":
                reason = one.removeprefix(f"{path}: ").removeprefix(f"{file.name}: ")
        if reason:
            yield f"{PurePath(item.name).with_name(file.name).as_posix()}: {reason}"


def with_checksums(item: Item, state: SourceState) -> SourceState:
    """The same with the checksums of its files; those that are not known are read.

    Raises:
        OSError: the video is gone, or cannot be read.
    """

    def hashed(file: FileState, path: Path) -> FileState:
        return file if file.sha256 else replace(file, sha256=sha256_of(path))

    captions = dict(state.captions)
    for name, file in captions.items():
        with suppress(OSError):  # it is named when captions are read
            captions[name] = hashed(file, item.path.with_name(name))
    return replace(state, video=hashed(state.video, item.path), captions=captions)


def state_of_row(item: Item, row: Mapping[str, Any], choice: CaptionChoice) -> SourceState:
    """What a source was that an earlier version has stored, as far as its row of the index tells.

    Captions of a file are taken to be the same; where there were none, none could be read.

    Raises:
        OSError: the source is gone, or cannot be looked at.
    """
    now = look_at_source(item)
    captions = now.captions
    if row["captions_from"] != "file" and captions and captions_beside(item.path, choice).captions:
        captions = {}
    known = FileState(row["source_bytes"] or 0, 0, row["source_sha256"] or "")
    return SourceState(
        video=known if known.sha256 else now.video,
        captions=captions,
        said=now.said if row["split"] == item.split else "",
    )


def changed_sources(
    items: Sequence[Item], before: Callable[[Item], SourceState | None]
) -> tuple[dict[str, SourceState], set[str]]:
    """How sources are now, and which of them are not what they were.

    Args:
        items: the sources.
        before: what one was when it was stored or skipped; None for a new one.

    Returns:
        name → its state, with the checksums that are known; and the names of those that differ.
    """
    states, changed = dict[str, SourceState](), set[str]()
    unsure = list[tuple[Item, SourceState]]()
    for item in items:
        try:
            old, new = before(item), look_at_source(item)
        except OSError:
            continue  # gone in the meantime: what is stored of it stays
        states[item.name] = new
        if old is None:
            continue
        pairs = list(_pairs(old, new))
        if (
            old.said != new.said
            or old.captions.keys() != new.captions.keys()
            or any(a.size != b.size or (not a.sha256 and a != b) for a, b in pairs)
        ):
            changed.add(item.name)
            continue
        states[item.name] = new = replace(
            new,
            video=_with_known(new.video, old.video),
            captions={
                name: _with_known(one, old.captions[name]) for name, one in new.captions.items()
            },
            unread=old.unread,
        )
        if any(a.time_ns != b.time_ns for a, b in pairs):
            unsure.append((item, old))
    with ProgressBar("comparing", len(unsure), shown=bool(unsure)) as bar:
        for done, (item, old) in enumerate(unsure, start=1):
            with suppress(OSError):
                new = states[item.name] = with_checksums(item, states[item.name])
                pairs = list(_pairs(old, new))
                if any(a.sha256 != b.sha256 for a, b in pairs if a.time_ns != b.time_ns):
                    changed.add(item.name)
            bar.update(done)
    return states, changed


def _pairs(old: SourceState, new: SourceState) -> Iterator[tuple[FileState, FileState]]:
    yield old.video, new.video
    for name in old.captions.keys() & new.captions.keys():
        yield old.captions[name], new.captions[name]


def _with_known(new: FileState, old: FileState) -> FileState:
    """With the checksum that it had at the same time of change."""
    return old if new.time_ns == old.time_ns else new
