"""WebDataset tars made by others: what lies in them as samples, and a record for each.

A sample is all members of one name up to the first dot: `000000123.mp4`, `.json`, `.txt`, `.vtt` …
Its record is made here, because the `.json` beside it is of another program.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from vatt.errors import MediaError
from vatt.ingest.item import limit_s
from vatt.ingest.sources import Skipped, printable, split_of
from vatt.media.captions.choose import CaptionChoice, FoundCaptions, captions_beside
from vatt.media.captions.clean import Caption, clean, on_clock
from vatt.media.container import VIDEO_SUFFIXES
from vatt.media.media_file import probe
from vatt.media.remux import join
from vatt.shards.index import index_row
from vatt.shards.record import SampleRecord
from vatt.shards.tar import STRANGE, Member, read_members
from vatt.workers.process import TimeLimit

AUDIO_SUFFIXES = frozenset((".m4a", ".mp3", ".flac", ".wav", ".ogg", ".opus", ".aac"))
_TIMED_SUFFIXES = frozenset((".srt", ".vtt", ".ass", ".ssa", ".json3"))
_MAX_TEXT_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One video in a tar, and what lies beside it: member by member.

    tar: the shard's name, relative to `folder`. key: the sample's name, unique in the folder.
    """

    folder: Path
    tar: str
    key: str
    video: Member
    audio: Member | None = None
    texts: tuple[tuple[str, Member], ...] = ()  # ending, such as ".en.vtt", and member

    @property
    def source(self) -> str:
        """Its name in records and in failures.jsonl."""
        return f"{self.tar}/{self.video.name}"

    def read(self, member: Member) -> bytes:
        """The content of one of its members."""
        with (self.folder / self.tar).open("rb") as file:
            file.seek(member.offset)
            return file.read(member.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a tar holds; `other` counts members that are of no use here, by ending."""

    samples: Sequence[Sample]
    skipped: Sequence[Skipped]
    other: Mapping[str, int]


def list_tar(path: tuple[Path, str], _: TimeLimit) -> Listing:  # noqa: C901 one story
    """The samples of a tar, by its headers.

    Args:
        path: a folder, and the tar's name relative to it.
    """
    folder, tar = path
    found: dict[str, dict[str, Member]] = {}
    skipped, other = list[Skipped](), Counter[str]()
    for one in read_members(folder / tar):
        if not isinstance(one, Member):
            skipped.append(Skipped(source=f"{tar}/{one.name}", cause=one.cause, reason=one.reason))
            continue
        name = PurePosixPath(one.name)
        key, dot, ending = name.name.partition(".")
        members = found.setdefault(str(name.with_name(key)), {}) if key else {}
        if not key:
            other["hidden"] += 1  # such as .DS_Store, ._a.mp4
        elif members.setdefault(dot + ending.lower(), one) is not one:
            reason = f"{folder / tar}: {one.name!r} is there twice; the first one is read"
            skipped.append(Skipped(source=f"{tar}/{one.name}", cause=STRANGE, reason=reason))
    samples = []
    for key, members in found.items():
        videos, audios, texts = [], [], []
        for ending, member in members.items():
            if ending in VIDEO_SUFFIXES:
                videos.append(member)
            elif ending in AUDIO_SUFFIXES:
                audios.append(member)
            elif ending in (".json", ".txt") or _is_timed(ending):
                texts.append((ending, member))
            else:
                other[ending] += 1
        if not videos:
            other["without video"] += 1
            continue
        for member in (*videos[1:], *audios[1:]):
            other[PurePosixPath(member.name).suffix] += 1
        sample = Sample(
            folder=folder,
            tar=tar,
            key=str(PurePosixPath(tar).parent / key),
            video=videos[0],
            audio=audios[0] if audios else None,
            texts=tuple(texts),
        )
        samples.append(sample)
    return Listing(samples=samples, skipped=skipped, other=other)


def _is_timed(ending: str) -> bool:
    return PurePosixPath(f"x{ending}").suffix in _TIMED_SUFFIXES


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    """A sample that can be used: its record as text, and its row but for where that will lie."""

    text: bytes
    row: dict[str, Any]


def index_sample(sample: Sample, time_limit: TimeLimit) -> Indexed | Skipped:
    """Look into a sample: its video's facts, checksum and captions."""

    def skipped(cause: str, reason: object) -> Skipped:
        where = f"{sample.folder / sample.tar}: {sample.video.name}"
        return Skipped(source=sample.source, cause=cause, reason=f"{where}: {reason}")

    if sample.video.size == 0:
        return skipped("unreadable", "an empty file")
    audio, no_audio = None, ""
    try:
        video = sample.read(sample.video)
        source_facts = facts = probe(video)
        if facts.video is None:
            return skipped("no picture", "only sound")
        time_limit.allow(limit_s(facts.duration_s, len(video)))
        if facts.audio is None and sample.audio is None:
            no_audio = "no sound track"
        elif facts.audio is None and sample.audio is not None:
            try:
                facts = probe(join(video, sample.read(sample.audio)))
                audio = sample.audio
            except MediaError as error:
                no_audio = f"{sample.audio.name}: {error}"
        if not (math.isfinite(facts.duration_s) and facts.duration_s > 0):
            return skipped("damaged", f"a duration of {facts.duration_s} s")
        said = _json_of(sample)
        found = _captions(sample, said, facts.duration_s)
    except MediaError as error:
        return skipped("unreadable", error)
    url = said.get("url")
    missing = {} if found.captions else {"captions": found.problem}
    record = SampleRecord(
        key=sample.key,
        source=printable(url) if isinstance(url, str) and url else sample.source,
        split=split_of(sample.tar),
        facts=facts,
        source_facts=source_facts,
        captions=tuple(on_clock(found.captions, facts.start_s, facts.duration_s)),
        captions_from=found.source,
        language=found.language,
        other_captions=found.others,
        missing=missing | ({"audio": no_audio} if no_audio else {}),
        source_bytes=sample.video.size,
        sha256=hashlib.sha256(video).hexdigest(),
    )
    text = record.to_json()
    row = index_row(sample.tar, record, (sample.video.offset, sample.video.size), (0, text))
    if audio is not None:
        row |= {"sound_offset": audio.offset, "sound_size": audio.size}
    return Indexed(text=text, row=row)


def _json_of(sample: Sample) -> Mapping[str, Any]:
    """What the `.json` of a sample says; nothing when there is none, or it is no object."""
    for ending, member in sample.texts:
        if ending == ".json" and member.size <= _MAX_TEXT_BYTES:
            try:
                said = json.loads(sample.read(member))
            except (ValueError, RecursionError):
                return {}
            return said if isinstance(said, dict) else {}
    return {}


def _captions(sample: Sample, said: Mapping[str, Any], end_s: float) -> FoundCaptions:
    """Timed captions if there are any, else one text for the whole video; or why there are none."""
    found = _timed_captions(sample, said)
    if found.captions:
        return found
    name = PurePosixPath(sample.key).name
    try:
        if timed := list(_subtitles(said)):
            return replace(found, captions=timed, source=f"{name}.json", problem="")
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        reason = f"subtitles in its .json cannot be read ({type(error).__name__}: {error})"
        found = replace(found, problem=reason)
    texts = [
        (".txt", sample.read(member).decode("utf-8", "replace"))
        for ending, member in sample.texts
        if ending == ".txt" and member.size <= _MAX_TEXT_BYTES
    ]
    texts += [
        (".json", text) for key in ("caption", "text") if isinstance(text := said.get(key), str)
    ]
    for ending, text in texts:
        if words := clean(text):
            whole = Caption(0.0, end_s, words)
            return replace(found, captions=[whole], source=f"{name}{ending}", problem="")
    return found


def _timed_captions(sample: Sample, said: Mapping[str, Any]) -> FoundCaptions:
    """Those of caption files, through the reader of caption files."""
    whole = (".json",) if {"segments", "events", "transcription"} & said.keys() else ()
    name = PurePosixPath(sample.key).name
    with tempfile.TemporaryDirectory() as folder:
        for ending, member in sample.texts:
            if (_is_timed(ending) or ending in whole) and member.size <= _MAX_TEXT_BYTES:
                (Path(folder) / f"video{ending}").write_bytes(sample.read(member))
        found = captions_beside(Path(folder) / "video.mp4", CaptionChoice())

    def renamed(words: str) -> str:
        place = f"{sample.tar}/{sample.video.name.rpartition('.')[0]}"
        return words.replace(f"{folder}/video", place)

    return replace(
        found,
        source=found.source.replace("video.", f"{name}.", 1),
        others=tuple(map(renamed, found.others)),
        problem=renamed(found.problem),
    )


def _subtitles(said: Mapping[str, Any]) -> Iterator[Caption]:
    """Subtitles as video2dataset keeps them: of the whole source, also where a clip was cut."""
    youtube = said.get("yt_meta_dict") or {}
    captions: Any = (
        said.get("clip_subtitles") or youtube.get("subtitles") or said.get("subtitles") or ()
    )
    if isinstance(captions, Mapping):  # by language
        captions = captions.get("en") or captions[min(captions)]
    spans: Any = said.get("clips") or ()
    start_s = _seconds(spans[0][0]) if len(spans) == 1 else 0.0
    for caption in captions:
        lines = caption.get("lines") or caption.get("line") or ""
        if isinstance(lines, Mapping):
            lines = lines.get("en") or lines[min(lines)]
        text = clean(lines if isinstance(lines, str) else " ".join(map(str, lines)))
        times = _seconds(caption["start"]) - start_s, _seconds(caption["end"]) - start_s
        if text and all(map(math.isfinite, times)):
            yield Caption(times[0], max(times), text)


def _seconds(time: Any) -> float:
    """`83.5`, `"83.5"` or `"00:01:23.500"`."""
    parts = [float(part) for part in str(time).replace(",", ".").split(":")]
    return sum(part * 60.0**power for power, part in enumerate(reversed(parts)))
