"""Cues of text formats: SubRip, WebVTT, SBV, ASS, SAMI, MicroDVD, LRC, TSV, TTML.

Readers take text and give cues; what is not of their format is a ValueError.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from xml.parsers import expat

import pysubs2

from vatt.media.captions.clean import Cue, Word, clean, words_of

# Signs may stand at any place: programs that shift captions write 00:00:-3,-200 as well.
_TIME = r"([-−+]?\s{0,3}\d{1,9}(?:\s{0,3}[:;,.]\s{0,3}[-−]?\d{1,9}){1,4})"
_ARROW_LINE = re.compile(rf"\s*{_TIME}\s*(?:-{{1,3}}\s?>|[–—−]>|→)\s*{_TIME}(?![\d:])")
_COMMA_LINE = re.compile(rf"\s*{_TIME}\s*,\s*{_TIME}\s*\Z".replace("[:;,.]", "[:.]"))
_TIME_LETTERS = frozenset("0123456789:;., \t-−+")
_VTT_WORD_TIME = re.compile(r"<((?:\d{1,4}:)?\d\d?:\d\d\.\d{3})>")  # when what follows is spoken
_VTT_LANGUAGE = re.compile(r"\AWEBVTT.*\n(?:.+\n)*?Language: *([A-Za-z-]+)")
_HLS_MAP = re.compile(r"X-TIMESTAMP-MAP=.*")
_MPEG_WRAP_S = 2**33 / 90_000
_OVERRIDE = re.compile(r"(\{[^{}]*\})")  # in ASS
_DRAWING = re.compile(r"\\p(\d)")  # in an override: what follows is a shape, and not text; 0: text
_ABUTTING_S = 0.1  # events of one sign that moves


class Unread(NamedTuple):
    """A cue that is left out: its times are not understood."""

    line: str


def seconds(time: str) -> float:
    """The seconds of H:M:S,mmm, of M:S.mmm, of H:M:S:mmm, of H:M:S, of S.mmm, with any sign."""
    parts = re.split(r"[:;]", re.sub(r"\s", "", time).replace("−", "-").lstrip("+"))
    whole, _, fraction = parts[-1].replace(",", ".").partition(".")
    if (
        len(parts) > 4
        or "." in fraction
        or any(mark in part for part in parts[:-1] for mark in ",.")
    ):
        raise ValueError(f"found {time!r:.40}, expected a time such as 00:01:02,500")
    negative = "-" in time or "−" in time
    if len(parts) == 4:
        if fraction:
            raise ValueError(f"found {time!r:.40}, expected a time such as 00:01:02,500")
        whole, fraction, parts = parts[2], whole, parts[:3]
    digits = [part.replace("-", "") or "0" for part in [*parts[:-1], whole]]
    value = float(f"0.{fraction.replace('-', '') or '0'}")
    for place, part in enumerate(reversed(digits)):
        value += int(part) * 60**place
    return -value if negative else value


def _times(line: str, sbv: bool) -> tuple[float, float] | Unread | None:
    """The times of a time line; `Unread` when they are not understood; None for other lines."""
    found = (_COMMA_LINE if sbv else _ARROW_LINE).match(line)
    if found is not None:
        try:
            return seconds(found[1]), seconds(found[2])
        except ValueError:
            return Unread(line)
    left, arrow, right = line.partition("-->")
    for side in (left, right) if arrow else ():
        if set(side.strip()) & set("0123456789") and _TIME_LETTERS.issuperset(side):
            return Unread(line)
    return None


def timed_lines(text: str, *, form: str) -> Iterator[Cue | Unread]:
    """SubRip, WebVTT and SBV: lines of text under a line with their times.

    In WebVTT and SBV a cue ends at a blank line, and what is outside of cues is no text. SubRip
    files have blank lines within cues, too: one ends at the counter of the next, which stands
    directly before its times.
    """
    cue: Cue | Unread | None = None
    counter, lines, first_s, shift_s = 0, [""], None, 0.0

    def done() -> Iterator[Cue | Unread]:
        if isinstance(cue, Cue):
            yield _with_words(cue._replace(text="\n".join(lines)), form)
        elif cue is not None:
            yield cue

    for line in text.split("\n"):
        times = _times(line, form == "sbv")
        if times is not None:
            counter = _drop_counter(lines, counter, form)
            yield from done()
            lines = []
            cue = (
                times if isinstance(times, Unread) else Cue(times[0] + shift_s, times[1] + shift_s)
            )
        elif not line and form != "srt":
            yield from done()
            cue, lines = None, []
        elif cue is not None or form == "srt":
            lines.append(line)
        elif form == "vtt" and (mapped := _hls_offset_s(line)) is not None:
            first_s = mapped if first_s is None else first_s
            shift_s = (mapped - first_s + _MPEG_WRAP_S / 2) % _MPEG_WRAP_S - _MPEG_WRAP_S / 2
    yield from done()


def _hls_offset_s(line: str) -> float | None:
    """Of a segment of HLS: what its times are later in the stream than they say."""
    if not _HLS_MAP.match(line):
        return None
    mpeg, local = re.search(r"MPEGTS:(\d{1,12})", line), re.search(r"LOCAL:([\d:.]{1,20})", line)
    try:
        return int(mpeg[1]) / 90_000 - seconds(local[1]) if mpeg and local else None
    except ValueError:
        return None


def _drop_counter(lines: list[str], counter: int, form: str) -> int:
    """Without the counter, or the identifier, of the cue that follows; the counter."""
    last = lines[-1].strip() if lines else ""
    if last.isdecimal() and len(last) < 10:
        del lines[-1]
        return int(last)
    if form != "srt":
        if len(lines) > 1 and not lines[-2].strip():
            del lines[-1]
        return counter
    filled = [place for place, line in enumerate(lines) if line.strip()]
    if filled and filled[-1] > 0 and not lines[filled[-1] - 1].strip():
        alone = lines[filled[-1]].strip()  # every line of some files is followed by a blank one
        if alone.isdecimal() and len(alone) < 10 and int(alone) == counter + 1:
            del lines[filled[-1] :]
            return counter + 1
    return counter


def _with_words(cue: Cue, form: str) -> Cue:
    """The text as it is shown; WebVTT may say when each word of it is spoken."""
    if form == "sbv":
        return cue._replace(text=cue.text.replace("[br]", "\n"))
    first, *rest = _VTT_WORD_TIME.split(cue.text) if form == "vtt" else [cue.text]
    texts = [shown_text(text) for text in (first, *rest[1::2])]
    words = spoken([cue.start_s, *map(seconds, rest[::2])], cue.end_s, texts) if rest else ()
    return cue._replace(text="".join(texts), words=words)


def spoken(starts_s: Sequence[float], end_s: float | None, texts: Sequence[str]) -> Sequence[Word]:
    """The words of texts that are spoken one after the other, from these times on."""
    ends_s = [*starts_s[1:], max(end_s if end_s is not None else starts_s[-1], starts_s[-1])]
    return words_of(zip(starts_s, ends_s, texts, strict=True))


def vtt_language(text: str) -> str | None:
    """The language that the header of a WebVTT file states."""
    found = _VTT_LANGUAGE.match(text)
    return found[1] if found else None


# ── by pysubs2 ───────────────────────────────────────────────────────────────────────────────────


def shown_text(text: str) -> str:
    """What viewers read of a line of ASS: no overrides and shapes, its escapes as white space."""
    shown, drawing = [], False
    for place, part in enumerate(_OVERRIDE.split(text)):
        if place % 2 == 0:
            shown.append("" if drawing else part)
        elif sizes := _DRAWING.findall(part):
            drawing = sizes[-1] != "0"
    return "".join(shown).replace("\\h", " ").replace("\\n", "\n").replace("\\N", "\n")


def _events(text: str, form: str) -> list[pysubs2.SSAEvent]:
    try:
        with warnings.catch_warnings(action="ignore"):  # about margins and styles
            return list(pysubs2.SSAFile.from_string(text, format_=form).events)
    except pysubs2.exceptions.UnknownFPSError as error:
        raise ValueError("its times count frames of an unknown rate") from error
    except Exception as error:  # whatever pysubs2 meets in a damaged file
        raise ValueError(
            f"not captions of this format ({type(error).__name__}: {error})"
        ) from error


def microdvd(text: str) -> Iterator[Cue]:
    """MicroDVD, whose times count frames, when its first line states their rate."""
    for event in _events(text, "microdvd"):
        yield Cue(event.start / 1000, event.end / 1000, shown_text(event.text))


class AssLine(NamedTuple):
    """A line of dialogue of ASS; `text` with its overrides."""

    start_s: float
    end_s: float
    text: str
    style: str
    effect: str


def ass(text: str) -> list[Cue]:
    """ASS and SSA, without comments."""
    return dialogue(
        AssLine(event.start / 1000, event.end / 1000, event.text, event.style, event.effect)
        for event in _events(text, "ass")
        if not event.is_comment
    )


def dialogue(lines: Iterable[AssLine]) -> list[Cue]:
    """What is said: a sign that moves once, a syllable drawn over its line not at all.

    Styles are places: a text of one is not joined with that of another.
    """
    shown = [line for line in lines if line.text.strip()]
    plain = [line for line in shown if line.effect.strip().lower() != "fx"]  # drawn for karaoke
    cues, active = list[Cue](), list[tuple[int, str]]()
    for line in sorted(plain or shown, key=lambda line: (line.start_s, -line.end_s)):
        text = shown_text(line.text)
        letters = "".join(clean(text).split())
        active = [
            (at, held)
            for at, held in active[-100:]
            if (cues[at].end_s or 0.0) >= line.start_s - _ABUTTING_S
        ]
        for at, held in active:
            end_s = cues[at].end_s or 0.0
            if held == letters:  # it moves, or has a shadow
                cues[at] = cues[at]._replace(end_s=max(end_s, line.end_s))
                break
            if letters in held and line.end_s <= end_s + _ABUTTING_S and "\\" in line.text:
                break
        else:
            active.append((len(cues), letters))
            cues.append(Cue(line.start_s, line.end_s, text, (), line.style))
    return cues


# ── others ───────────────────────────────────────────────────────────────────────────────────────


def lrc(text: str) -> Iterator[Cue]:
    """Lyrics: `[01:02.50]words`, which last until the next line."""
    offset = re.search(r"^\[offset:\s*([-+]?\d{1,9})\s*\]", text, re.MULTILINE | re.IGNORECASE)
    shift_s, lines = int(offset[1]) / 1000 if offset else 0.0, list[tuple[float, str]]()
    for line in text.split("\n"):
        found = re.match(r"(?:\s*\[\d{1,4}:\d\d(?:[.:]\d{1,3})?\]){1,100}", line)
        if found is not None:
            plain = re.sub(r"<\d{1,4}:\d\d(?:[.:]\d{1,3})?>", "", line[found.end() :])
            for time in re.findall(r"(\d+):(\d\d)(?:[.:](\d+))?", found[0]):
                value = int(time[0]) * 60 + int(time[1]) + float(f"0.{time[2] or 0}")
                lines.append((value - shift_s, plain))
    lines.sort(key=lambda one: one[0])
    ends_s = [*(start_s for start_s, _ in lines[1:]), None]
    for (start_s, plain), end_s in zip(lines, ends_s, strict=False):
        yield Cue(start_s, end_s, plain)


def sami(text: str) -> Iterator[Cue]:
    """SAMI, of its first language: each text lasts until the next, which may be blank."""
    _, *parts = re.split(
        r"<sync\b[^<>]{0,200}?start\s?=\s?[\"']?(\d{1,12})[^<>]{0,200}>", text, flags=re.I
    )
    lines, language = list[tuple[float, str]](), None
    for start, shown in zip(parts[::2], parts[1::2], strict=True):
        first, *rest = re.split(
            r"<p\b[^<>]{0,200}?class\s?=\s?[\"']?(\w{1,40})[^<>]{0,200}>", shown, flags=re.I
        )
        for name, own in zip(rest[::2], rest[1::2], strict=True) if rest else [("", first)]:
            language = language or name.lower()
            if name.lower() == language:
                lines.append(
                    (int(start) / 1000, re.sub(r"<br\b[^<>]{0,20}>", "\n", own, flags=re.I))
                )
    ends_s = [*(start_s for start_s, _ in lines[1:]), None]
    for (start_s, shown), end_s in zip(lines, ends_s, strict=False):
        yield Cue(start_s, end_s, shown)


def tsv(text: str) -> Iterator[Cue | Unread]:
    """Start, end and text a line: Whisper's in milliseconds under a heading, or in seconds."""
    lines = [line for line in text.split("\n") if line.strip()]
    header = lines[0].lower().startswith("start\t")
    rows = [line.split("\t", 2) for line in lines[header:]]
    unit_s = 0.001 if header and not any("." in part for row in rows for part in row[:2]) else 1.0
    for row, line in zip(rows, lines[header:], strict=True):
        try:
            yield Cue(float(row[0]) * unit_s, float(row[1]) * unit_s, row[2])
        except (ValueError, IndexError):
            yield Unread(line)


