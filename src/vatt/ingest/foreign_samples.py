"""WebDataset tars made by others: what lies in them as samples, and a record for each.

A sample is a video and what is called as it is: `000000123.mp4`, `.json`, `.txt`, `.en.vtt` … Its
record is made here, because the `.json` beside it is of another program.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize

from vatt.errors import MediaError
from vatt.ingest.item import limit_s
from vatt.ingest.sources import Skipped, printable, split_of
from vatt.media.captions.choose import CaptionChoice, FoundCaptions, captions_beside
from vatt.media.captions.clean import Caption, clean, on_clock
from vatt.media.captions.files import CaptionError, decoded
from vatt.media.captions.sidecars import CAPTION_SUFFIXES, UNREAD_SUFFIXES, caption_file
from vatt.media.captions.transcripts import is_transcript
from vatt.media.container import VIDEO_SUFFIXES
from vatt.media.media_file import open_media, probe
from vatt.media.remux import join
from vatt.shards.index import index_row
from vatt.shards.record import SampleRecord
from vatt.shards.tar import STRANGE, Member, read_members
from vatt.workers.process import TimeLimit

AUDIO_SUFFIXES = frozenset((".m4a", ".mp3", ".flac", ".wav", ".ogg", ".opus", ".aac"))
_TEXT_SUFFIXES = frozenset((".txt", *CAPTION_SUFFIXES, *UNREAD_SUFFIXES))
# Of a `.json`: texts for the whole video; "" is all of it, where that has no keys.
_TEXT_KEYS = ("caption", "captions", "text", "texts", "")
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

    A sample is a video and all members whose names begin with its name and a dot; and, as in
    WebDataset, those that are called as it is up to the first dot.

    Args:
        path: a folder, and the tar's name relative to it.
    """
    folder, tar = path
    members, videos = dict[str, Member](), dict[str, Member]()  # videos: name without ending
    skipped, other = list[Skipped](), Counter[str]()
    for one in read_members(folder / tar):
        name = PurePosixPath(normalize("NFC", one.name))  # é is one letter or two
        if not isinstance(one, Member):
            skipped.append(Skipped(source=f"{tar}/{one.name}", cause=one.cause, reason=one.reason))
        elif name.name.startswith("."):
            other["hidden"] += 1  # such as .DS_Store, ._a.mp4
        elif members.setdefault(str(name.with_suffix(name.suffix.lower())), one) is not one:
            reason = f"{folder / tar}: {one.name!r} is there twice; the first one is read"
            skipped.append(Skipped(source=f"{tar}/{one.name}", cause=STRANGE, reason=reason))
        elif (
            name.suffix.lower() in VIDEO_SUFFIXES
            and videos.setdefault(str(name.with_suffix("")), one) is not one
        ):
            other[name.suffix] += 1
    groups = defaultdict[str, list[str]](list)  # up to the first dot → videos
    for stem in videos:
        groups[_first_dot(stem)].append(stem)
    beside = defaultdict[str, list[tuple[str, Member]]](list)  # video → the others of its sample
    lone = set[str]()
    for name_, member in members.items():
        if (ending := _suffix(name_)) in VIDEO_SUFFIXES:
            continue
        stems = [name_[: dot.start()] for dot in re.finditer(r"\.", name_)]
        own = next((stem for stem in reversed(stems) if stem in videos), None)
        of_videos = [own] if own is not None else groups.get(_first_dot(name_), [])
        if not of_videos:
            lone.add(_first_dot(name_))
        elif ending not in AUDIO_SUFFIXES and ending not in _TEXT_SUFFIXES:
            other[ending] += 1
        for stem in of_videos:
            beside[stem].append((name_.removeprefix(own or _first_dot(name_)), member))
    if lone:
        other["without video"] = len(lone)
    samples = []
    for stem, video in videos.items():
        audios = [one for end, one in beside[stem] if _suffix(end) in AUDIO_SUFFIXES]
        texts = [one for one in beside[stem] if _suffix(one[0]) in _TEXT_SUFFIXES]
        for one in audios[1:]:
            other[PurePosixPath(one.name).suffix] += 1
        sample = Sample(
            folder=folder,
            tar=tar,
            key=str(PurePosixPath(tar).parent / stem),
            video=video,
            audio=audios[0] if audios else None,
            texts=tuple(texts),
        )
        samples.append(sample)
    return Listing(samples=samples, skipped=skipped, other=other)


def _first_dot(name: str) -> str:
    """The name of a member up to the first dot, with its folder: WebDataset's key."""
    path = PurePosixPath(name)
    return str(path.with_name(path.name.partition(".")[0]))


