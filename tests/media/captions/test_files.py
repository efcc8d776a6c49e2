from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from vatt.media.captions.clean import Caption, Word
from vatt.media.captions.files import CaptionError
from vatt.media.captions.files import read_captions as read

SRT = """1
00:00:01,000 --> 00:00:02,500
<i>Mix</i> the eggs &amp; milk {\\an8}slowly
<b>until smooth</b>

2
00:00:00,500 --> 00:00:00,900
First

3
00:00:05,000 --> 00:00:06,000
<i></i>
"""
VTT = """WEBVTT

STYLE
::cue { color: lime }

NOTE a remark for editors

00:01.000 --> 00:02.500 align:start position:0%
<v Ann>Mix <00:00:01.500><c.lime> the eggs</c>

NOTE another
over two lines

01:00:05.000 --> 01:00:06.000
an hour later
"""
SRT_CUE, VTT_CUE = (
    "1\n00:00:01,000 --> 00:00:02,000\n{}\n",
    "WEBVTT\n\n00:01.000 --> 00:02.000\n{}\n",
)
ASS = """[Script Info]
ScriptType: v4.00+

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Comment: 0,0:00:00.00,0:00:01.00,Default,,0,0,0,,not shown
Dialogue: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,{\\b1}Mix{\\b0}\\Nthe eggs
"""


def read_captions(path: Path) -> list[Caption]:
    return read(path).captions


def save(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_subrip_is_read_in_order_of_time_without_markup(tmp_path: Path) -> None:
    assert read_captions(save(tmp_path / "a.srt", SRT)) == [
        Caption(0.5, 0.9, "First"),
        Caption(1.0, 2.5, "Mix the eggs & milk slowly until smooth"),
    ]


def test_webvtt_keeps_only_what_viewers_see(tmp_path: Path) -> None:
    words = (Word(1.0, 1.5, "Mix"), Word(1.5, 2.5, "the"), Word(1.5, 2.5, "eggs"))
    expected = [
        Caption(1.0, 2.5, "Mix the eggs", words),
        Caption(3605.0, 3606.0, "an hour later"),
    ]
    assert read_captions(save(tmp_path / "a.vtt", VTT)) == expected
    assert read_captions(save(tmp_path / "b.vtt", VTT.replace("\n", "\r\n"))) == expected


def test_ass_is_read_without_comments_and_styles(tmp_path: Path) -> None:
    assert read_captions(save(tmp_path / "a.ass", ASS)) == [Caption(1.0, 2.5, "Mix the eggs")]


def test_json_of_whisper_and_of_youtube_is_read(tmp_path: Path) -> None:
    whisper = {"text": "…", "segments": [{"id": 0, "start": 1, "end": 2.5, "text": " Mix eggs"}]}
    pieces = [{"utf8": "Mix"}, {"utf8": " eggs"}]
    youtube = {"events": [{"tStartMs": 0}, {"tStartMs": 1000, "dDurationMs": 1500, "segs": pieces}]}
    for content in (whisper, youtube):
        path = save(tmp_path / "a.json", json.dumps(content))
        assert read_captions(path) == [Caption(1.0, 2.5, "Mix eggs")]


def test_utf16_and_marks_of_encoding_are_understood(tmp_path: Path) -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\nÄpfel schälen\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path = save(tmp_path / "a.srt", text.encode(encoding))
        assert read_captions(path) == [Caption(1.0, 2.0, "Äpfel schälen")]


def test_letters_of_older_encodings_are_understood(tmp_path: Path) -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\nZwiebeln würfeln, dann die Äpfel schälen\n"
    path = save(tmp_path / "a.srt", text.encode("cp1252"))
    expected = "Zwiebeln würfeln, dann die Äpfel schälen"
    assert [one.text for one in read_captions(path)] == [expected]


AUTOMATIC_VTT = """WEBVTT
Kind: captions
Language: en

00:00:00.000 --> 00:00:02.000 align:start position:0%
\x20
hello<00:00:00.500><c> big</c><00:00:01.000><c> world</c>

00:00:02.000 --> 00:00:02.010 align:start position:0%
hello big world
\x20

00:00:02.010 --> 00:00:04.000 align:start position:0%
hello big world
this<00:00:02.500><c> is</c><00:00:03.000><c> it</c>

00:00:04.000 --> 00:00:04.010 align:start position:0%
this is it
\x20
"""
ROLLING_SRT = "\n".join(
    f"{k + 1}\n00:00:0{k},000 --> 00:00:0{k + 2},000\n{line}\n"
    for k, line in enumerate(("one two", "one two\nthree four", "three four\nfive six"))
)


def test_rolling_captions_give_each_word_once_at_its_own_time(tmp_path: Path) -> None:
    found = read(save(tmp_path / "a.vtt", AUTOMATIC_VTT))
    assert found.language == "en"
    hello = (Word(0.0, 0.5, "hello"), Word(0.5, 1.0, "big"), Word(1.0, 2.0, "world"))
    this = (Word(2.01, 2.5, "this"), Word(2.5, 3.0, "is"), Word(3.0, 4.0, "it"))
    assert found.captions == [
        Caption(0.0, 2.0, "hello big world", hello),
        Caption(2.01, 4.0, "this is it", this),
    ]
    rolling = read_captions(save(tmp_path / "a.srt", ROLLING_SRT))
    assert rolling == [
        Caption(0.0, 1.0, "one two"),
        Caption(1.0, 2.0, "three four"),
        Caption(2.0, 4.0, "five six"),
    ]


def test_times_of_words_are_kept_from_json(tmp_path: Path) -> None:
    timed = [{"word": " Don", "start": 1, "end": 1.4}, {"word": "'t", "start": 1.4, "end": 1.5}]
    stir = {"word": " stir.", "start": 1.6, "end": 2}
    segment = {"start": 1, "end": 2, "text": " Don't stir.", "words": [*timed, stir]}
    whisper = {"language": "en", "segments": [segment]}
    pieces = [{"utf8": "Don't"}, {"utf8": " stir.", "tOffsetMs": 600}]
    youtube = {"events": [{"tStartMs": 1000, "dDurationMs": 1000, "segs": pieces}]}
    found = read(save(tmp_path / "a.json", json.dumps(whisper)))
    assert found.language == "en"
    words = (Word(1.0, 1.5, "Don't"), Word(1.6, 2.0, "stir."))
    assert found.captions == [Caption(1.0, 2.0, "Don't stir.", words)]
    words = (Word(1.0, 1.6, "Don't"), Word(1.6, 2.0, "stir."))
    path = save(tmp_path / "a.json3", json.dumps(youtube))
    assert read_captions(path) == [Caption(1.0, 2.0, "Don't stir.", words)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.srt", "1\n00:00:01,000 --> 00:00:01,000\nstir the soup\n"),
        ("a.vtt", "WEBVTT\n\n00:01.000 --> 00:00.500\nstir the soup\n"),
        ("a.json", '{"segments": [{"start": 1, "end": 1, "text": "stir the soup"}]}'),
        ("a.json", '{"events": [{"tStartMs": 1000, "segs": [{"utf8": "stir the soup"}]}]}'),
    ],
)
def test_an_end_that_is_not_after_the_start_counts_as_not_stated(
    name: str, text: str, tmp_path: Path
) -> None:
    assert read_captions(save(tmp_path / name, text)) == [Caption(1.0, 2.5, "stir the soup")]