def ttml(text: str) -> Iterator[Cue | Unread]:
    """TTML, DFXP, iTT: paragraphs and spans with times; files that define entities are refused."""
    reader = _Ttml()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _no_doctype
    try:
        parser.Parse(re.sub(r"\A\s*<\?xml[^>]*\?>", "", text).encode("utf-8", "replace"), True)
    except expat.ExpatError as error:
        raise ValueError(f"not XML: {error}") from error
    yield from reader.cues


def _no_doctype(*_: object) -> None:
    raise ValueError("it has a DOCTYPE, which captions do not need")


class _Ttml:
    """Cues of elements as they open and close; times count from the start of the parent."""

    def __init__(self) -> None:
        self.cues: list[Cue | Unread] = []
        self._rates = (30.0, 1.0)  # frames and ticks a second
        # Of each open element: begin, end, place of its cue among the open ones.
        self._open: list[tuple[float, float | None, int | None]] = []
        self._texts: dict[int, list[str]] = {}

    def start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(" ")[2]
        plain = {key.rpartition(" ")[2]: value for key, value in attributes.items()}
        if name == "tt":
            frames = _number(plain.get("frameRate"), 30.0)
            over, _, under = plain.get("frameRateMultiplier", "1 1").partition(" ")
            frames *= _number(over, 1.0) / _number(under, 1.0)
            self._rates = (frames, _number(plain.get("tickRate"), frames))
        begin_s, end_s, cue = self._open[-1] if self._open else (0.0, None, None)
        if name == "br" and cue is not None:
            self._texts[cue].append("\n")
        try:
            own_s = begin_s + self._time(plain["begin"]) if "begin" in plain else begin_s
            if "end" in plain:
                end_s = begin_s + self._time(plain["end"])
            elif "dur" in plain:
                end_s = own_s + self._time(plain["dur"])
        except ValueError:
            self.cues.append(Unread(str(plain)))
            cue = None
        else:
            begin_s = own_s
            timed = bool({"begin", "end", "dur"} & plain.keys())
            if name == "p" or (name == "span" and timed):
                cue = len(self.cues)
                self.cues.append(Cue(begin_s, end_s))
                self._texts[cue] = []
        self._open.append((begin_s, end_s, cue))

    def text(self, text: str) -> None:
        if self._open and (cue := self._open[-1][2]) is not None:
            self._texts[cue].append(text)

    def end(self, _: str) -> None:
        cue = self._open.pop()[2]
        if cue is not None and isinstance(one := self.cues[cue], Cue):
            self.cues[cue] = one._replace(text="".join(self._texts[cue]))

    def _time(self, text: str) -> float:
        found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,9})?)(h|m|s|ms|f|t)", text.strip())
        if found is None:
            *whole, frames = text.strip().split(":")
            if len(whole) == 3 and re.fullmatch(r"\d{1,4}(\.\d{1,4})?", frames):
                return seconds(":".join(whole)) + float(frames) / self._rates[0]
            return seconds(text.strip())
        units_s = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
        units_s |= {"f": 1 / self._rates[0], "t": 1 / self._rates[1]}
        return float(found[1]) * units_s[found[2]]


def _number(text: str | None, otherwise: float) -> float:
    found = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*", text or "")
    return float(found[1]) or otherwise if found else otherwise
