"""Caption files beside a video: which files they are, by their names, and what the names say.

`talk.srt`, `talk.mp4.srt`, `talk.en.vtt`, `talk.English.forced.srt` and `talk.large-v3.json` are
of `talk.mp4`: what is between its name and the suffix says the language or something else. What is
counted as a caption file and what is read are decided here alone.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from unicodedata import normalize

import langcodes
from langcodes.tag_parser import LanguageTagError

from vatt.media.container import VIDEO_SUFFIXES

# Formats that are read, in order of preference.
CAPTION_SUFFIXES = (
    *(".srt", ".vtt", ".ass", ".ssa", ".json3", ".json", ".ttml", ".dfxp", ".itt", ".sbv", ".smi"),
    *(".sami", ".sub", ".tsv", ".lrc"),
)
UNREAD_SUFFIXES = {
    **dict.fromkeys((".idx", ".sup"), "pictures"),
    ".scc": "Scenarist",
    ".mcc": "MacCaption",
    ".stl": "EBU STL",
    ".cap": "Cheetah CAP",
    ".usf": "Universal Subtitle Format",
    ".mpl": "MPL2",
    ".rt": "RealText",
    ".aqt": "AQTitle",
    ".jss": "JACOsub",
    ".pjs": "Phoenix",
    ".ytt": "YouTube's XML",
    ".srv3": "YouTube's XML",
    ".srv1": "YouTube's XML",
    ".srv2": "YouTube's XML",
}
_DATA_SUFFIXES = (".json", ".tsv")  # of much else: captions only when each tag is known

LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*")
SPECIAL = ("forced", "sdh", "cc", "hoh", "signs", "commentary")  # not all or not only speech
_PLAIN = re.compile(  # tags that say nothing against a file
    r"default|orig|original|auto|asr|auto-generated|generated|translated|a|\d+|new|old|raw|fix|cut|"
    r"subs?|subtitles?|captions?|transcripts?|whisperx?|faster-whisper|aligned|words|"
    r"((whisper|distil)-)?(tiny|base|small|medium|large|turbo)([-_.]\w+)*"
)
_NAMES_OF_LANGUAGES = """
afrikaans=af albanian=sq amharic=am arabic=ar armenian=hy azerbaijani=az basque=eu belarusian=be
bengali=bn bosnian=bs bulgarian=bg burmese=my cantonese=yue catalan=ca chinese=zh croatian=hr
czech=cs danish=da dutch=nl english=en estonian=et farsi=fa filipino=fil finnish=fi french=fr
galician=gl georgian=ka german=de greek=el gujarati=gu hebrew=he hindi=hi hungarian=hu
icelandic=is indonesian=id irish=ga italian=it japanese=ja javanese=jv kannada=kn kazakh=kk
khmer=km korean=ko lao=lo latin=la latvian=lv lithuanian=lt macedonian=mk malay=ms malayalam=ml
maltese=mt mandarin=zh marathi=mr mongolian=mn nepali=ne norwegian=no persian=fa polish=pl
portuguese=pt punjabi=pa romanian=ro russian=ru serbian=sr sinhala=si slovak=sk slovenian=sl
somali=so spanish=es sundanese=su swahili=sw swedish=sv tagalog=tl tamil=ta telugu=te thai=th
tibetan=bo turkish=tr ukrainian=uk urdu=ur uzbek=uz vietnamese=vi welsh=cy yiddish=yi yoruba=yo
zulu=zu deutsch=de español=es espanol=es français=fr francais=fr italiano=it nederlands=nl
polski=pl português=pt portugues=pt русский=ru svenska=sv türkçe=tr 中文=zh 日本語=ja 한국어=ko
"""
_NAMES = dict(pair.split("=") for pair in _NAMES_OF_LANGUAGES.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionFile:
    """A caption file of a video, by its name.

    language: a code such as "en"; "" when the name does not say.
    special: for the deaf, forced or commentary: not only what is said, or not all of it.
    others: how many tags its name has that say something else.
    problem: why it is not read; "" when it is.
    """

    name: str
    language: str = ""
    special: bool = False
    others: int = 0
    problem: str = ""


def caption_file(name: str, stem: str) -> CaptionFile | None:
    """What a file name says if it is that of captions of the video `stem`; else None."""
    name_, stem = normalize("NFC", name), normalize("NFC", stem)
    base, dot, suffix = name_.rpartition(".")
    suffix = f"{dot}{suffix}".lower()
    if suffix not in CAPTION_SUFFIXES and suffix not in UNREAD_SUFFIXES:
        return None
    tags = base.removeprefix(stem)
    if not base.startswith(stem) or (tags and not tags.startswith(".")):
        return None  # of another video, whose name may begin with this one's
    words = [word.lower() for word in tags.split(".")[1:] if word]
    if words and f".{words[0]}" in VIDEO_SUFFIXES:
        words = words[1:]
    language, special, others, known = "", False, 0, True
    for word in words:
        parts = re.split(r"[\s_()\[\]-]+", word)
        named = not _PLAIN.fullmatch(word) and word not in SPECIAL  # some would be valid codes
        found = _language(word, parts) if named else ""
        if any(part in SPECIAL for part in parts) or (language and word == "hi"):
            special = True
            language = language or found
        elif found and not language:
            language = found
            others += len(parts) > 1 and not LANGUAGE.fullmatch(word)  # "en (auto-generated)"
        else:
            others += 1
            known &= bool(found or _PLAIN.fullmatch(word))
    if suffix in _DATA_SUFFIXES and not known:
        return None  # talk.info.json
    problem = ""
    if (kind := UNREAD_SUFFIXES.get(suffix)) is not None:
        problem = f"captions of {stem} in a format that is not read ({kind}); save them as .srt"
    return CaptionFile(
        name=name, language=language, special=special, others=others, problem=problem
    )


def caption_files(video: Path) -> list[CaptionFile]:
    """The caption files beside a video, by name.

    A file is of the video with the longest name that fits: of `talk.1.mp4` and `talk.mp4`,
    `talk.1.en.srt` is of the first.
    """
    own = normalize("NFC", video.stem)
    captions, stems = _folder(video.parent, video.parent.stat().st_mtime_ns)
    found = []
    for same, name in captions[bisect_left(captions, (own, "")) :]:
        if not same.startswith(own):
            break
        file = caption_file(name, own)
        if file is not None and stems.isdisjoint(_prefixes(same, len(own))):
            found.append(file)
    return found


def _prefixes(name: str, least: int) -> Iterator[str]:
    """The beginnings of a name that end before a dot and are longer than `least`."""
    return (name[: dot.start()] for dot in re.finditer(r"\.", name) if dot.start() > least)


@lru_cache(maxsize=16)
def _folder(folder: Path, changed: int) -> tuple[list[tuple[str, str]], frozenset[str]]:
    """Names of caption files, sorted (as compared, as they are), and the stems of videos.

    Cached, so that a folder of a million videos is not listed for each of them.
    """
    del changed  # part of the key only
    captions, stems = [], []
    for path in folder.iterdir():
        name, suffix = path.name, path.suffix.lower()
        same = normalize("NFC", name)
        if suffix in CAPTION_SUFFIXES or suffix in UNREAD_SUFFIXES:
            captions.append((same, name))
        elif suffix in VIDEO_SUFFIXES:
            stems.append(same.rpartition(".")[0])
    return sorted(captions), frozenset(stems)


def _language(tag: str, parts: list[str]) -> str:
    if LANGUAGE.fullmatch(tag):
        code = language_code(tag)
        return code if langcodes.tag_is_valid(code) else ""
    if named := [_NAMES[part] for part in parts if part in _NAMES]:
        return named[0]
    code = language_code(parts[0]) if len(parts) > 1 else ""  # "en (auto-generated)"
    return code if len(code) == 2 and langcodes.tag_is_valid(code) else ""


def language_code(tag: str | None) -> str:
    """The language of a tag in its shortest form: "en" of "en_US", "eng" and "EN"; "" of "und"."""
    if tag is None or not LANGUAGE.fullmatch(tag):
        return ""
    try:
        language = langcodes.Language.get(tag.replace("_", "-")).language
    except LanguageTagError:
        return ""
    return language if language and language != "und" else ""
