"""Reading caption files, by format: SubRip, WebVTT, ASS, and the JSON of Whisper and YouTube.

A new format is a reader from its text to cues, and a line in `_READERS`.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import charset_normalizer
import pysubs2

from vatt.errors import MediaError
from vatt.media.captions.clean import Caption, Word, caption, tidy, words_of

MAX_BYTES = 32 * 2**20
_BLANK_LINES = re.compile(r"\n{3,}")
_VTT_NOTES = re.compile(r"^(NOTE|STYLE|REGION)\b.*\n(.+\n)*", re.MULTILINE)  # not for the viewer
_VTT_TIME = re.compile(r"<((?:\d{1,4}:)?\d\d?:\d\d\.\d{3})>")  # when the words after it are spoken
# Such a time in milliseconds, as a mark: to pysubs2, a line with two times begins a cue.
_MARK = re.compile(r"\ue000(\d{1,12})\ue001")
_VTT_LANGUAGE = re.compile(r"\AWEBVTT.*\n(?:.+\n)*?Language: *([A-Za-z-]+)")
_OVERRIDE = re.compile(r"(\{[^{}]*\})")  # in ASS, and what pysubs2 makes of <i>
_DRAWING = re.compile(r"\\p(\d)")  # in an override: what follows is a shape, and not text; 0: text


class CaptionError(MediaError):
    """Captions cannot be read; the message has the file and what is wrong in it."""


class Cue(NamedTuple):
    """A text with its start and end as a file has them; its words, if it has their times."""

    start_s: float
    end_s: float
    text: str
    words: Sequence[Word] = ()


@dataclass(frozen=True, slots=True)
class TimedText:
    """What a caption file holds; `language` as the file itself gives it, or None."""

    captions: list[Caption]
    language: str | None


def read_captions(path: Path) -> TimedText:
    """The captions of a file as `tidy` gives them; those without text are left out.

    Raises:
        CaptionError: the file cannot be read, is too large, its letters are of no known encoding,
            or it is not of the format its name says.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise CaptionError(f"{path}: captions in a format that is not read; save them as .srt")
    cues, language = reader(path, _read_text(path))
    return TimedText(captions_of(cues, str(path)), language)


def captions_of(cues: Iterable[Cue], where: str) -> list[Caption]:
    """The captions that cues say.

    Raises:
        CaptionError: their times are no numbers.
    """
    captions = []
    for start_s, end_s, text, words in cues:
        times = [start_s, end_s, *(time for word in words for time in (word.start_s, word.end_s))]
        if not all(map(math.isfinite, times)):
            raise CaptionError(
                f"{where}: found a caption from {start_s} to {end_s}, expected seconds"
            )
        if (found := caption(start_s, end_s, text, words)) is not None:
            captions.append(found)
    return tidy(captions)


def shown_text(text: str) -> str:
    """What viewers read of a line of ASS: no overrides and shapes, its escapes as white space."""
    shown, drawing = [], False
    for place, part in enumerate(_OVERRIDE.split(text)):
        if place % 2 == 0:
            shown.append("" if drawing else part)
        elif sizes := _DRAWING.findall(part):
            drawing = sizes[-1] != "0"
    return "".join(shown).replace("\\h", " ").replace("\\n", "\n").replace("\\N", "\n")


def _read_text(path: Path) -> str:
    if not path.is_file():  # opening a pipe would block
        raise CaptionError(f"{path}: not a file, or no longer there")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CaptionError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise CaptionError(f"{path}: larger than {MAX_BYTES:,} bytes, too large for captions")
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        guess = charset_normalizer.from_bytes(content[: 2**16]).best()
        if encoding == "utf-16" or guess is None or b"\0" in content:
            raise CaptionError(
                f"{path}: byte {error.start} is not {encoding}; save the file as UTF-8"
            ) from error
        return content.decode(guess.encoding, errors="replace")


# ── formats ──────────────────────────────────────────────────────────────────────────────────────


