from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vatt.media.captions import Caption, CaptionError, clean, find_sidecars, read_captions

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
ASS = """[Script Info]
ScriptType: v4.00+

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Comment: 0,0:00:00.00,0:00:01.00,Default,,0,0,0,,not shown
Dialogue: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,{\\b1}Mix{\\b0}\\Nthe eggs
"""


def save(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_subrip_is_read_in_order_of_time_without_markup(tmp_path: Path) -> None:
    assert read_captions(save(tmp_path / "a.srt", SRT)) == [
        Caption(0.5, 0.9, "First"),
        Caption(1.0, 2.5, "Mix the eggs & milk slowly until smooth"),
    ]


def test_webvtt_keeps_only_what_viewers_see(tmp_path: Path) -> None:
    expected = [Caption(1.0, 2.5, "Mix the eggs"), Caption(3605.0, 3606.0, "an hour later")]
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


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.srt", "no captions in here", "found no timed text"),
        ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\nÄ\n".encode("latin-1"), "save the file as"),
        ("a.json", "{", "not a caption file"),
        ("a.json", '{"title": "metadata of the video"}', "not a caption file"),
        ("a.json", '{"segments": [{"start": "soon", "end": 1, "text": "x"}]}', "not a caption"),
        ("a.json", '{"segments": [{"start": NaN, "end": 1, "text": "x"}]}', "expected seconds"),
        ("a.json", '{"segments": 5}', "not a caption file"),
        ("a.json", '{"events": [{"segs": [7]}]}', "not a caption file"),
        ("a.json", "[" * 100_000, "not a caption file"),
    ],
)
def test_a_broken_file_is_refused_with_its_name_and_reason(
    name: str, content: str | bytes, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(CaptionError, match=reason) as caught:
        read_captions(save(tmp_path / name, content))
    assert name in str(caught.value)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(CaptionError, match="too large for captions"):
        read_captions(path)


def test_an_empty_file_holds_no_captions(tmp_path: Path) -> None:
    assert read_captions(save(tmp_path / "a.srt", "")) == []
    assert read_captions(save(tmp_path / "a.vtt", "WEBVTT\n")) == []


def test_sidecars_are_found_in_order_of_preference(tmp_path: Path) -> None:
    others = ("talk2.srt", "talk.mp3", "talk.info.json", "talk [live].srt", "a talk.srt")
    wanted = ("talk.srt", "talk.json", "talk.en.vtt", "talk.de.srt", "talk.pt-BR.ass")
    for name in (*others, *wanted):
        (tmp_path / name).touch()
    found = [path.name for path in find_sidecars(tmp_path / "talk.mp4")]
    assert found == ["talk.srt", "talk.json", "talk.en.vtt", "talk.de.srt", "talk.pt-BR.ass"]


def test_comparisons_are_no_markup() -> None:
    assert clean("3 < 4 and 5 > 4\u200b,\x00 you know") == "3 < 4 and 5 > 4 , you know"


@given(st.text())
def test_cleaned_text_is_one_line_of_words_with_single_spaces(text: str) -> None:
    cleaned = clean(text)
    assert cleaned == " ".join(cleaned.split())
    assert not any(ord(letter) < 32 for letter in cleaned)