def _suffix(name: str) -> str:
    _, dot, ending = name.rpartition(".")
    return dot + ending


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
        with open_media(video) as media:
            facts = media.facts
            if facts.video is None:
                return skipped("no picture", "only sound")
            time_limit.allow(limit_s(facts.duration_s, len(video)))
        source_facts, duration_s = facts, facts.duration_s
        if facts.audio is None and sample.audio is None:
            no_audio = "no sound track"
        elif facts.audio is None and sample.audio is not None:
            try:
                joined = probe(join(video, sample.read(sample.audio)))
                facts = replace(joined, duration_s=duration_s)
                audio = sample.audio
            except MediaError as error:
                no_audio = f"{sample.audio.name}: {error}"
        if not (math.isfinite(facts.duration_s) and facts.duration_s > 0):
            return skipped("damaged", f"a duration of {facts.duration_s} s")
        said, problem = _json_of(sample)
        found = _captions(sample, said, problem, facts.duration_s)
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


def _json_of(sample: Sample) -> tuple[Mapping[str, Any], str]:
    """What the `.json` of a sample says, and why it cannot be read; nothing when there is none."""
    for ending, member in sample.texts:
        if _suffix(ending) == ".json":
            if member.size > _MAX_TEXT_BYTES:
                return {}, f"its .json has {member.size:,} bytes, too large for captions"
            try:
                said = json.loads(sample.read(member))
            except (ValueError, RecursionError) as error:
                return {}, f"its .json cannot be read ({error})"
            return said if isinstance(said, dict) else {"": said}, ""
    return {}, ""


def _captions(sample: Sample, said: Mapping[str, Any], problem: str, end_s: float) -> FoundCaptions:
    """Timed captions if there are any, else texts for the whole video; or why there are none."""
    found = _timed_captions(sample, said)
    if found.captions:
        return found
    name, problems = PurePosixPath(sample.key).name, [problem] if problem else []
    try:
        if timed := list(_subtitles(said)):
            return replace(found, captions=timed, source=f"{name}.json", problem="")
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        problems.append(f"subtitles in its .json cannot be read ({type(error).__name__}: {error})")
    texts = list[tuple[str, list[str]]]()
    try:
        texts.append((".txt", _plain_texts(sample)))
    except CaptionError as error:
        problems.append(str(error))
    for key in _TEXT_KEYS:
        try:
            texts.append((".json", list(_texts(said.get(key)))))
        except TypeError as error:
            problems.append(f"{_place(key)}: {error}")
    for ending, several in texts:
        if words := list(filter(None, map(clean, several))):
            whole = [Caption(0.0, end_s, one) for one in dict.fromkeys(words)]
            return replace(found, captions=whole, source=f"{name}{ending}", problem="")
    if not found.others and not problems:
        given = [key for key in _TEXT_KEYS if key in said]
        beside = [ending for ending, _ in sample.texts]
        found = replace(
            found,
            problem=f"{_place(given[0])} is empty"
            if given
            else f"no text in {', '.join(beside)}"
            if beside
            else found.problem,
        )
    return replace(found, problem="; ".join(problems) or found.problem)


def _place(key: str) -> str:
    return f"{key} in its .json" if key else "its .json"


def _plain_texts(sample: Sample) -> list[str]:
    """The texts of its `.txt`, of one language: that of no name, else English."""
    by_language = defaultdict[str, list[str]](list)
    for ending, member in sample.texts:
        if _suffix(ending) == ".txt" and member.size <= _MAX_TEXT_BYTES:
            says = caption_file(f"video{ending.removesuffix('.txt')}.srt", "video")
            text = decoded(sample.read(member), f"{sample.tar}/{member.name}")
            by_language[says.language if says else ""].append(text)
    wanted = min(by_language, key=lambda one: (one != "", one != "en", one), default="")
    return by_language[wanted]


def _texts(value: Any) -> Iterator[str]:
    """The texts that a value of a `.json` holds: one, a list of them, or some by language.

    Raises:
        TypeError: it holds something else.
    """
    if isinstance(value, Mapping) and value:
        value = value.get("en") or value[min(value)]
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, Mapping):
            one = next((one[key] for key in _TEXT_KEYS if key in one), one)
        if isinstance(one, str):
            yield one
        elif one is not None:
            raise TypeError(f"found {one!r:.40}, expected a text or a list of texts")


def _timed_captions(sample: Sample, said: Mapping[str, Any]) -> FoundCaptions:
    """Those of caption files, through the reader of caption files."""
    untimed = {".txt"} if is_transcript(said.get("", said)) else {".txt", ".json"}
    name = PurePosixPath(sample.key).name
    with tempfile.TemporaryDirectory() as folder:
        for ending, member in sample.texts:
            if _suffix(ending) not in untimed and member.size <= _MAX_TEXT_BYTES:
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
