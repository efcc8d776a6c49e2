"""Caption files as people have them: what a viewer reads, when, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vatt.media.captions.clean import Caption, Word
from vatt.media.captions.files import CaptionError, TimedText, read_captions


def read(tmp_path: Path, content: str, name: str = "talk.srt") -> TimedText:
    path = tmp_path / name
    path.write_text(content)
    return read_captions(path)


def shown(tmp_path: Path, content: str, name: str = "talk.srt") -> list[tuple[float, float, str]]:
    found = read(tmp_path, content, name).captions
    return [(round(one.start_s, 3), round(one.end_s, 3), one.text) for one in found]


# ── WebVTT by its grammar ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["talk.vtt", "talk.srt"])  # what is in the file decides
def test_identifiers_headers_and_remarks_of_webvtt_are_no_text(name: str, tmp_path: Path) -> None:
    content = """WEBVTT - made by hand
Kind: captions

STYLE
::cue { color: lime }

NOTE a remark

Anna Example
00:00.000 --> 00:02.000 align:start
stir the soup slowly

1b2c/15-0
00:00:02.500 --> 00:00:04.500
NOTE that the pan is hot
12

WEBVTT
X-TIMESTAMP-MAP=MPEGTS:900000,LOCAL:00:00:00.000

00:00:05.000 --> 00:00:07.000
STYLE matters
"""
    assert shown(tmp_path, content, name) == [
        (0.0, 2.0, "stir the soup slowly"),
        (2.5, 4.5, "NOTE that the pan is hot 12"),
        (5.0, 7.0, "STYLE matters"),
    ]


def test_segments_of_hls_are_on_one_clock(tmp_path: Path) -> None:
    content = "".join(
        f"WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:{900_000 + 540_000 * k},LOCAL:00:00:00.000\n\n"
        f"00:01.000 --> 00:02.000\npart {k}\n\n"
        for k in range(3)
    )
    assert shown(tmp_path, content, "a.vtt") == [
        (1.0, 2.0, "part 0"),
        (7.0, 8.0, "part 1"),
        (13.0, 14.0, "part 2"),
    ]


# ── SubRip as people write it ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ("00:00:01 --> 00:00:03", (1.0, 3.0)),
        ("00:00:01,5 --> 00:00:03.25", (1.5, 3.25)),
        ("00:00:01:100 --> 00:00:03:200", (1.1, 3.2)),
        ("00:01,100 --> 00:03,200", (1.1, 3.2)),
        ("100:00:01,000 --> 100:00:03,000", (360001.0, 360003.0)),
        ("1234:00:01,000 --> 1234:00:03,000", (4442401.0, 4442403.0)),
        ("-00:00:03,000 --> 00:00:01,000", (-3.0, 1.0)),
        ("00:00:-3,-200 --> 00:00:01,000", (-3.2, 1.0)),
        ("−00:00:03,000 --> 00:00:01,000", (-3.0, 1.0)),
        ("00:00:01,000-->00:00:03,000", (1.0, 3.0)),
        ("00: 00: 01, 000 --> 00: 00: 03, 000", (1.0, 3.0)),
        ("00:00:01,000 -> 00:00:03,000", (1.0, 3.0)),
        ("00:00:01,000 --> 00:00:03,000  X1:63 X2:223 Y1:43 Y2:58", (1.0, 3.0)),
    ],
)
def test_times_keep_every_digit_and_sign(times: str, expected, tmp_path: Path) -> None:
    content = f"1\n{times}\nstir the soup\n\n2\n200:00:00,000 --> 2000:00:00,000\nlater\n"
    found = {text: (start, end) for start, end, text in shown(tmp_path, content)}
    assert found == {"stir the soup": expected, "later": (720000.0, 7200000.0)}


@pytest.mark.parametrize(
    "times", ["00:00:0x --> 1", "00:00:04,500 -->", "--> 00:00:07", "1:2:3:4:5 --> 6:7"]
)
def test_a_time_line_that_is_not_understood_is_no_text_and_is_named(
    times: str, tmp_path: Path
) -> None:
    content = (
        "1\n00:00:01,000 --> 00:00:03,000\nstir\n\n"
        f"2\n{times.replace('x', '')}\nlost\n\n3\n00:00:08,000 --> 00:00:09,000\nserve\n"
    )
    found = read(tmp_path, content)
    if "0x" not in times:
        assert [one.text for one in found.captions] == ["stir", "serve"]
        assert found.problem.startswith("1 of its cues cannot be read")
    assert not any("-->" in one.text for one in found.captions)


@pytest.mark.parametrize(
    "content",
    [
        "00:00:01 --> 00:00:02\nhow many eggs\n12\n\n00:00:03 --> 00:00:04\nadd\n",
        "1\n00:00:01 --> 00:00:02\nhow many eggs\n12\n\n2\n00:00:03 --> 00:00:04\nadd\n",
        "1\n00:00:01 --> 00:00:02\nhow many eggs\n\n12\n\n2\n00:00:03 --> 00:00:04\nadd\n",
        "1\n00:00:01 --> 00:00:02\nhow many eggs\n12\n2\n00:00:03 --> 00:00:04\nadd\n",
        "1\n\n00:00:01 --> 00:00:02\n\nhow many eggs\n\n12\n\n2\n\n00:00:03 --> 00:00:04\n\nadd\n",
    ],
    ids=["no counters", "counters", "blank line within", "no blank lines", "double spaced"],
)
def test_a_number_is_text_unless_it_is_the_counter_of_the_next_cue(
    content: str, tmp_path: Path
) -> None:
    expected = [(1.0, 2.0, "how many eggs 12"), (3.0, 4.0, "add")]
    assert shown(tmp_path, content) == expected
    assert shown(tmp_path, content.replace("\n", "\r\n")) == expected


def test_an_arrow_in_a_sentence_is_text(tmp_path: Path) -> None:
    content = "1\n00:00:01,000 --> 00:00:03,000\nFile --> Save\n"
    assert shown(tmp_path, content) == [(1.0, 3.0, "File --> Save")]


# ── what is joined ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "texts",
    [
        ("先把锅烧热", "然后放一点油", "轻轻搅拌"),
        ("คนเบาๆ", "โรยเกลือ", "ตอกไข่ลงไป"),
        ("Yes", "No", "Thanks"),
    ],
)
def test_cues_that_last_stay_as_they_are_in_any_script(texts, tmp_path: Path) -> None:
    content = "".join(
        f"{k}\n00:00:0{2 * k},000 --> 00:00:0{2 * k + 1},900\n{text}\n\n"
        for k, text in enumerate(texts)
    )
    expected = [(2.0 * k, 2 * k + 1.9, text) for k, text in enumerate(texts)]
    assert shown(tmp_path, content) == expected


@pytest.mark.parametrize("pause_ms", [0, 120])
def test_a_line_whose_words_are_marked_in_turn_is_one_caption(
    pause_ms: int, tmp_path: Path
) -> None:
    words = ["thank", "you", "all", "for", "coming"]
    content = "WEBVTT\n\n" + "".join(
        f"00:0{k}.{pause_ms:03} --> 00:0{k + 1}.000\n"
        + " ".join(f"<u>{word}</u>" if k == j else word for j, word in enumerate(words))
        + "\n\n"
        for k in range(len(words))
    )
    expected = [(pause_ms / 1000, 5.0, "thank you all for coming")]
    assert shown(tmp_path, content, "a.vtt") == expected


ASS = "[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"


def test_signs_and_karaoke_of_ass_are_no_speech(tmp_path: Path) -> None:
    lines = ["Dialogue: 0,0:00:00.00,0:00:01.50,Default,,0,0,0,,keep left"]
    lines += [
        f"Dialogue: 1,0:00:0{k // 20}.{k % 20 * 5:02},0:00:0{(k + 1) // 20}.{(k + 1) % 20 * 5:02},"
        f"Sign,,0,0,0,,{{\\pos({k},50)}}OPEN"
        for k in range(40)
    ]
    lines.append("Dialogue: 0,0:00:03.00,0:00:05.00,Song,,0,0,0,,{\\k50}hap{\\k50}py {\\k100}day")
    lines += [
        f"Dialogue: 2,0:00:0{3 + k}.00,0:00:0{4 + k}.00,Song,,0,0,0,{effect},{{\\pos(9,9)}}{text}"
        for k, text in enumerate(("happy", "day"))
        for effect in ("", "fx")
    ]
    assert shown(tmp_path, ASS + "\n".join(lines), "a.ass") == [
        (0.0, 1.5, "keep left"),
        (0.0, 2.0, "OPEN"),
        (3.0, 5.0, "happy day"),
    ]


# ── transcripts ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), "soon", [], "absent"])
def test_one_bad_word_costs_its_time_alone(bad, tmp_path: Path) -> None:
    times = {} if bad == "absent" else {"start": bad, "end": bad}
    words = [
        {"word": "take", "start": 1, "end": 1.5},
        {"word": "12", **times},
        {"word": "eggs", "start": 2, "end": 3},
    ]
    segments = [
        {"start": 1, "end": 3, "text": "take 12 eggs", "words": words},
        {"start": 4, "end": 6, "text": "add the salt"},
    ]
    found = read(tmp_path, json.dumps({"segments": segments}), "a.json").captions
    expected = (Word(1.0, 1.5, "take"), Word(1.5, 2.0, "12"), Word(2.0, 3.0, "eggs"))
    assert found == [
        Caption(1.0, 3.0, "take 12 eggs", expected),
        Caption(4.0, 6.0, "add the salt"),
    ]


@pytest.mark.parametrize(
    "bad",
    [
        {"start": 1, "end": 2, "text": None},
        {"start": None, "end": 2, "text": "lost"},
        {"start": float("nan"), "end": 2, "text": "lost"},
        None,
        "text",
    ],
)
def test_one_bad_segment_costs_itself_alone(bad, tmp_path: Path) -> None:
    good = {"start": 4, "end": 6, "text": "add the salt"}
    found = read(tmp_path, json.dumps({"segments": [bad, good]}), "a.json")
    assert found.captions == [Caption(4.0, 6.0, "add the salt")]
    assert found.problem.startswith("1 of its cues cannot be read")


def test_segments_without_an_end_last_until_the_next_or_as_their_words_need(tmp_path: Path) -> None:
    chunks = [
        {"timestamp": [1.0, None], "text": " stir the soup well"},
        {"timestamp": [2.0, None], "text": " add the salt"},
    ]
    content = json.dumps({"text": "…", "chunks": chunks})
    expected = [(1.0, 2.0, "stir the soup well"), (2.0, 3.5, "add the salt")]
    assert shown(tmp_path, content, "a.json") == expected


def test_words_may_be_called_text_and_a_list_may_be_all(tmp_path: Path) -> None:
    words = [{"text": "stir", "start": 1, "end": 2}, {"text": "it", "start": 2, "end": 3}]
    content = json.dumps([{"start": 1, "end": 3, "text": " stir it", "words": words}])
    expected = Caption(1.0, 3.0, "stir it", (Word(1.0, 2.0, "stir"), Word(2.0, 3.0, "it")))
    assert read(tmp_path, content, "a.json").captions == [expected]


# ── other formats ────────────────────────────────────────────────────────────────────────────────

TTML = """<?xml version="1.0" encoding="utf-8"?>
<tt xmlns="http://www.w3.org/ns/ttml" xmlns:ttp="http://www.w3.org/ns/ttml#parameter"
    ttp:frameRate="25" ttp:tickRate="10000000"><head><metadata>not shown</metadata></head>