def _subtitles(path: Path, text: str) -> tuple[Iterable[Cue], str | None]:
    """SubRip, WebVTT and ASS, by pysubs2; WebVTT may say when each word is spoken."""
    form = {".srt": "srt", ".vtt": "vtt"}.get(path.suffix.lower(), "ass")
    language = _VTT_LANGUAGE.match(text.replace("\r\n", "\n"))
    text = _BLANK_LINES.sub("\n\n", text.replace("\r\n", "\n"))  # pysubs2 is slow at many

    def mark(time: re.Match[str]) -> str:
        *hours, minutes, seconds = time[1].split(":")
        minutes_in_all = 60 * sum(map(int, hours)) + int(minutes)
        return f"\ue000{60_000 * minutes_in_all + round(1000 * float(seconds))}\ue001"

    if form == "vtt":
        text = _VTT_TIME.sub(mark, _VTT_NOTES.sub("", text + "\n"))
    try:
        with warnings.catch_warnings(action="ignore"):  # about margins and styles
            # `clean` removes tags: pysubs2 takes quadratic time in those that are never closed.
            events = pysubs2.SSAFile.from_string(
                text, format_=form, keep_unknown_html_tags=True
            ).events
    except (pysubs2.Pysubs2Error, ValueError, KeyError, IndexError) as error:
        raise CaptionError(f"{path}: not a .{form} file: {error}") from error
    if not events and text.strip().removeprefix("WEBVTT").strip():
        raise CaptionError(f"{path}: found no timed text, expected a .{form} file")
    cues = []
    for event in events:
        if event.is_comment:
            continue
        start_s, end_s = event.start / 1000, event.end / 1000
        first, *rest = _MARK.split(shown_text(event.text))
        texts, marks = [first, *rest[1::2]], [int(mark) / 1000 for mark in rest[::2]]
        words = _spoken([start_s, *marks], end_s, texts) if rest else ()
        cues.append(Cue(start_s, end_s, "".join(texts), words))
    return cues, language[1] if language else None


def _spoken(starts_s: Sequence[float], end_s: float, texts: Iterable[str]) -> tuple[Word, ...]:
    """The words of texts that are spoken one after the other, from these times on."""
    ends_s = [*starts_s[1:], max(end_s, starts_s[-1])]
    return words_of(zip(starts_s, ends_s, texts, strict=True))


def _json(path: Path, text: str) -> tuple[Iterable[Cue], str | None]:
    """The JSON of Whisper and WhisperX ("segments"), whisper.cpp ("transcription") or YouTube."""
    try:
        values = json.loads(text)
        if "segments" in values:
            return list(map(_whisper_cue, values["segments"])), _language(values)
        if "transcription" in values:
            cues = [
                Cue(
                    float(one["offsets"]["from"]) / 1000,
                    float(one["offsets"]["to"]) / 1000,
                    _string(one["text"]),
                )
                for one in values["transcription"]
            ]
            return cues, _language(values.get("result", {}))
        return _youtube(values["events"]), None
    except (
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        RecursionError,
        OverflowError,
    ) as error:
        raise CaptionError(
            f"{path}: not a caption file ({type(error).__name__}: {error}); expected the JSON of "
            'Whisper ("segments", "transcription") or of YouTube ("events")'
        ) from error


def _language(values: Mapping[str, Any]) -> str | None:
    language = values.get("language")
    return language if isinstance(language, str) else None


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"found {value!r:.40}, expected text")
    return value


def _whisper_cue(segment: Mapping[str, Any]) -> Cue:
    words = [one for one in segment.get("words") or () if "start" in one and "end" in one]
    # Whisper's begin with a space, WhisperX's do not.
    spaced = any(_string(one["word"])[:1].isspace() for one in words)
    pieces = [
        (float(one["start"]), float(one["end"]), f"{'' if spaced else ' '}{one['word']}")
        for one in words
    ]
    return Cue(
        float(segment["start"]), float(segment["end"]), _string(segment["text"]), words_of(pieces)
    )


def _youtube(events: Iterable[Mapping[str, Any]]) -> list[Cue]:
    """Cues that end where the next of their window begins: lines stay on while it rolls up."""
    cues = []
    begins: dict[object, float] = {}  # window → when its next line begins
    for event in reversed(list(events)):
        offsets_s, texts = [], []
        for part in event.get("segs", ()):
            offsets_s.append(float(part.get("tOffsetMs", 0)) / 1000)
            texts.append(_string(part.get("utf8", "")))
        if not "".join(texts).strip():
            continue  # a window opens, or a line break that rolls it
        start_s = float(event.get("tStartMs", 0)) / 1000
        end_s = start_s + float(event.get("dDurationMs", 0)) / 1000
        if (window := event.get("wWinId")) is not None:
            end_s = min(end_s, max(start_s, begins.get(window, end_s)))
            begins[window] = start_s
        starts_s = [start_s + offset_s for offset_s in offsets_s]
        words = _spoken(starts_s, end_s, texts) if any(offsets_s) else ()
        cues.append(Cue(start_s, end_s, "".join(texts), words))
    return cues


_READERS: Mapping[str, Callable[[Path, str], tuple[Iterable[Cue], str | None]]] = {
    ".srt": _subtitles,
    ".vtt": _subtitles,
    ".ass": _subtitles,
    ".ssa": _subtitles,
    ".json3": _json,
    ".json": _json,
}
