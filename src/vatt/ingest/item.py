"""One file on its way into a shard: made into videos in the stored form, each with its record."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from vatt.errors import MediaError
from vatt.ingest.changes import SourceState, look_at_source, unread_captions, with_checksums
from vatt.ingest.manifest import ManifestEntry
from vatt.ingest.sources import Item, Skipped
from vatt.media.captions.choose import CaptionChoice, find_captions
from vatt.media.captions.clean import of_part, on_clock
from vatt.media.container import IMAGE_SUFFIXES
from vatt.media.damage import Gap, what_is_damaged
from vatt.media.media_file import open_media
from vatt.media.remux import beside_black
from vatt.media.stored_form import PART_S, Part, StoredForm, encode_parts, has_stored_form
from vatt.shards.record import PartOf, SampleRecord
from vatt.workers.process import TOO_LARGE, TimeLimit

# How long an item may take, when the user does not say: a minute, and so much more for each second
# of it. A file that declares more than its bytes can hold (a damaged header) is not believed.
_FLOOR_S, _PER_SECOND, _LEAST_BYTES_PER_SECOND = 60.0, 20.0, 500.0
_STEP_S = 60.0  # of media: once it is read, there is time for as much again
_SLOWEST_BYTES_PER_S = 5e6  # of a disk that several workers read


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """How videos are made ready.

    captions: which to take, and what to do when there are none.
    copy: keep files that already have the form (or a smaller one) byte for byte.
    part_s: longer videos are cut into parts of this many seconds.
    max_damage: a file of which a larger share is damaged is skipped.
    item_s: what one file may take; None goes by what is read of it.
    lone_audio: store audio files too, beside black frames.
    folder: where encoded files go, each item's in a folder of its own; set by the run.
    """

    form: StoredForm
    captions: CaptionChoice = field(default_factory=CaptionChoice)
    copy: bool = False
    part_s: float = PART_S
    max_damage: float = 0.1
    item_s: float | None = None
    lone_audio: bool = False
    folder: Path = Path()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A video ready to be stored: its parts in order, each a record and a file.

    state: what the source was when it was read.
    folder: holds the files when they are ours to remove afterwards.
    """

    parts: Sequence[tuple[SampleRecord, Path]]
    state: SourceState
    folder: Path | None

    @property
    def seconds(self) -> float:
        """How long the video is."""
        return sum(record.facts.duration_s for record, _ in self.parts)


def look_at(item: Item, _: TimeLimit, *, lone_audio: bool = False) -> float | Skipped:
    """The declared duration of a video in seconds, else the true one, without decoding it."""
    try:
        with open_media(item.path, damaged=True) as media:
            if not media.has_video:
                return media.facts.duration_s if lone_audio else _skipped_audio(item)
            media.video()  # its first frame
            return media.declared_s or media.facts.duration_s
    except MediaError as error:
        return _skipped(item, "unreadable", error)


class _Patience:
    """Time for an item: as much as the user says, else more with each minute that was read."""

    def __init__(self, time_limit: TimeLimit, item_s: float | None) -> None:
        self._time_limit, self._item_s, self._at_s = time_limit, item_s, 0.0
        if item_s is not None:
            time_limit.allow(item_s)

    def allow(self, seconds: float) -> None:
        """So much from now on."""
        if self._item_s is None:
            self._time_limit.allow(seconds)

    def reached(self, time_s: float) -> None:
        """The item was read up to a time, or is read once more from its start."""
        if abs(time_s - self._at_s) >= _STEP_S:
            self._at_s = time_s
            self.allow(_FLOOR_S + _PER_SECOND * _STEP_S)


