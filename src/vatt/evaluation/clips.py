"""The moments of a dataset that evaluation looks at: one clip each, with what is true of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vatt.contracts import ClipSpec, draw_bits
from vatt.errors import DataError
from vatt.shards.read import ShardFolder
from vatt.shards.record import SampleRecord

TOLERANCE_S = 1e-3


@dataclass(frozen=True, slots=True)
class EvalClip:
    """One clip of one video.

    row: of the dataset's index.
    start_s: where the clip starts; it ends `ClipSpec.duration_s` later.
    caption: what is said of it; "" when nothing is.
    labels: what else is known of it, column by column; "" where it is not known.
    """

    row: int
    key: str
    start_s: float
    caption: str
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Names the clip in results: key of the video and start."""
        return f"{self.key}@{self.start_s:.3f}"


@dataclass(frozen=True, slots=True)
class EvalClips:
    """What was found in a split, in the order of the index.

    num_left_out: labelled stretches (or captions) around which no clip fits between the cuts.
    """

    split: str
    moments: tuple[EvalClip, ...]
    num_left_out: int

    def __len__(self) -> int:
        return len(self.moments)


def find_clips(
    dataset: ShardFolder, split: str, spec: ClipSpec, *, at_most: int | None = None, seed: int = 0
) -> EvalClips:
    """One clip in the middle of each labelled stretch of a split; without labels, of each caption.

    Args:
        dataset: opened shards.
        split: which of its videos.
        spec: how long a clip is.
        at_most: stop after the video that reaches this many clips; videos come in a random order,
            so that the clips are of as few videos (and as little decoding) as needed.
        seed: of that order.

    Raises:
        DataError: the split has no videos, or nothing in it is labelled or captioned.
    """
    rows = np.asarray(dataset.rows(split))
    if at_most is not None:
        rows = np.random.default_rng(draw_bits(seed)).permutation(rows)
    found: list[EvalClip] = []
    left_out = 0
    for row in rows.tolist():
        record = dataset.read_record(row)
        stretches = _stretches(record)
        clips = list(_clips(row, record, stretches, spec))
        found += clips
        left_out += len(stretches) - len(clips)
        if at_most is not None and len(found) >= at_most:
            break
    if not found:
        raise DataError(
            f"split {split!r}: {len(rows)} videos, but no labelled stretch or caption with room "
            f"for a clip of {spec.duration_s:.2f} s; evaluate another split, or give `vatt "
            "prepare` the captions or a manifest with labels"
        )
    found.sort(key=lambda moment: (moment.row, moment.start_s))
    return EvalClips(split, tuple(found), left_out)


def _stretches(record: SampleRecord) -> list[Mapping[str, Any]]:
    if record.labels:
        return list(record.labels)
    return [
        {"start_s": caption.start_s, "end_s": caption.end_s, "caption": caption.text}
        for caption in record.captions
    ]


def _clips(
    row: int, record: SampleRecord, stretches: Sequence[Mapping[str, Any]], spec: ClipSpec
) -> Iterable[EvalClip]:
    for stretch in stretches:
        middle_s = (float(stretch["start_s"]) + float(stretch["end_s"])) / 2
        start_s = place_clip(middle_s, record.facts.duration_s, record.cuts, spec.duration_s)
        if start_s is None:
            continue
        labels = {
            name: str(value) for name, value in stretch.items() if name not in ("start_s", "end_s")
        }
        yield EvalClip(row, record.key, start_s, labels.pop("caption", ""), labels)


def place_clip(
    middle_s: float, duration_s: float, cuts_s: Sequence[float], clip_s: float
) -> float | None:
    """Start of a clip around `middle_s`, moved as little as needed to stay in the video.

    Returns:
        None when no clip fits between the cuts (or ends) around `middle_s`.
    """
    before_s = max((cut for cut in cuts_s if cut <= middle_s), default=0.0)
    after_s = min((cut for cut in cuts_s if cut > middle_s), default=duration_s)
    if after_s - before_s < clip_s - TOLERANCE_S:
        return None
    return max(before_s, min(middle_s - clip_s / 2, after_s - clip_s))
