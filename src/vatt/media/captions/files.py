"""Reading caption files: what is in a file, not its name, says its format.

A new format is a reader from its text to cues in `text_formats.py`, and a line in `_read`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import charset_normalizer

from vatt.errors import MediaError
from vatt.media.captions.clean import Caption, Cue, caption, tidy
from vatt.media.captions.text_formats import (
    Unread,
    ass,
    lrc,
    microdvd,
    sami,
    timed_lines,
    tsv,
    ttml,
    vtt_language,
)
from vatt.media.captions.transcripts import read_json

MAX_BYTES = 32 * 2**20
_MARKED_S = 2.0  # the longest pause between two words of a line that are marked in turn
_WORD_S, _SHORTEST_S = 0.5, 1.0  # of captions whose end is not stated

_JSON = re.compile(r"\s*(\{\s*\"|\[\s*\{\s*\")")
_ASS = re.compile(r"^\[(script info|events|v4\+? styles)\]", re.MULTILINE | re.IGNORECASE)
_XML = re.compile(r"\s*<(\?xml|!--|!DOCTYPE tt|([\w-]{1,20}:)?tt[\s>])")
_SAMI = re.compile(r"\s*<sami\b", re.IGNORECASE)
_MICRODVD = re.compile(r"\s*\{\d{1,9}\}\{\d{1,9}\}")
_TSV = re.compile(r"\s*(start\tend\ttext\n|\d+(\.\d+)?\t\d+(\.\d+)?\t)", re.IGNORECASE)
_SBV = re.compile(r"^\d+:\d\d:\d\d[.:]\d{2,3} ?, ?\d+:\d\d:\d\d[.:]\d{2,3}\s*$", re.MULTILINE)


class CaptionError(MediaError):
    """Captions cannot be read; the message has the file and what is wrong in it."""


@dataclass(frozen=True, slots=True)
class TimedText:
    """What a caption file holds.

    language: as the file itself gives it, or None. problem: what of it could not be read.
    """

    captions: list[Caption]
    language: str | None
    problem: str = ""


def read_captions(path: Path) -> TimedText:
    """The captions of a file as `tidy` gives them; those without text are left out.

    Raises:
        CaptionError: the file cannot be read, is too large, its letters are of no known encoding,
            or it holds no captions of a known format.
    """
    text = _read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    try:
        cues, language = _read(text, path.suffix.lower())
    except ValueError as error:
        raise CaptionError(f"{path}: {error}") from error
    unread = [cue.line for cue in cues if isinstance(cue, Unread)]
    read = [cue for cue in cues if isinstance(cue, Cue)]
    if not read and text.strip().removeprefix("WEBVTT").strip():
        raise CaptionError(f"{path}: found no timed text, expected captions in a known format")
    problem = ""
    if unread:
        problem = f"{len(unread)} of its cues cannot be read, the first: {unread[0]:.60}"
    return TimedText(captions_of(read, str(path)), language, problem)


def _read(text: str, suffix: str) -> tuple[list[Cue | Unread], str | None]:
    """Cues and language; looks for the marks of formats, the surest first."""
    if text.lstrip().startswith("WEBVTT"):
        text = text.lstrip()
        return list(timed_lines(text, form="vtt")), vtt_language(text)
    if _JSON.match(text) or (suffix in (".json", ".json3") and text.lstrip()[:1] in ("{", "[")):
        return read_json(text)
    if _ASS.search(text):
        return list(ass(text)), None
    if _SAMI.match(text):
        return list(sami(text)), None
    if _XML.match(text):
        return list(ttml(text)), None
    if _MICRODVD.match(text):
        return list(microdvd(text)), None
    if _TSV.match(text):
        return list(tsv(text)), None
    if found := list(timed_lines(text, form="srt")):
        return found, None
    if _SBV.search(text):
        return list(timed_lines(text, form="sbv")), None
    return list(lrc(text)), None


def captions_of(cues: Iterable[Cue], where: str) -> list[Caption]:
    """The captions that cues say; one without an end after its start lasts as its words need.

    Raises:
        CaptionError: their times are no numbers.
    """
    captions = []
    ordered = sorted(cues, key=lambda cue: cue.place)
    for _, group in groupby(ordered, key=lambda cue: cue.place):
        own, marked = list[Caption](), ""
        placed = sorted(group, key=lambda cue: cue.start_s)
        for cue, after in zip(placed, [*placed[1:], None], strict=True):
            start_s, end_s, text, words, _ = cue
            if end_s is None or end_s <= start_s:
                end_s = start_s + max(_SHORTEST_S, _WORD_S * len(text.split()))
                end_s = min(end_s, after.start_s) if after is not None else end_s
            times = [start_s, end_s, *(at for word in words for at in (word.start_s, word.end_s))]
            if not all(map(math.isfinite, times)):
                raise CaptionError(
                    f"{where}: found a caption from {start_s} to {end_s}, expected seconds"
                )
            if (found := caption(start_s, end_s, text, words)) is None:
                continue
            last = own[-1] if own else None
            if (
                last is not None
                and last.text == found.text
                and marked != text  # another word of it is marked
                and found.start_s - last.end_s <= _MARKED_S
                and not (last.words or found.words)
            ):
                own[-1] = replace(last, end_s=max(last.end_s, found.end_s))
            else:
                own.append(found)
            marked = text
        captions += tidy(own)
    return sorted(captions, key=lambda one: (one.start_s, one.end_s))


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
    return decoded(content, str(path))


def decoded(content: bytes, where: str) -> str:
    """Bytes as text: UTF-8 or UTF-16, else in the encoding that they seem to have.

    Raises:
        CaptionError: their encoding cannot be told.
    """
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        guess = charset_normalizer.from_bytes(content[: 2**16]).best()
        if encoding == "utf-16" or guess is None or b"\0" in content:
            raise CaptionError(
                f"{where}: byte {error.start} is not {encoding}; save the file as UTF-8"
            ) from error
        return content.decode(guess.encoding, errors="replace")
