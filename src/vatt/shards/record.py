"""What is known about one stored video: the `<key>.json` beside it in its shard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from vatt.errors import DataError
from vatt.media.captions.clean import Caption, Word
from vatt.media.damage import Gap
from vatt.media.facts import AudioFacts, MediaFacts, VideoFacts

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartOf:
    """Which part of a long file a stored video is: seconds on the whole file's clock."""

    index: int  # from 0
    count: int
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRecord:
    """What is known about one video.

    source: where it came from, relative to the folder that was prepared.
    part: which part of the source it is, when that was cut into several.
    facts: of the video as stored; its times start at 0.
    source_facts: of the file it was made from.
    source_bytes, source_sha256: of the file it was made from.
    captions, labels, cuts: times in seconds on the stored video's clock; a label has `start_s`,
        `end_s` and the manifest's own columns, as text; no clip may cross a cut.
    captions_from: "talk.en.vtt", "stream 2 (subrip)", "pocketsphinx" …; language: their code.
    other_captions: what was not taken, each with its reason when it could not be.
    gaps: where the source is damaged, in order; no clip touches them, and their ends are cuts.
        The first may begin before 0, the last end after the video (its source is cut off).
    missing: what the video lacks → why ({"audio": "no sound track"}).
    sha256: of the stored video.
    """

    key: str
    source: str
    split: str
    facts: MediaFacts
    source_facts: MediaFacts
    captions: tuple[Caption, ...] = ()
    labels: tuple[Mapping[str, Any], ...] = ()
    cuts: tuple[float, ...] = ()
    gaps: tuple[Gap, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""
    part: PartOf | None = None
    source_bytes: int = 0
    source_sha256: str = ""
    captions_from: str = ""
    language: str = ""
    other_captions: tuple[str, ...] = ()

    @property
    def captions_kind(self) -> str:
        """Where the captions are from: "file", "stream", or the program that heard them."""
        if Path(self.captions_from).suffix:
            return "file"
        return self.captions_from.partition(" ")[0]

    def to_json(self) -> bytes:
        """The record as UTF-8 JSON."""
        values = asdict(self)
        for one in values["captions"]:
            if not one["words"]:
                del one["words"]
        return json_bytes(values)

    @classmethod
    def from_json(cls, content: bytes, *, where: str) -> SampleRecord:
        """Read what `to_json` wrote; keys that this version does not know are ignored.

        Raises:
            DataError: it is not such a record; names `where`.
        """
        try:
            values = json.loads(content)
            part = values.get("part")
            return cls(
                key=values["key"],
                source=values["source"],
                split=values["split"],
                facts=_facts(values["facts"]),
                source_facts=_facts(values["source_facts"]),
                captions=tuple(
                    _build(Caption, one, words=tuple(_build(Word, w) for w in one.get("words", ())))
                    for one in values["captions"]
                ),
                labels=tuple(values["labels"]),
                cuts=tuple(map(float, values["cuts"])),
                gaps=tuple(_build(Gap, one) for one in values.get("gaps", ())),
                missing=values["missing"],
                sha256=values["sha256"],
                part=None if part is None else _build(PartOf, part),
                source_bytes=values.get("source_bytes", 0),
                source_sha256=values.get("source_sha256", ""),
                captions_from=values.get("captions_from", ""),
                language=values.get("language", ""),
                other_captions=tuple(values.get("other_captions", ())),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{where}: not a record of a prepared video ({type(error).__name__}: {error}); "
                "expected JSON as `vatt prepare` writes it"
            ) from error


def json_bytes(value: Any) -> bytes:
    """JSON in UTF-8; with escapes where a file's name is no text, so that it can be read back."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return json.dumps(value, default=str).encode()


def _facts(values: Mapping[str, Any]) -> MediaFacts:
    video, audio = values["video"], values["audio"]
    if video is not None:
        fps = None if video["fps"] is None else Fraction(video["fps"])
        aspect = Fraction(video["sample_aspect"])
        video = _build(VideoFacts, video, fps=fps, sample_aspect=aspect)
    return MediaFacts(
        duration_s=values["duration_s"],
        start_s=values["start_s"],
        video=video,
        audio=None if audio is None else _build(AudioFacts, audio),
    )


def _build(kind: type[T], values: Mapping[str, Any], **converted: Any) -> T:
    """A dataclass from its values, without the keys that a newer version has written."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type] # a dataclass
    return kind(**{name: values[name] for name in values.keys() & names} | converted)