def prepare_item(item: Item, time_limit: TimeLimit, making: Making) -> Prepared | Skipped:
    """Make one video ready: encode it, or keep the file when it already fits."""
    cause, folder = "unreadable", making.folder / item.key
    patience = _Patience(time_limit, making.item_s)
    try:
        state = look_at_source(item)
        patience.allow(_FLOOR_S + state.video.size / _SLOWEST_BYTES_PER_S)
        state = with_checksums(item, state)
        with ExitStack() as files:
            opened = partial(open_media, damaged=True, reached=patience.reached)
            media = files.enter_context(opened(item.path))
            if not media.has_video and not making.lone_audio:
                return _skipped_audio(item)
            if media.is_image != (item.path.suffix.lower() in IMAGE_SUFFIXES):
                kinds = "an image, expected a video", "a video, expected an image"
                reason = f"{item.path}: {kinds[not media.is_image]}"
                return _skipped(item, "unreadable", reason)
            if not media.has_video:
                folder.mkdir(exist_ok=True)
                joined = folder / "beside-black.mkv"
                joined.write_bytes(beside_black(item.path.read_bytes(), media.facts.duration_s))
                media = files.enter_context(opened(joined))
            source = media.facts
            patience.allow(_FLOOR_S + _PER_SECOND * min(source.duration_s, _STEP_S))
            cause = "damaged"
            kept = False
            with suppress(MediaError):  # what is healthy of a damaged file is encoded
                kept = making.copy and has_stored_form(media, making.form, part_s=making.part_s)
            if kept:
                whole_s = source.duration_s
                parts = [Part(path=item.path, start_s=0.0, end_s=whole_s, facts=source)]
            else:
                folder.mkdir(exist_ok=True)
                parts = list(encode_parts(media, folder, making.form, part_s=making.part_s))
            if not parts:
                raise MediaError(
                    f"{item.path}: none of its frames is ever shown; its times are damaged"
                )
            gaps = [] if kept else media.gaps(parts[-1].end_s)
            _refuse_mostly_damaged(item, gaps, parts[-1].end_s, making.max_damage)
            patience.allow(limit_s(parts[-1].end_s, state.video.size))
            found = find_captions(media, making.captions)
            state = replace(state, unread=tuple(unread_captions(item, found.others)))
    except MediaError as error:
        shutil.rmtree(folder, ignore_errors=True)
        return _skipped(item, cause, error)
    except OSError as error:
        if error.filename is None or Path(error.filename) != item.path:
            raise  # the disk is full, not the file bad
        return _skipped(item, "unreadable", f"{item.path}: {error.strerror}")
    known = SampleRecord(
        key=item.key,
        source=item.name,
        split=item.split,
        facts=source,
        source_facts=source,
        captions=tuple(
            one
            for one in on_clock(found.captions, source.start_s, parts[-1].end_s)
            if not any(one.start_s < gap.end_s and gap.start_s < one.end_s for gap in gaps)
        ),
        gaps=tuple(gaps),
        source_bytes=state.video.size,
        source_sha256=state.video.sha256,
        captions_from=found.source,
        language=found.language,
        other_captions=found.others,
        missing={"captions": found.problem} if found.problem else {},
    )
    paths = [part.path for part in parts]
    records = _records_of_parts(known, parts, item)
    return Prepared(
        parts=list(zip(records, paths, strict=True)),
        state=state,
        folder=None if kept else folder,
    )


def _refuse_mostly_damaged(
    item: Item, gaps: Sequence[Gap], end_s: float, max_damage: float
) -> None:
    share, words = what_is_damaged(gaps, end_s)
    if share > max_damage:
        raise MediaError(
            f"{item.path}: {share:.0%} of it is damaged ({words}), expected at most "
            f"{max_damage:.0%}; get it again, or raise max_damage"
        )


def _skipped_audio(item: Item) -> Skipped:
    return _skipped(item, "no picture", f"{item.path}: only sound")


def _skipped(item: Item, cause: str, reason: MediaError | str) -> Skipped:
    behind = getattr(reason, "__cause__", None)
    if isinstance(behind, MemoryError) or getattr(behind, "errno", None) == errno.ENOMEM:
        cause = TOO_LARGE
    return Skipped(source=item.name, cause=cause, reason=str(reason))


def limit_s(duration_s: float, size: int) -> float:
    """How many seconds a file may take that declares a duration."""
    return _FLOOR_S + _PER_SECOND * min(duration_s, size / _LEAST_BYTES_PER_SECOND)


def _records_of_parts(
    known: SampleRecord, parts: Sequence[Part], item: Item
) -> Iterator[SampleRecord]:
    """What is `known` of a source, on the clock of each of its parts."""
    entry, player_zero_s = item.entry or ManifestEntry(), known.source_facts.start_s
    for number, part in enumerate(parts):
        missing, end_s = dict(known.missing), part.facts.duration_s
        if part.facts.audio is None:
            silent = known.source_facts.audio is not None
            missing["audio"] = "nothing in the sound track" if silent else "no sound track"
        shift_s = player_zero_s - part.start_s  # from the player's clock to the part's
        labels = [
            {**label, "start_s": label["start_s"] + shift_s, "end_s": label["end_s"] + shift_s}
            for label in entry.labels
        ]
        cuts = {cut_s + shift_s for cut_s in entry.cuts}
        last = number == len(parts) - 1
        gaps = [
            Gap(
                gap.start_s - part.start_s if number == 0 else max(gap.start_s - part.start_s, 0.0),
                gap.end_s - part.start_s if last else min(gap.end_s - part.start_s, end_s),
                gap.cause,
            )
            for gap in known.gaps
            if (gap.end_s > part.start_s or number == 0) and (gap.start_s < part.end_s or last)
        ]
        cuts = {one for one in cuts if not any(gap.start_s < one < gap.end_s for gap in gaps)}
        cuts |= {time_s for gap in gaps for time_s in (gap.start_s, gap.end_s)}
        record = replace(
            known,
            facts=part.facts,
            captions=tuple(of_part(known.captions, part.start_s, part.start_s + end_s)),
            labels=tuple(
                {**one, "start_s": max(one["start_s"], 0.0), "end_s": min(one["end_s"], end_s)}
                for one in labels
                if one["end_s"] > 0 and one["start_s"] < end_s
            ),
            cuts=tuple(sorted(cut_s for cut_s in cuts if 0 < cut_s < end_s)),
            gaps=tuple(gaps),
            missing=missing,
        )
        if len(parts) > 1:
            place = PartOf(index=number, count=len(parts), start_s=part.start_s, end_s=part.end_s)
            record = replace(record, key=item.part_key(number), part=place)
        yield record
