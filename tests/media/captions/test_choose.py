from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from av.stream import Disposition
from av.subtitles.subtitle import SubtitleSet

from tests.media.clips import Recipe, picture, write
from tests.media.reading import find_captions
from vatt.errors import ConfigError
from vatt.media.captions.choose import CaptionChoice
from vatt.media.captions.clean import Caption

HEADER = b"[Script Info]\r\nScriptType: v4.00+\r\n\r\n[Events]\r\n"
ONE_CUE = "1\n00:00:01,000 --> 00:00:02,000\n{}\n"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write(tmp_path / "talk.mp4", Recipe(frames=10))


def beside(video: Path, *names: str) -> None:
    """Caption files beside a video, each with its own name as its text."""
    for name in names:
        video.with_name(name).write_text(ONE_CUE.format(f"text of {name}"))


def with_stream(
    path: Path,
    *streams: tuple[str, str],
    first_pts: int = 0,
    pictures: str | None = None,
    for_the_deaf: int | None = None,
) -> Path:
    """A video with caption streams of (codec, language); times count from the first frame.

    pictures: the codec of one more stream, in English. for_the_deaf: the number of a stream.
    """
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=10)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        texts = []
        for codec, language in streams:
            stream: Any = output.add_stream(codec)
            stream.codec_context.subtitle_header = HEADER
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
            stream.metadata["language"] = language
            if stream.index == for_the_deaf:
                stream.disposition = Disposition.hearing_impaired
            texts.append(stream)
        if pictures is not None:
            shown = output.add_mux_stream(pictures)
            shown.metadata["language"] = "eng"
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(picture(number))
            frame.pts, frame.time_base = number + first_pts, Fraction(1, 10)
            output.mux(video.encode(frame))
        for stream in texts:
            for start, text in ((500, "mix the {\\i1}eggs{\\i0}"), (1500, "and\\Nstir")):
                line = f"0,0,Default,,0,0,0,,{text}".encode()
                cue = SubtitleSet.create(text=line, start=0, end=800, pts=start * 1000)
                packet = stream.codec_context.encode_subtitle(cue)
                packet.stream, packet.time_base = stream, Fraction(1, 1000)
                packet.pts = packet.dts = start + first_pts * 100
                packet.duration = 800
                output.mux(packet)
        output.mux(video.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mkv", "subrip"), ("a.mkv", "ass"), ("a.mkv", "webvtt"), ("a.mp4", "mov_text")],
)
def test_captions_in_the_file_are_read(name: str, codec: str, tmp_path: Path) -> None:
    found = find_captions(with_stream(tmp_path / name, (codec, "eng")), CaptionChoice())
    assert found.captions == [Caption(0.5, 1.3, "mix the eggs"), Caption(1.5, 2.3, "and stir")]
    assert found.source.startswith("stream 1 (")
    assert (found.language, found.others, found.problem) == ("en", (), "")


def test_captions_in_the_file_count_from_the_start_that_players_show(tmp_path: Path) -> None:
    path = with_stream(tmp_path / "a.mkv", ("subrip", "eng"), first_pts=50)
    found = find_captions(path, CaptionChoice())
    assert [round(one.start_s, 3) for one in found.captions] == [0.5, 1.5]


def test_of_several_streams_the_wanted_language_is_taken(tmp_path: Path) -> None:
    path = with_stream(tmp_path / "a.mkv", ("subrip", "ger"), ("subrip", "eng"))
    assert find_captions(path, CaptionChoice()).language == "en"
    found = find_captions(path, CaptionChoice(languages=("de-AT", "en")))
    assert (found.language, found.source, found.others) == (
        "de",
        "stream 1 (srt)",
        ("stream 2 (srt)",),
    )


@pytest.mark.parametrize("codec", ["dvd_subtitle", "hdmv_pgs_subtitle"])
def test_captions_that_are_images_are_named_and_the_text_is_taken(
    codec: str, tmp_path: Path
) -> None:
    path = with_stream(tmp_path / "a.mkv", ("subrip", "und"), pictures=codec)
    found = find_captions(path, CaptionChoice(languages=("en",)))  # the pictures say English
    assert (found.source, found.captions[0].text) == ("stream 1 (srt)", "mix the eggs")
    (unread,) = found.others
    assert unread.endswith("its captions are pictures, or of no known kind")


def test_captions_for_the_deaf_come_after_plain_ones(tmp_path: Path) -> None:
    path = with_stream(tmp_path / "a.mkv", ("subrip", "eng"), ("subrip", "eng"), for_the_deaf=1)
    assert find_captions(path, CaptionChoice()).source == "stream 2 (srt)"


def test_files_beside_the_video_are_taken_in_order_of_preference(video: Path) -> None:
    beside(video, "talk2.srt", "talk [live].srt", "a talk.srt")  # of other videos
    assert find_captions(video, CaptionChoice()).problem == "no captions beside the video or in it"
    order = ["talk.srt", "talk.forced.srt", "talk.en.srt", "talk.en.sdh.srt", "talk.pt-BR.srt"]
    for name in reversed(order):
        beside(video, name)
        found = find_captions(video, CaptionChoice())
        assert (found.source, found.captions[0].text) == (name, f"text of {name}")
    assert list(found.others) == order[1:]


@pytest.mark.parametrize(
    ("languages", "expected"),
    [
        (("pt",), "talk.pt-BR.srt"),
        (("deu", "en"), "talk.de.srt"),
        (("fr", "any"), "talk.de.srt"),
        (("fr",), ""),
        (("fr", "en"), "talk.eng.srt"),
    ],
)
def test_languages_are_compared_as_languages(languages, expected: str, video: Path) -> None:
    beside(video, "talk.eng.srt", "talk.de.srt", "talk.pt-BR.srt")
    found = find_captions(video, CaptionChoice(languages=languages))
    assert found.source == expected
    assert len(found.others) == (2 if expected else 3)
    if not expected:
        assert found.problem == "talk.pt-BR.srt: not in fr"


def test_what_cannot_be_read_is_named_and_the_next_is_taken(video: Path) -> None:
    beside(video, "talk.en.srt")
    video.with_name("talk.srt").write_text("no captions in here")
    video.with_name("talk.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\n[Music]\n")
    found = find_captions(video, CaptionChoice())
    assert found.source == "talk.en.srt"
    broken, empty = found.others
    assert "talk.srt: found no timed text" in broken
    assert empty == "talk.vtt: holds no text"


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"languages": ("english",)}, "languages: found 'english', expected codes"),
        ({"asr": "espeak"}, "asr: found 'espeak', expected pocketsphinx"),
        ({"asr": "faster-whisper"}, "expected pocketsphinx, or faster-whisper:FOLDER"),
        ({"asr": "faster-whisper:/nowhere"}, "/nowhere: no model.bin there"),
    ],
)
def test_a_choice_that_cannot_be_followed_is_refused(choice, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        CaptionChoice(**choice)
