"""Cleaning captions: from what a player shows to plain texts that can be learned from.

A caption that is longer than the model's texts is split, so that no word is lost. Captions that
roll up (each cue repeats the line before it) are undone, and files of one word a cue joined.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import NamedTuple

MAX_WORDS = 16  # of a text that the model reads (§4.1)
MAX_S = 10.0  # of a caption that is joined of several
_ABUTTING_S = 0.5  # cues with a longer pause between them do not belong together
_SAME_S = 0.05  # a text that is shown again after such a pause was not taken away
_WORD_S = 1.5  # a word of speech is shorter
_UNSPACED = re.compile(  # Thai, Lao, Tibetan, Burmese, Khmer, kana, Chinese characters
    r"[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    r"\U00020000-\U0003ffff]"
)
_MARKUP = re.compile(r"</?[A-Za-z0-9][^<>]{0,200}>|\{\\[^{}]{0,200}\}")  # <i>, <v Ann>, {\an8}
# No character has such a number; Python refuses to read one of thousands of digits.
_LONG_NUMBER = re.compile(r"&#(?:\d{9,}|[xX][\da-fA-F]{9,});?")
_BLANK = re.compile(  # spaces, musical notes, invisible characters, halves of surrogate pairs
    r"[\s♪♫♬\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\ud800-\udfff]+"
)
_PASSES = 4  # &amp;lt;i&amp;gt; takes two
_OPENING = re.compile(r"[<{&]+")
_NOTE = re.compile(r"\[[^\[\]]*\]|\([^()]*\)|（[^（）]*）|【[^【】]*】")  # [Music], (sighs)
_SENTENCE_END, _PAUSE = re.compile(r"[.!?…。！？]['\"”’)]*$"), re.compile(r"[,;:，、；：–—]$")


@dataclass(frozen=True, slots=True)
class Word:
    """One word with its start and end in seconds."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Caption:
    """A text with its start and end in seconds: player time in files, video clock in shards.

    words: one for each word of the text, where the source says when each is spoken; else none.
    """

    start_s: float
    end_s: float
    text: str
    words: tuple[Word, ...] = ()


class Cue(NamedTuple):
    """A text with its start and end as a file has them; its words, if it has their times.

    end_s: None where the file does not say. place: only texts of one place are joined.
    """

    start_s: float
    end_s: float | None
    text: str = ""
    words: Sequence[Word] = ()
    place: str = ""


def clean(text: str) -> str:
    """One line of plain text: no markup, control or invisible characters, single spaces."""
    return _plain(text).strip()


def _plain(text: str) -> str:
    """As `clean`, but with a space where the text begins or ends with one."""
    for _ in range(_PASSES):
        before = text
        text = html.unescape(_LONG_NUMBER.sub(" ", _MARKUP.sub("", text)))
        text = _BLANK.sub(" ", text)
        if text == before:
            return text
    return _BLANK.sub(" ", _OPENING.sub(" ", text))  # still markup after all passes: no text


def caption(start_s: float, end_s: float, text: str, words: Sequence[Word] = ()) -> Caption | None:
    """A cleaned caption; None when it has no text, or only says what is heard, as "[Music]".

    `words` are dropped when they are not the words of the text, and else kept within its times.
    """
    cleaned = clean(text)
    if not _NOTE.sub("", cleaned).strip(" -–—"):
        return None
    end_s, kept = max(start_s, end_s), list[Word]()
    if [word.text for word in words] == cleaned.split():
        earliest_s = start_s
        for word in words:
            earliest_s = min(max(earliest_s, word.start_s), end_s)
            kept.append(Word(earliest_s, min(max(earliest_s, word.end_s), end_s), word.text))
    return Caption(start_s, end_s, cleaned, tuple(kept))


def words_of(pieces: Iterable[tuple[float, float, str]]) -> tuple[Word, ...]:
    """Words of timed pieces of text (start, end, text), of which a space begins a new word.

    A piece may be part of a word, or several, which then share its time.
    """
    words: list[Word] = []
    open_word = False  # whether the last word may go on in the next piece
    for start_s, end_s, text in pieces:
        plain = _plain(text)
        for place, part in enumerate(plain.split()):
            if place == 0 and open_word and not plain[0].isspace():
                last = words[-1]
                words[-1] = Word(last.start_s, end_s, last.text + part)
            else:
                words.append(Word(start_s, end_s, part))
        open_word = bool(words) and not plain[-1:].isspace() if plain else open_word
    return tuple(words)


def tidy(captions: Iterable[Caption]) -> list[Caption]:
    """The captions in order of time, each word once, none longer than MAX_WORDS words."""
    ordered = _repeats_joined(_in_order(captions))
    # They roll up when most begin with what the one before them ended with.
    pairs = [pair for pair in pairwise(ordered) if _abut(*pair)]
    repeats = sum(_overlap(one.text.split(), after.text.split()) >= 2 for one, after in pairs)
    if repeats >= 2 and repeats > len(ordered) / 2:
        ordered = list(_unrolled(ordered))
    ordered = _in_order(piece for one in ordered for piece in _split(one))
    # Some speech recognisers write about a word in each cue: they are short in letters and time.
    if (
        len(ordered) > 2
        and median(_num_words(one.text) for one in ordered) < 2
        and median(one.end_s - one.start_s for one in ordered) <= _WORD_S
    ):
        return list(_joined_words(ordered))
    return ordered