def test_json_of_whisper_cpp_is_read(tmp_path: Path) -> None:
    one = {"offsets": {"from": 1000, "to": 2500}, "text": " Mix eggs"}
    path = save(tmp_path / "a.json", json.dumps({"transcription": [one]}))
    assert read_captions(path) == [Caption(1.0, 2.5, "Mix eggs")]


def test_damaged_files_are_captions_or_an_error_and_nothing_else(tmp_path: Path) -> None:
    youtube = {"events": [{"tStartMs": 1000, "dDurationMs": 9, "segs": [{"utf8": "Mix"}]}]}
    good = {"a.srt": SRT, "a.vtt": AUTOMATIC_VTT, "a.ass": ASS, "a.json": json.dumps(youtube)}
    rng = np.random.default_rng(0)
    for name, text in good.items():
        for _ in range(60):
            damaged = bytearray(text.encode())
            for _ in range(rng.integers(1, 8)):
                damaged[rng.integers(len(damaged))] = rng.integers(256)
            content = bytes(damaged[: rng.integers(len(damaged)) if rng.random() < 0.3 else None])
            with suppress(CaptionError):
                captions = read_captions(save(tmp_path / name, content))
                assert all(one.start_s <= one.end_s and one.text for one in captions)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.srt", "no captions in here", "found no timed text"),
        ("a.srt", b"1\n00:00:01,000 --> 00:00:02,000\n\xff\x00\xfe\x01\n", "save the file as"),
        ("a.json", "{", "not a caption file"),
        ("a.json", '{"title": "metadata of the video"}', "not a caption file"),
        ("a.json", '{"segments": [{"start": "soon", "end": 1, "text": "x"}]}', "not a caption"),
        ("a.json", '{"segments": [{"start": NaN, "end": 1, "text": "x"}]}', "expected seconds"),
        ("a.json", '{"segments": 5}', "not a caption file"),
        ("a.json", '{"events": [{"segs": [7]}]}', "not a caption file"),
        (
            "a.json",
            '{"events": [{"tStartMs": 1e999, "segs": [{"utf8": "x"}]}]}',
            "expected seconds",
        ),
        (
            "a.json",
            '{"segments": [{"start": 0, "end": 1, "text": null}]}',
            "found None, expected text",
        ),
        ("a.json", '{"transcription": [{"text": "no times"}]}', "not a caption file"),
        ("a.json", "[" * 100_000, "not a caption file"),
    ],
)
def test_a_broken_file_is_refused_with_its_name_and_reason(
    name: str, content: str | bytes, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(CaptionError, match=reason) as caught:
        read_captions(save(tmp_path / name, content))
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.srt", SRT_CUE.format(f"&#{'1' * 5000}; hi"), "hi"),  # Python's int refuses it
        ("a.vtt", VTT_CUE.format(f"hi <{'9' * 150}:00:00.000>"), "hi"),
        (
            "a.vtt",
            VTT_CUE.format(f"\ue000{'9' * 400}\ue001<i>hi</i>"),
            f"\ue000{'9' * 400}\ue001hi",
        ),
        ("a.json", '{"segments": [{"start": 0, "end": 1, "text": "hi"}], "language": 5}', "hi"),
        ("a.json", '{"segments": [{"start": 0, "end": 1, "text": "h \\ud800 i"}]}', "h i"),
    ],
)
def test_absurd_numbers_and_halves_of_characters_harm_nobody(
    name: str, content: str, expected: str, tmp_path: Path
) -> None:
    found = read(save(tmp_path / name, content))
    (one,) = found.captions
    one.text.encode()  # raises where there are halves of characters
    assert found.language is None
    assert one.text == expected


