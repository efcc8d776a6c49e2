"""What is known about one prepared video: the `<key>.json` beside it in its shard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

from vatt.errors import DataError
from vatt.media.captions import Caption
from vatt.media.video import AudioFacts, MediaFacts, VideoFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRecord:
    """What is known about one video: the `<key>.json` beside it.

    source: where it came from, relative to the folder that was prepared.
    facts: of the video as stored; its times start at 0.
    source_facts: of the file it was made from.
    captions, labels, cuts: times in seconds on the stored video's clock; a label has `start_s`,
        `end_s` and the manifest's own columns, as text; no clip may cross a cut.
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
    missing: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""

    def to_json(self) -> bytes:
        """The record as UTF-8 JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, default=str).encode()

    @classmethod
    def from_json(cls, content: bytes, *, where: str) -> SampleRecord:
        """Read what `to_json` wrote; keys that this version does not know are ignored.

        Raises:
            DataError: it is not such a record; names `where`.
        """
        try:
            values = json.loads(content)
            return cls(
                key=values["key"],
                source=values["source"],
                split=values["split"],
                facts=_facts(values["facts"]),
                source_facts=_facts(values["source_facts"]),
                captions=tuple(Caption(**caption) for caption in values["captions"]),
                labels=tuple(values["labels"]),
                cuts=tuple(map(float, values["cuts"])),
                missing=values["missing"],
                sha256=values["sha256"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{where}: not a record of a prepared video ({type(error).__name__}: {error}); "
                "expected JSON as `vatt prepare` writes it"
            ) from error


def _facts(values: Mapping[str, Any]) -> MediaFacts:
    video, audio = values["video"], values["audio"]
    if video is not None:
        fps = None if video["fps"] is None else Fraction(video["fps"])
        aspect = Fraction(video["sample_aspect"])
        video = VideoFacts(**{**video, "fps": fps, "sample_aspect": aspect})
    return MediaFacts(
        duration_s=values["duration_s"],
        start_s=values["start_s"],
        video=video,
        audio=None if audio is None else AudioFacts(**audio),
    )
