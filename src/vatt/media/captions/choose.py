"""Choosing the captions of a video: of a file beside it, a stream in it, or from its speech."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import langcodes
from av.stream import Disposition
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle

from vatt.errors import ConfigError, MediaError
from vatt.media.captions.clean import Caption
from vatt.media.captions.files import (
    MAX_BYTES,
    CaptionError,
    TimedText,
    captions_of,
    read_captions,
)
from vatt.media.captions.sidecars import (
    CAPTION_SUFFIXES,
    LANGUAGE,
    SPECIAL,
    caption_files,
    language_code,
)
from vatt.media.captions.speech import check_engine, transcribe
from vatt.media.captions.text_formats import AssLine, dialogue
from vatt.media.container import describe, media_errors
from vatt.media.facts import player_zero_s
from vatt.media.media_file import MediaFile

ANY = "any"
_NOT_PLAIN = Disposition.forced | Disposition.comment | Disposition.hearing_impaired
_TEXT_CODECS = ("subrip", "srt", "ass", "ssa", "mov_text", "webvtt", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionChoice:
    """Which captions to take when there are several, and what to do when there are none.

    languages: in order of preference, such as ("en", "de"); captions in others are not taken,
        unless one of them is "any"; none: those without a language first, then English, then any.
    asr: speech to text for videos without captions, see `speech.check_engine`; None for none.
    """

    languages: tuple[str, ...] = ()
    asr: str | None = None

    def __post_init__(self) -> None:
        for language in self.languages:
            known = LANGUAGE.fullmatch(language) and langcodes.tag_is_valid(language)
            if language != ANY and not known:
                raise ConfigError(
                    f"languages: found {language!r}, expected codes such as en, deu or pt-BR, "
                    f"or {ANY}"
                )
        if self.asr is not None:
            check_engine(self.asr)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundCaptions:
    """The captions of one video, in player time, and where they are from.

    source: "talk.en.vtt", "stream 2 (subrip)", "pocketsphinx"; "" when there are none.
    language: a code such as "en"; "" when it is unknown.
    others: what was not taken, each with its reason when it could not be.
    problem: why there are none; "" when there are.
    """

    captions: Sequence[Caption]
    source: str = ""
    language: str = ""
    others: tuple[str, ...] = ()
    problem: str = ""


class _Candidate(NamedTuple):
    """Captions that could be taken; `rank` None when their language is not wanted."""

    rank: tuple[float, ...] | None
    name: str
    language: str
    read: Callable[[], TimedText]


def find_captions(media: MediaFile, choice: CaptionChoice) -> FoundCaptions:
    """The captions of a video: of a file beside it, else of a stream in it, else from its speech.

    Raises:
        MediaError: its audio cannot be decoded for speech to text.
    """
    assert isinstance(media.source, Path)
    beside = captions_beside(media.source, choice)
    if beside.captions:
        return beside
    others = list(beside.others)
    found = _first(_streams(media, choice), others, choice)
    if found is None and choice.asr is not None:
        heard = transcribe(media, choice.asr)
        if heard.captions:
            engine, language = choice.asr.partition(":")[0], language_code(heard.language)
            found = FoundCaptions(captions=heard.captions, source=engine, language=language)
        else:
            others.append(f"{choice.asr}: heard no words")
    return _found(found, others, "no captions beside the video or in it")


def captions_beside(video: Path, choice: CaptionChoice) -> FoundCaptions:
    """The captions of a file beside a video, which itself is not opened."""
    others: list[str] = []
    found = _first(_sidecars(video, choice), others, choice)
    return _found(found, others, "no caption file beside the video")


def _found(found: FoundCaptions | None, others: Sequence[str], problem: str) -> FoundCaptions:
    if found is not None:
        return replace(found, others=tuple(others))
    problem = others[-1] if others else problem
    return FoundCaptions(captions=(), others=tuple(others), problem=problem)


def _first(
    candidates: Iterable[_Candidate], others: list[str], choice: CaptionChoice
) -> FoundCaptions | None:
    """The best candidate that can be read and has text; `others` gets what was not taken."""
    found: FoundCaptions | None = None
    for one in sorted(candidates, key=lambda one: (one.rank is None, one.rank or (), one.name)):
        if one.rank is None:
            others.append(f"{one.name}: not in {', '.join(choice.languages)}")
        elif found is not None:
            others.append(one.name)
        else:
            try:
                text = one.read()
            except MediaError as error:
                others.append(str(error))
                continue
            if text.problem:
                others.append(f"{one.name}: {text.problem}")
            if not text.captions:
                others.append(f"{one.name}: holds no text")
                continue
            language = one.language or language_code(text.language)
            found = FoundCaptions(captions=text.captions, source=one.name, language=language)
    return found


def _sidecars(video: Path, choice: CaptionChoice) -> Iterator[_Candidate]:
    for file in caption_files(video):
        path = video.with_name(file.name)
        read = (
            partial(_unread, path, file.problem) if file.problem else partial(read_captions, path)
        )
        place = CAPTION_SUFFIXES.index(path.suffix.lower()) if not file.problem else 0
        rank = _rank(file.language, choice, bool(file.language), (file.special, file.others, place))
        yield _Candidate(rank, file.name, file.language, read)


def _unread(path: Path, problem: str) -> TimedText:
    raise CaptionError(f"{path}: {problem}")


def _rank(
    language: str, choice: CaptionChoice, tagged: bool, rest: tuple[float, ...]
) -> tuple[float, ...] | None:
    """Lower is better; None when captions in this language are not to be taken."""
    if not choice.languages:
        first = (2.0 if language != "en" else 1.0) if tagged else 0.0
        return first, *rest
    wanted = [ANY if one == ANY else language_code(one) for one in choice.languages]
    if language in wanted:
        first = float(wanted.index(language))
    elif not language:  # unknown: after the wanted languages
        first = len(wanted) - 0.5
    elif ANY in wanted:
        first = float(wanted.index(ANY)) + 0.5
    else:
        return None
    return first, *rest


def _streams(media: MediaFile, choice: CaptionChoice) -> Iterator[_Candidate]:
    with media_errors(media.source):
        for stream in media.container.streams.subtitles:
            codec = stream.codec_context.name if stream.codec_context else "unknown"
            language = language_code(stream.language)
            title = stream.metadata.get("title", "").lower()
            special = bool(stream.disposition & _NOT_PLAIN) or any(
                word in title for word in SPECIAL
            )
            yield _Candidate(
                _rank(language, choice, bool(language), (special, stream.index)),
                f"stream {stream.index} ({codec})",
                language,
                partial(_read_stream, media, stream.index),
            )


def _read_stream(media: MediaFile, index: int) -> TimedText:
    with media_errors(media.source):
        container = media.handle()
        stream = container.streams[index]
        assert isinstance(stream, SubtitleStream)
        codec = stream.codec_context.name if stream.codec_context else "unknown"
        where = f"{describe(media.source)}: stream {index} ({codec})"
        if codec not in _TEXT_CODECS:
            raise CaptionError(f"{where}: its captions are pictures, or of no known kind")
        zero_s, text_bytes, lines = player_zero_s(container), 0, list[AssLine]()
        for packet in container.demux(stream):
            if packet.pts is None:
                continue
            start_s = float(packet.pts * packet.time_base) - zero_s
            end_s = start_s + float((packet.duration or 0) * packet.time_base)
            for part in packet.decode():
                if isinstance(part, AssSubtitle):
                    text = part.dialogue.decode("utf-8", errors="replace")
                    text_bytes += len(text)
                    # ReadOrder, Layer, Style, Name, MarginL, MarginR, MarginV, Effect, Text
                    fields = part.ass.decode("utf-8", errors="replace").split(",", 8)
                    style, effect = (fields[2], fields[7]) if len(fields) == 9 else ("", "")
                    lines.append(AssLine(start_s, end_s, text, style, effect))
            if text_bytes > MAX_BYTES:
                raise CaptionError(f"{where}: over {MAX_BYTES:,} bytes, too large for captions")
        return TimedText(captions_of(dialogue(lines), where), stream.language)