def _num_words(text: str) -> int:
    """Between spaces; in scripts without them about two letters are a word."""
    return sum(max(1, len(_UNSPACED.findall(word)) // 2) for word in text.split())


def _repeats_joined(captions: Sequence[Caption]) -> list[Caption]:
    """One caption for a text that is shown on and on, as where each word is marked in turn."""
    joined: list[Caption] = []
    for one in captions:
        last = joined[-1] if joined else None
        if (
            last is not None
            and last.text == one.text
            and one.start_s - last.end_s <= _SAME_S
            and not (last.words or one.words)
        ):
            joined[-1] = Caption(last.start_s, max(last.end_s, one.end_s), last.text)
        else:
            joined.append(one)
    return joined


def _in_order(captions: Iterable[Caption]) -> list[Caption]:
    return sorted(captions, key=lambda one: (one.start_s, one.end_s))


def on_clock(captions: Iterable[Caption], shift_s: float, end_s: float) -> Iterator[Caption]:
    """Captions moved by `shift_s`, as far as they are in [0, end_s)."""
    for one in captions:
        if one.end_s + shift_s > 0 and one.start_s + shift_s < end_s:
            yield _moved(one, shift_s, end_s)


def of_part(captions: Iterable[Caption], start_s: float, end_s: float) -> Iterator[Caption]:
    """The captions of a part [start_s, end_s) of a video, on its own clock.

    One that is heard on both sides of a border is in the part of its middle: whole, and once.
    """
    for one in captions:
        if start_s <= (one.start_s + one.end_s) / 2 < end_s:
            yield _moved(one, -start_s, end_s - start_s)


def _moved(one: Caption, shift_s: float, end_s: float) -> Caption:
    def time(time_s: float) -> float:
        return min(max(time_s + shift_s, 0.0), end_s)

    words = tuple(Word(time(word.start_s), time(word.end_s), word.text) for word in one.words)
    return Caption(time(one.start_s), time(one.end_s), one.text, words)


def _abut(one: Caption, after: Caption) -> bool:
    return after.start_s - one.end_s <= _ABUTTING_S


def _overlap(shown: Sequence[str], after: Sequence[str]) -> int:
    """How many words at the end of one text begin the other; of 100 at most."""
    most = min(len(shown), len(after), 100)
    return next((k for k in range(most, 0, -1) if shown[-k:] == after[:k]), 0)


def _unrolled(captions: Sequence[Caption]) -> Iterator[Caption]:
    """Only the words that are new in each cue; it ends where the next new words begin."""
    waiting: Caption | None = None
    before: Caption | None = None
    for one in captions:
        shown = before.text.split() if before is not None and _abut(before, one) else []
        before = one
        new = _slice(one, _overlap(shown, one.text.split()), None)
        if new is None:
            continue
        if not new.words:  # they appear with their cue
            new = Caption(one.start_s, one.end_s, new.text)
        if waiting is not None:
            end_s = max(waiting.start_s, min(waiting.end_s, new.start_s))
            words = tuple(
                Word(min(word.start_s, end_s), min(word.end_s, end_s), word.text)
                for word in waiting.words
            )
            yield Caption(waiting.start_s, end_s, waiting.text, words)
        waiting = new
    if waiting is not None:
        yield waiting


def _slice(one: Caption, first: int, last: int | None) -> Caption | None:
    """Some words of a caption; without their times, a word's share of it is that of its letters."""
    texts = one.text.split()
    last = len(texts) if last is None else last
    if first >= last:
        return None
    if one.words:
        words = one.words[first:last]
        start_s = one.start_s if first == 0 else words[0].start_s
        end_s = one.end_s if last == len(texts) else words[-1].end_s
        return Caption(start_s, max(start_s, end_s), " ".join(texts[first:last]), words)
    letters, duration_s = len(one.text) + 1, one.end_s - one.start_s
    start = len(" ".join(texts[:first])) + (first > 0)
    end = len(" ".join(texts[:last])) + 1
    return Caption(
        one.start_s + duration_s * start / letters,
        one.start_s + duration_s * end / letters,
        " ".join(texts[first:last]),
    )


def _split(one: Caption) -> Iterator[Caption]:
    """Pieces of at most MAX_WORDS words, cut near the middle, best where a sentence ends."""
    texts = one.text.split()
    if len(texts) <= MAX_WORDS:
        yield one
        return
    middle, reach = len(texts) // 2, len(texts) // 4
    places = sorted(range(middle - reach, middle + reach + 1), key=lambda k: abs(k - middle))
    cut = next(
        (k for end in (_SENTENCE_END, _PAUSE) for k in places if end.search(texts[k - 1])), middle
    )
    for piece in (_slice(one, 0, cut), _slice(one, cut, None)):
        assert piece is not None
        yield from _split(piece)


def _joined_words(captions: Iterable[Caption]) -> Iterator[Caption]:
    """Neighbours joined up to the end of a sentence, a pause, or the length of a text."""
    waiting: Caption | None = None
    for one in captions:
        if (
            waiting is not None
            and _abut(waiting, one)
            and not _SENTENCE_END.search(waiting.text)
            and one.end_s - waiting.start_s <= MAX_S
            and _num_words(waiting.text) + _num_words(one.text) <= MAX_WORDS
        ):
            unspaced = _UNSPACED.match(one.text) and _UNSPACED.match(waiting.text[-1])
            timed = waiting.words and one.words and not unspaced
            words = waiting.words + one.words if timed else ()
            text = f"{waiting.text}{'' if unspaced else ' '}{one.text}"
            waiting = Caption(waiting.start_s, max(waiting.end_s, one.end_s), text, words)
            continue
        if waiting is not None:
            yield waiting
        waiting = one
    if waiting is not None:
        yield waiting
