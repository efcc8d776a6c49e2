"""Cues of the JSON of speech recognisers and of YouTube.

One bad segment is left out, one bad word loses its time. A file without a good one is a ValueError.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from vatt.media.captions.clean import Cue, words_of
from vatt.media.captions.text_formats import Unread, spoken

_BAD = (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError)


def is_transcript(values: Any) -> bool:
    """Whether a value of JSON is what `read_json` reads, and not something else about a video."""
    if isinstance(values, list):
        first = values[0] if values else None
        return isinstance(first, Mapping) and bool({"start", "timestamp"} & first.keys())
    keys = ("segments", "chunks", "transcription", "events")
    return isinstance(values, Mapping) and any(isinstance(values.get(key), list) for key in keys)


def read_json(text: str) -> tuple[list[Cue | Unread], str | None]:
    """Cues and language of Whisper (segments, chunks, transcription) or YouTube (events)."""
    try:
        values = json.loads(text)
        if isinstance(values, list):
            values = {"segments": values}
        for key, reader in (
            ("segments", _segment),
            ("chunks", _segment),
            ("transcription", _whisper_cpp),
        ):
            if key in values:
                return _each(values[key], reader), _language(values)
        return _youtube(values["events"]), None
    except (*_BAD, RecursionError) as error:
        raise ValueError(
            f"not a caption file: {_said(error)}, expected the JSON of Whisper "
            '("segments", "chunks", "transcription") or of YouTube ("events")'
        ) from error


def _said(error: Exception) -> str:
    return f"found no {error}" if isinstance(error, KeyError) else str(error)


def _each(segments: Iterable[Any], reader: Callable[[Any], Cue]) -> list[Cue | Unread]:
    cues, first = list[Cue | Unread](), None
    for segment in segments:
        try:
            cues.append(reader(segment))
        except _BAD as error:
            first = first or error
            cues.append(Unread(_said(error)))
    if first is not None and all(isinstance(cue, Unread) for cue in cues):
        raise first
    return cues


def _language(values: Mapping[str, Any]) -> str | None:
    language = values.get("language")
    if language is None and isinstance(result := values.get("result"), Mapping):
        language = result.get("language")  # whisper.cpp
    return language if isinstance(language, str) else None


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"found {value!r:.40}, expected text")
    return value


def _seconds(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"found a time of {value}, expected seconds")
    return number


def _end_s(value: Any) -> float | None:
    """None where a recogniser does not know it."""
    try:
        return _seconds(value)
    except _BAD:
        return None


def _segment(segment: Mapping[str, Any]) -> Cue:
    start, end = segment.get("timestamp") or (segment.get("start"), segment.get("end"))
    start_s, end_s = _seconds(start), _end_s(end)
    if end is None and "duration" in segment:
        end_s = start_s + _seconds(segment["duration"])
    return Cue(start_s, end_s, _string(segment["text"]), _words(segment, start_s, end_s))


def _words(segment: Mapping[str, Any], start_s: float, end_s: float | None) -> Any:
    """The words of a segment; one without times lies between those beside it."""
    try:
        listed = [(one.get("word", one.get("text")), one) for one in segment.get("words") or ()]
        texts = [_string(text) for text, _ in listed]
    except _BAD:
        return ()
    spans: list[tuple[float, float] | None] = []
    for _, one in listed:
        times = one.get("timestamp") or (one.get("start"), one.get("end"))
        try:
            spans.append((_seconds(times[0]), _seconds(times[1])))
        except _BAD:
            spans.append(None)
    if not any(spans):
        return ()
    later_s = end_s if end_s is not None else max(span[1] for span in spans if span)
    next_s = [later_s] * len(spans)
    for place in reversed(range(len(spans) - 1)):
        after = spans[place + 1]
        next_s[place] = after[0] if after is not None else next_s[place + 1]
    # Whisper's begin with a space, those of others do not.
    space = "" if any(text[:1].isspace() for text in texts) else " "
    pieces, before_s = [], start_s
    for text, span, after_s in zip(texts, spans, next_s, strict=True):
        span = span or (before_s, max(before_s, after_s))
        pieces.append((*span, f"{space}{text}"))
        before_s = span[1]
    return words_of(pieces)


def _whisper_cpp(segment: Mapping[str, Any]) -> Cue:
    times = segment["offsets"]
    text = _string(segment["text"])
    return Cue(_seconds(times["from"]) / 1000, _seconds(times["to"]) / 1000, text)


def _youtube(events: Iterable[Mapping[str, Any]]) -> list[Cue | Unread]:
    """Cues that end where the next of their window begins: lines stay on while it rolls up."""
    begins: dict[object, float] = {}  # window → when its next line begins

    def cue(event: Mapping[str, Any]) -> Cue:
        offsets_s, texts = [], []
        for part in event.get("segs") or ():
            offsets_s.append(_seconds(part.get("tOffsetMs", 0)) / 1000)
            texts.append(_string(part.get("utf8", "")))
        if not "".join(texts).strip():
            return Cue(0.0, 0.0)  # a window opens, or a line break that rolls it
        start_s = _seconds(event.get("tStartMs", 0)) / 1000
        end_s = start_s + _seconds(event.get("dDurationMs", 0)) / 1000
        if (window := event.get("wWinId")) is not None:
            end_s = min(end_s, max(start_s, begins.get(window, end_s)))
            begins[window] = start_s
        starts_s = [start_s + offset_s for offset_s in offsets_s]
        words = spoken(starts_s, end_s, texts) if any(offsets_s) else ()
        return Cue(start_s, end_s, "".join(texts), words)

    return _each(reversed(list(events)), cue)
