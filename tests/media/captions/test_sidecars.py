"""Which files beside a video are its captions, and what their names say."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from tests.media.clips import Recipe, write
from tests.media.reading import find_captions
from vatt.media.captions.choose import CaptionChoice
from vatt.media.captions.sidecars import caption_file, caption_files

ONE_CUE = "1\n00:00:01,000 --> 00:00:02,000\nstir the soup\n"


@pytest.mark.parametrize(
    ("name", "language", "special"),
    [
        ("talk.srt", "", False),
        ("talk.mp4.srt", "", False),
        ("talk.ts.srt", "", False),  # the suffix of a video, not Tsonga
        ("talk.en.vtt", "en", False),
        ("talk.en_US.srt", "en", False),
        ("talk.pt-BR.SRT", "pt", False),
        ("talk.zh-Hans.vtt", "zh", False),
        ("talk.en-orig.vtt", "en", False),
        ("talk.English.srt", "en", False),
        ("talk.Brazilian Portuguese.srt", "pt", False),
        ("talk.Français.srt", "fr", False),
        ("talk.English [SDH].srt", "en", True),
        ("talk.en (auto-generated).srt", "en", False),
        ("talk.translated.en.srt", "en", False),
        ("talk.a.en.srt", "en", False),
        ("talk.mkv.de.forced.srt", "de", True),
        ("talk.en.hi.srt", "en", True),  # hearing impaired
        ("talk.hi.srt", "hi", False),  # Hindi
        ("talk.large-v3.srt", "", False),
        ("talk.large-v3.json", "", False),
        ("talk.1.srt", "", False),
        ("talk.cut by hand.srt", "", False),
        ("talk.en.json3", "en", False),
        ("talk.sbv", "", False),
        ("talk.en.ttml", "en", False),
    ],
)
def test_a_name_says_whose_captions_they_are_and_in_which_language(
    name: str, language: str, special: bool
) -> None:
    found = caption_file(name, "talk")
    assert found is not None
    assert (found.name, found.language, found.special, found.problem) == (
        name,
        language,
        special,
        "",
    )


@pytest.mark.parametrize(
    "name", ["talk2.srt", "talk [live].srt", "a talk.srt", "talk.txt", "talk.info.json", "talk.mp4"]
)
def test_other_files_are_not_captions_of_the_video(name: str) -> None:
    assert caption_file(name, "talk") is None


@pytest.mark.parametrize("name", ["talk.scc", "talk.en.stl", "talk.sup", "talk.de.srv3"])
def test_captions_in_a_format_that_is_not_read_are_named(name: str, tmp_path: Path) -> None:
    video = write(tmp_path / "talk.mp4", Recipe(frames=10, audio_codec=None))
    (tmp_path / name).write_bytes(b"\0\1\2")
    (file,) = caption_files(video)
    assert file.problem.startswith("captions of talk in a format that is not read")
    found = find_captions(video, CaptionChoice())
    assert found.problem == f"{tmp_path / name}: {file.problem}"


def test_captions_are_of_the_video_with_the_longest_name_that_fits(tmp_path: Path) -> None:
    for name in ("talk.mp4", "talk.1.mp4", "talk.2.mkv", "talk.srt", "talk.1.en.srt", "talk.2.srt"):
        (tmp_path / name).touch()
    names = {
        video: [file.name for file in caption_files(tmp_path / video)]
        for video in ("talk.mp4", "talk.1.mp4", "talk.2.mkv")
    }
    assert names == {
        "talk.mp4": ["talk.srt"],
        "talk.1.mp4": ["talk.1.en.srt"],
        "talk.2.mkv": ["talk.2.srt"],
    }


def test_names_are_the_same_however_their_accents_are_written(tmp_path: Path) -> None:
    """As macOS writes them (decomposed), and others (composed)."""
    one, other = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    (tmp_path / f"{other}.srt").touch()
    assert [file.name for file in caption_files(tmp_path / f"{one}.mp4")] == [f"{other}.srt"]


@pytest.mark.parametrize(
    "name",
    ["talk.English.srt", "talk.en_US.srt", "talk.a.en.srt", "talk.en (auto-generated).srt"],
)
def test_the_wanted_language_is_found_however_the_name_says_it(name: str, tmp_path: Path) -> None:
    video = write(tmp_path / "talk.mp4", Recipe(frames=10, audio_codec=None))
    for each in (name, "talk.German.srt"):
        (tmp_path / each).write_text(ONE_CUE)
    found = find_captions(video, CaptionChoice(languages=("en",)))
    assert (found.source, found.language) == (name, "en")
    assert found.others == ("talk.German.srt: not in en",)


def test_plain_names_come_before_others(tmp_path: Path) -> None:
    video = write(tmp_path / "talk.mp4", Recipe(frames=10, audio_codec=None))
    order = ["talk.srt", "talk.1.srt", "talk.en.srt", "talk.a.en.srt", "talk.en.sdh.srt"]
    for name in order:
        (tmp_path / name).write_text(ONE_CUE)
    found = find_captions(video, CaptionChoice())
    assert [found.source, *found.others] == order