@pytest.mark.timeout(60)  # it takes a second; a square of their number would take minutes
@pytest.mark.parametrize("text", ["{", "{\\", "<a", "\n", "&amp;", "<i>"])
def test_reading_takes_no_square_of_what_is_opened_and_never_closed(
    text: str, tmp_path: Path
) -> None:
    many = text * (2**20 // len(text))
    for name, cue in (("a.srt", SRT_CUE), ("a.vtt", VTT_CUE)):
        assert read(save(tmp_path / name, cue.format(f"a{many}b"))).captions


def test_a_pipe_is_no_caption_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.srt")
    with pytest.raises(CaptionError, match="not a file"):
        read(tmp_path / "a.srt")


def test_shapes_and_remarks_of_ass_are_no_text(tmp_path: Path) -> None:
    drawn = ASS.replace("Mix{", "{\\an7\\p1}m 0 0 l 9 0{\\p0}{a remark}Mix\\h{")
    assert read_captions(save(tmp_path / "a.ass", drawn)) == [Caption(1.0, 2.5, "Mix the eggs")]


def test_lines_of_a_window_that_rolls_up_end_where_the_next_begins(tmp_path: Path) -> None:
    """As YouTube writes automatic captions: each line stays on while the next is spoken."""
    hello = [{"utf8": "hello"}, {"utf8": " world", "tOffsetMs": 1000}]
    rolls = {"tStartMs": 1990, "dDurationMs": 2000, "wWinId": 1, "aAppend": 1}
    youtube = {
        "events": [
            {"tStartMs": 0, "dDurationMs": 9000, "id": 1},
            {"tStartMs": 0, "dDurationMs": 4000, "wWinId": 1, "segs": hello},
            {**rolls, "segs": [{"utf8": "\n"}]},
            {"tStartMs": 2000, "dDurationMs": 4000, "wWinId": 1, "segs": [{"utf8": "again"}]},
            {"tStartMs": 3000, "dDurationMs": 4000, "wWinId": 2, "segs": [{"utf8": "a sign"}]},
        ]
    }
    assert read_captions(save(tmp_path / "a.json3", json.dumps(youtube))) == [
        Caption(0.0, 2.0, "hello world", (Word(0.0, 1.0, "hello"), Word(1.0, 2.0, "world"))),
        Caption(2.0, 6.0, "again"),
        Caption(3.0, 7.0, "a sign"),
    ]


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(CaptionError, match="too large for captions"):
        read_captions(path)


def test_an_empty_file_holds_no_captions(tmp_path: Path) -> None:
    assert read_captions(save(tmp_path / "a.srt", "")) == []
    assert read_captions(save(tmp_path / "a.vtt", "WEBVTT\n")) == []