<body><div begin="10s"><p begin="00:00:01.000" end="00:00:03:05">stir<br/>the <span>soup</span></p>
<p begin="40000000t" dur="2s">add</p></div></body></tt>"""
SAMI = """<SAMI><BODY><SYNC Start=1000><P Class=ENCC>stir<br>the soup<P Class=KRCC>저어라
<SYNC Start=3000><P Class=ENCC>&nbsp;</BODY></SAMI>"""


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.ttml", TTML, [(11.0, 13.2, "stir the soup"), (14.0, 16.0, "add")]),
        (
            "a.sbv",
            "0:00:01.000,0:00:03.000\nstir[br]the soup\n\n0:00:04.000,0:00:05.000\n180\n",
            [(1.0, 3.0, "stir the soup"), (4.0, 5.0, "180")],
        ),
        (
            "a.lrc",
            "[ti:Soup]\n[00:01.50][00:09.00]stir it\n[00:03.00]add <00:03.50>salt\n[00:05]\n",
            [(1.5, 3.0, "stir it"), (3.0, 5.0, "add salt"), (9.0, 10.0, "stir it")],
        ),
        ("a.tsv", "start\tend\ttext\n1000\t3000\tstir the soup\n", [(1.0, 3.0, "stir the soup")]),
        ("a.smi", SAMI, [(1.0, 3.0, "stir the soup")]),
        ("a.sub", "{1}{1}25\n{25}{75}stir|the soup\n", [(1.0, 3.0, "stir the soup")]),
        (
            "a.sub",
            "[INFORMATION]\n[TITLE]x\n00:00:01.00,00:00:03.00\nstir[br]the soup\n",
            [(1.0, 3.0, "stir the soup")],
        ),
    ],
)
def test_other_formats_are_read(name: str, content: str, expected, tmp_path: Path) -> None:
    assert shown(tmp_path, content, name) == expected
    assert shown(tmp_path, content, "renamed.srt") == expected


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.sub", "{25}{75}stir|the soup\n", "frames of an unknown rate"),
        ("a.ttml", '<!DOCTYPE tt [<!ENTITY a "aaaa">]><tt>&a;</tt>', "has a DOCTYPE"),
        ("a.ttml", "<tt><body><p begin='1s'", "not XML"),
        ("a.ttml", "<tt/>", "no timed text"),
    ],
)
def test_what_cannot_be_read_says_why(name: str, content: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(CaptionError, match=reason) as caught:
        read(tmp_path, content, name)
    assert name in str(caught.value)
