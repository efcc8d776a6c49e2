from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vatt.media.captions.clean import (
    MAX_WORDS,
    Caption,
    Word,
    caption,
    clean,
    of_part,
    on_clock,
    tidy,
    words_of,
)

WORDS = [f"{letter}{number}" for letter in "abcdefgh" for number in range(9)]


@st.composite
def told(draw) -> list[Caption]:
    """Captions one after the other, of words that do not repeat; some with times of words."""
    captions, start, words = [], 0.0, iter(WORDS)
    for _ in range(draw(st.integers(0, 6))):
        texts = [word for word, _ in zip(words, range(draw(st.integers(1, 24))), strict=False)]
        if not texts:
            break
        lasts = draw(st.floats(0.5, 20))
        step = lasts / len(texts)
        times = [Word(start + k * step, start + (k + 1) * step, t) for k, t in enumerate(texts)]
        timed = draw(st.booleans())
        end = times[-1].end_s
        captions.append(Caption(start, end, " ".join(texts), tuple(times) if timed else ()))
        start = end + draw(st.floats(0, 2))
    return captions


@given(told())
def test_tidy_captions_keep_every_word_in_order_and_none_is_too_long(captions) -> None:
    found = tidy(captions)
    assert " ".join(one.text for one in found) == " ".join(one.text for one in captions)
    assert all(len(one.text.split()) <= MAX_WORDS for one in found)
    assert all(one.start_s <= after.start_s for one, after in pairwise(found))
    assert sum(one.end_s - one.start_s for one in found) <= sum(
        one.end_s - one.start_s for one in captions
    ) + 2.0 * len(captions)  # joined captions cover the pause between them
    for one in found:
        assert not one.words or " ".join(word.text for word in one.words) == one.text
        assert all(
            one.start_s - 1e-9 <= w.start_s <= w.end_s <= one.end_s + 1e-9 for w in one.words
        )


@given(told())
def test_tidying_twice_changes_nothing(captions) -> None:
    assert tidy(tidy(captions)) == tidy(captions)


def test_a_long_caption_is_cut_where_a_sentence_ends() -> None:
    first = "Peel the onions and cut them into thin rings please."
    rest = "Now heat some oil in a pan until it shimmers and add them."
    one, after = tidy([Caption(0.0, 10.0, f"{first} {rest}")])
    assert (one.text, after.text) == (first, rest)
    assert (one.start_s, one.end_s) == (0.0, after.start_s)
    assert after.end_s == pytest.approx(10)
    assert one.end_s == pytest.approx(10 * (len(first) + 1) / (len(first) + len(rest) + 2))


def test_a_file_of_one_word_a_cue_becomes_sentences() -> None:
    texts = ["Mix", "the", "eggs.", "Then", "add", "some", "milk"]
    cues = [Caption(k * 0.4, k * 0.4 + 0.4, text) for k, text in enumerate(texts)]
    cues.append(Caption(9.0, 9.4, "slowly"))
    assert [(one.text, round(one.start_s, 1)) for one in tidy(cues)] == [
        ("Mix the eggs.", 0.0),
        ("Then add some milk", 1.2),
        ("slowly", 9.0),
    ]


def test_captions_that_repeat_are_left_alone_unless_they_roll_up() -> None:
    song = [Caption(k, k + 0.9, text) for k, text in enumerate(("la la la", "la la la", "oh"))]
    assert tidy(song) == song


@pytest.mark.parametrize("text", ["[Music]", "(sighs)", "♪♪", "- [Applause] (cheering)", "<i></i>"])
def test_what_is_only_heard_is_no_caption(text: str) -> None:
    assert caption(0.0, 1.0, text) is None


def test_notes_within_speech_stay() -> None:
    found = caption(0.0, 1.0, "♪ mix [laughs] the eggs ♪")
    assert found == Caption(0.0, 1.0, "mix [laughs] the eggs")


def test_pieces_of_text_become_words_at_spaces() -> None:
    pieces = [(0.0, 1.0, "un"), (1.0, 2.0, "do that"), (2.0, 3.0, " now")]
    expected = (Word(0.0, 2.0, "undo"), Word(1.0, 2.0, "that"), Word(2.0, 3.0, "now"))
    assert words_of(pieces) == expected


@given(told(), st.lists(st.floats(0.5, 30), max_size=5))
def test_each_caption_of_a_cut_video_is_in_one_part(captions, lengths) -> None:
    borders = [0.0]
    for length in lengths:
        borders.append(borders[-1] + length)
    borders.append(1e4)
    found = []
    for start, end in pairwise(borders):
        part = list(of_part(captions, start, end))
        assert all(0 <= one.start_s <= one.end_s <= end - start for one in part)
        found += [one.text for one in part]
    assert found == [one.text for one in captions]


def test_captions_are_cut_where_their_video_begins_and_ends() -> None:
    words = (Word(0.25, 0.625, "before"), Word(0.625, 2.0, "after"))
    early, late = Caption(0.2, 2.0, "before after", words), Caption(2.5, 9.0, "to the end")
    gone = Caption(0.0, 0.4, "gone")
    assert list(on_clock([gone, early, late], -0.5, 3.0)) == [
        Caption(0.0, 1.5, "before after", (Word(0.0, 0.125, "before"), Word(0.125, 1.5, "after"))),
        Caption(2.0, 3.0, "to the end"),
    ]


def test_comparisons_are_no_markup() -> None:
    assert clean("3 < 4 and 5 > 4\u200b,\x00 you know") == "3 < 4 and 5 > 4 , you know"


MARKED = st.lists(st.sampled_from([*"<>{}&;#3i \n", "amp", "\\\\an8", "♪", "<b>", "&lt;"])).map(
    "".join
)


@given(st.text() | MARKED)
def test_cleaned_text_is_one_line_of_words_with_single_spaces_and_stays_so(text: str) -> None:
    cleaned = clean(text)
    assert cleaned == " ".join(cleaned.split())
    assert not any(ord(letter) < 32 for letter in cleaned)
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize(
    "text", ["&amp;lt;i&amp;gt;it&amp;#39;s", f"&{'amp;' * 9}lt;it's", "it&#39;s"]
)
def test_what_was_escaped_more_than_once_is_unescaped(text: str) -> None:
    assert clean(text).endswith("it's")


def test_captions_stay_in_order_of_time_where_a_long_one_overlaps_the_next() -> None:
    talk = Caption(0.0, 20.0, " ".join(WORDS[:40]))
    found = tidy([talk, Caption(1.0, 2.0, "a sign")])
    assert [one.text for one in found if one.text == "a sign"]
    assert all(one.start_s <= after.start_s for one, after in pairwise(found))


def test_times_of_words_are_kept_within_their_caption_and_in_order() -> None:
    words = (Word(1.5, 1.75, "eggs"), Word(1.0, 0.0, "and"), Word(5.0, -3.0, "milk"))
    kept = (Word(1.5, 1.75, "eggs"), Word(1.5, 1.5, "and"), Word(2.0, 2.0, "milk"))
    assert caption(1.0, 2.0, "eggs and milk", words) == Caption(1.0, 2.0, "eggs and milk", kept)
