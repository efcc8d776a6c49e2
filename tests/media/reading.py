"""One thing done with a file that is opened for it alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vatt.media import stored_form
from vatt.media.captions import choose, speech
from vatt.media.captions.choose import CaptionChoice, FoundCaptions
from vatt.media.captions.files import TimedText
from vatt.media.container import MediaSource
from vatt.media.media_file import open_media
from vatt.media.stored_form import MAX_DURATION_S, PART_S, Part, StoredForm


def decode_all_frames(source: MediaSource, *, size: tuple[int, int]) -> Any:
    """Frames, their starts, and when the last one ends."""
    with open_media(source) as media:
        return media.all_frames(size)


def has_stored_form(source: MediaSource, form: StoredForm, *, part_s: float = PART_S) -> bool:
    with open_media(source) as media:
        return stored_form.has_stored_form(media, form, part_s=part_s)


def encode_parts(
    source: MediaSource, folder: Path, form: StoredForm, *, part_s: float = PART_S
) -> Iterator[Part]:
    with open_media(source) as media:
        yield from stored_form.encode_parts(media, folder, form, part_s=part_s)


def encode(source: MediaSource, target: Path, form: StoredForm) -> None:
    """As one file, however long."""
    with TemporaryDirectory(dir=target.parent) as folder:
        for part in encode_parts(source, Path(folder), form, part_s=MAX_DURATION_S):
            part.path.replace(target)


def find_captions(video: Path, choice: CaptionChoice) -> FoundCaptions:
    with open_media(video) as media:
        return choose.find_captions(media, choice)


def transcribe(path: Path, asr: str) -> TimedText:
    with open_media(path) as media:
        return speech.transcribe(media, asr)
