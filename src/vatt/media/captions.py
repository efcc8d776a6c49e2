"""Timed text: caption files beside a video, read and cleaned.

Formats: SubRip, WebVTT and ASS (through pysubs2), and the JSON of Whisper and of YouTube (json3).
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pysubs2

from vatt.errors import MediaError

_FORMATS = {".srt": "srt", ".vtt": "vtt", ".ass": "ass", ".ssa": "ass"}
SUFFIXES = (*_FORMATS, ".json3", ".json")  # in order of preference
_MAX_BYTES = 32 * 2**20
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_MARKUP = re.compile(r"</?[A-Za-z0-9][^<>]{0,200}>")  # <i>, <c.yellow>, <v Ann>, <00:00:01.500>
_VTT_NOTES = re.compile(r"^(NOTE|STYLE|REGION)\b.*\n(.+\n)*", re.MULTILINE)  # not for the viewer
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]+")


class CaptionError(MediaError):
    """A caption file cannot be read; the message has the file and what is wrong in it."""


@dataclass(frozen=True, slots=True)
class Caption:
    """A text with its start and end in seconds: player time in files, video clock in shards."""

    start_s: float
    end_s: float
    text: str


def find_sidecars(media_path: Path) -> list[Path]:
    """Caption files beside a video: `talk.srt`, `talk.en.vtt` … for `talk.mp4`.

    In order of preference: without a language, then English, then other languages by name;
    `.srt` before `.vtt`, `.ass` and `.json`.
    """
    found = []
    for path in media_path.parent.iterdir():
        tag = path.stem.removeprefix(media_path.stem)
        if path.suffix.lower() not in SUFFIXES or not path.name.startswith(media_path.stem):
            continue
        if not tag or (tag[0] == "." and _LANGUAGE.fullmatch(tag[1:])):
            english = tag[1:3].lower() == "en"
            rank = (bool(tag), not english, tag, SUFFIXES.index(path.suffix.lower()))
            found.append((rank, path))
    return [path for _, path in sorted(found)]


def read_captions(path: Path) -> list[Caption]:
    """The captions of a file in order of time, without markup; those without text are left out.

    Raises:
        CaptionError: the file cannot be read, is too large, is not UTF-8 (or UTF-16 with its mark),
            or is not of the format its name says.
    """
    text = _read_text(path)
    read_cues = _subtitle_cues if path.suffix.lower() in _FORMATS else _json_cues
    captions = []
    for start_s, end_s, words in read_cues(path, text):
        if not (math.isfinite(start_s) and math.isfinite(end_s)):
            raise CaptionError(
                f"{path}: found a caption from {start_s} to {end_s}, expected seconds"
            )
        cleaned = clean(words)
        if cleaned:
            captions.append(Caption(start_s, max(start_s, end_s), cleaned))
    return sorted(captions, key=lambda caption: (caption.start_s, caption.end_s))


def clean(text: str) -> str:
    """One line of plain text: no markup, control or invisible characters, single spaces."""
    plain = html.unescape(_MARKUP.sub("", text))
    return " ".join(_UNSEEN.sub(" ", plain).split())


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise CaptionError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > _MAX_BYTES:
        raise CaptionError(f"{path}: larger than {_MAX_BYTES:,} bytes, too large for captions")
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise CaptionError(
            f"{path}: byte {error.start} is not {encoding}; save the file as UTF-8"
        ) from error


def _subtitle_cues(path: Path, text: str) -> Iterator[tuple[float, float, str]]:
    form = _FORMATS[path.suffix.lower()]
    if form == "vtt":
        text = _VTT_NOTES.sub("", text.replace("\r\n", "\n") + "\n")
    try:
        events = pysubs2.SSAFile.from_string(text, format_=form).events
    except (pysubs2.Pysubs2Error, ValueError, KeyError, IndexError) as error:
        raise CaptionError(f"{path}: not a .{form} file: {error}") from error
    if not events and text.strip().removeprefix("WEBVTT").strip():
        raise CaptionError(f"{path}: found no timed text, expected a .{form} file")
    for event in events:
        if not event.is_comment:
            yield event.start / 1000, event.end / 1000, event.plaintext


def _json_cues(path: Path, text: str) -> Iterator[tuple[float, float, str]]:
    try:
        values = json.loads(text)
        if "segments" in values:
            yield from _whisper_cues(values["segments"])
        else:
            yield from _youtube_cues(values["events"])
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise CaptionError(
            f"{path}: not a caption file ({type(error).__name__}: {error}); expected the JSON of "
            'Whisper ("segments") or of YouTube ("events")'
        ) from error


def _whisper_cues(segments: Iterable[Mapping[str, Any]]) -> Iterator[tuple[float, float, str]]:
    for segment in segments:
        yield float(segment["start"]), float(segment["end"]), str(segment["text"])


def _youtube_cues(events: Iterable[Mapping[str, Any]]) -> Iterator[tuple[float, float, str]]:
    for event in events:
        words = "".join(str(piece.get("utf8", "")) for piece in event.get("segs", ()))
        start_s = float(event.get("tStartMs", 0)) / 1000
        yield start_s, start_s + float(event.get("dDurationMs", 0)) / 1000, words
