"""From one file to what a shard takes: its videos in the stored form, and what is known of them."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vatt.errors import MediaError
from vatt.ingest.manifest import ManifestEntry
from vatt.ingest.sources import Item, Skipped, file_sha256
from vatt.media.captions.choose import CaptionChoice, FoundCaptions, find_captions
from vatt.media.captions.clean import of_part, on_clock
from vatt.media.encode import PART_S, Part, StoredForm, encode_parts
from vatt.media.probe import MediaFacts, probe
from vatt.media.stored_form import has_stored_form
from vatt.shards.record import PartOf, SampleRecord
from vatt.workers.process import TOO_LARGE, TimeLimit

# How long an item may take, when the user does not say: declared seconds count so many times, and
# a file that declares more than its bytes can hold (a damaged header) is not believed.
_FLOOR_S, _PER_SECOND, _LEAST_BYTES_PER_SECOND = 60.0, 20.0, 500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """How videos are made ready.

    captions: which to take, and what to do when there are none.
    copy: keep files that already have the form (or a smaller one) byte for byte.
    part_s: longer videos are cut into parts of this many seconds.
    item_s: what one file may take; None goes by its declared duration.
    folder: where encoded files go, each item's in a folder of its own; set by the run.
    """

    form: StoredForm
    captions: CaptionChoice = field(default_factory=CaptionChoice)
    copy: bool = False
    part_s: float = PART_S
    item_s: float | None = None
    folder: Path = Path()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A video ready to be stored: its parts in order, each a record and a file."""

    parts: Sequence[tuple[SampleRecord, Path]]
    folder: Path | None  # holds the files when they are ours to remove afterwards

    @property
    def seconds(self) -> float:
        """How long the video is."""
        return sum(record.facts.duration_s for record, _ in self.parts)


def look_at(item: Item, _: TimeLimit) -> float | Skipped:
    """The declared duration of a video in seconds, without decoding it."""
    try:
        facts = probe(item.path)
    except MediaError as error:
        return _failure(item, "unreadable", error)
    return facts.duration_s if facts.video else _only_sound(item)


def prepare_item(item: Item, time_limit: TimeLimit, making: Making) -> Prepared | Skipped:
    """Make one video ready: encode it, or keep the file when it already fits."""
    cause = "unreadable"
    try:
        size, sha256 = item.path.stat().st_size, file_sha256(item.path)
        source = probe(item.path)
        if source.video is None:
            return _only_sound(item)
        time_limit.allow(making.item_s or limit_s(source.duration_s, size))
        cause = "damaged"
        kept = making.copy and has_stored_form(item.path, source, making.form, part_s=making.part_s)
        folder = None if kept else making.folder / item.key
        parts = [Part(path=item.path, start_s=0.0, end_s=source.duration_s)]
        if folder is not None:
            folder.mkdir(exist_ok=True)
            parts = list(encode_parts(item.path, folder, making.form, part_s=making.part_s))
        if not parts:
            raise MediaError(
                f"{item.path}: none of its frames is ever shown; its times are damaged"
            )
        facts = [source] if kept else [probe(part.path) for part in parts]
        captions = find_captions(item.path, making.captions)
    except MediaError as error:
        shutil.rmtree(making.folder / item.key, ignore_errors=True)
        return _failure(item, cause, error)
    except OSError as error:
        if error.filename is None or Path(error.filename) != item.path:
            raise  # the disk is full, not the file bad
        return _failure(item, "unreadable", f"{item.path}: {error.strerror}")
    found = _Source(facts=source, captions=captions, size=size, sha256=sha256)
    records = _records(item, found, parts, facts)
    paths = [part.path for part in parts]
    return Prepared(parts=list(zip(records, paths, strict=True)), folder=folder)


def _only_sound(item: Item) -> Skipped:
    return _failure(item, "no picture", f"{item.path}: only sound")


def _failure(item: Item, cause: str, reason: MediaError | str) -> Skipped:
    behind = getattr(reason, "__cause__", None)
    if isinstance(behind, MemoryError) or getattr(behind, "errno", None) == errno.ENOMEM:
        cause = TOO_LARGE
    return Skipped(source=item.name, cause=cause, reason=str(reason))


def limit_s(duration_s: float, size: int) -> float:
    """What a file may take that declares a duration: seconds."""
    return _FLOOR_S + _PER_SECOND * min(duration_s, size / _LEAST_BYTES_PER_SECOND)


class _Source(NamedTuple):
    """What is known of the file that an item is made from."""

    facts: MediaFacts
    captions: FoundCaptions
    size: int
    sha256: str


def _records(
    item: Item, source: _Source, parts: Sequence[Part], facts: Sequence[MediaFacts]
) -> Iterator[SampleRecord]:
    found = source.captions
    captions = list(on_clock(found.captions, source.facts.start_s, parts[-1].end_s))
    entry = item.entry or ManifestEntry()
    for number, (part, stored) in enumerate(zip(parts, facts, strict=True)):
        missing = {"captions": found.problem} if found.problem else {}
        if stored.audio is None:
            silent = source.facts.audio is not None
            missing["audio"] = "nothing in the sound track" if silent else "no sound track"
        part_of = PartOf(index=number, count=len(parts), start_s=part.start_s, end_s=part.end_s)
        shift_s = source.facts.start_s - part.start_s  # from the player's to the part's clock
        end_s = stored.duration_s
        cuts = [cut_s + shift_s for cut_s in entry.cuts]
        yield SampleRecord(
            key=item.key if len(parts) == 1 else item.part_key(number),
            source=item.name,
            split=item.split,
            facts=stored,
            source_facts=source.facts,
            captions=tuple(of_part(captions, part.start_s, part.start_s + end_s)),
            labels=tuple(_labels_within(entry.labels, shift_s, end_s)),
            cuts=tuple(cut_s for cut_s in cuts if 0 < cut_s < end_s),
            missing=missing,
            part=part_of if len(parts) > 1 else None,
            source_bytes=source.size,
            source_sha256=source.sha256,
            captions_from=found.source,
            language=found.language,
            other_captions=found.others,
        )


def _labels_within(
    labels: Iterable[Mapping[str, Any]], shift_s: float, end_s: float
) -> Iterator[Mapping[str, Any]]:
    for label in labels:
        start, end = label["start_s"] + shift_s, label["end_s"] + shift_s
        if end > 0 and start < end_s:
            yield {**label, "start_s": max(start, 0.0), "end_s": min(end, end_s)}
