"""Which clips of a split are evaluated: one for each label or caption, with what is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vatt.contracts import ClipSpec, draw_bits
from vatt.errors import DataError
from vatt.shards.read import ShardFolder

TOLERANCE_S = 1e-3


@dataclass(frozen=True, slots=True)
class EvalClip:
    """One clip of one video.

    row: of the index of its shard folder.
    start_s: where the clip starts; it ends `ClipSpec.duration_s` later.
    caption: "" where there is none.
    labels: column by column; "" where a label is not known.
    folder: what tells its shard folder from others (`folders_with`); "" where there is one.
    """

    row: int
    key: str
    start_s: float
    caption: str
    labels: dict[str, str] = field(default_factory=dict)
    folder: str = ""

    @property
    def id(self) -> str:
        """Names the clip in results: folder (if there are several), key of the video, start."""
        return f"{self.folder}{self.key}@{self.start_s:.3f}"


@dataclass(frozen=True, slots=True)
class EvalClips:
    """The clips of a split, in the order of the folders and their indices.

    num_left_out: labels (or captions) around which no clip fits between the cuts.
    """

    split: str
    clips: tuple[EvalClip, ...]
    num_left_out: int

    def __len__(self) -> int:
        return len(self.clips)


def find_clips(
    folders: Mapping[str, ShardFolder],
    split: str,
    spec: ClipSpec,
    *,
    at_most: int | None = None,
    seed: int = 0,
) -> EvalClips:
    """One clip in the middle of each label of a split; of a video without labels, of each caption.

    Args:
        folders: opened folders by name, see `folders_with`.
        split: which of their videos.
        spec: how long a clip is.
        at_most: stop after the video that reaches this many clips; videos come in a random order,
            so that the clips are of as few videos (and as little decoding) as needed.
        seed: of that order.

    Raises:
        DataError: the split has no videos, or nothing in it is labelled or captioned.
    """
    places = [(name, row) for name, shards in folders.items() for row in shards.rows(split)]
    if at_most is not None:
        order = np.random.default_rng(draw_bits(seed)).permutation(len(places))
        places = [places[at] for at in order.tolist()]
    found: list[EvalClip] = []
    num_left_out = 0
    for folder, row in places:
        record = folders[folder].read_record(int(row))
        spans: Sequence[Mapping[str, Any]] = record.labels or [
            {"start_s": caption.start_s, "end_s": caption.end_s, "caption": caption.text}
            for caption in record.captions
        ]
        for span in spans:
            middle_s = (float(span["start_s"]) + float(span["end_s"])) / 2
            start_s = place_clip(middle_s, record.facts.duration_s, record.cuts, spec.duration_s)
            if start_s is None or any(
                gap.start_s < start_s + spec.duration_s and start_s < gap.end_s
                for gap in record.gaps
            ):
                num_left_out += 1
                continue
            labels = {name: str(v) for name, v in span.items() if name not in ("start_s", "end_s")}
            caption = labels.pop("caption", "")
            found.append(EvalClip(int(row), record.key, start_s, caption, labels, folder))
        if at_most is not None and len(found) >= at_most:
            break
    if not found:
        raise DataError(
            f"split {split!r}: {len(places)} videos, but no label or caption with room for a clip "
            f"of {spec.duration_s:.2f} s; evaluate another split, or give `vatt prepare` the "
            "captions or a manifest with labels"
        )
    order_of = {name: at for at, name in enumerate(folders)}
    found.sort(key=lambda clip: (order_of[clip.folder], clip.row, clip.start_s))
    return EvalClips(split, tuple(found), num_left_out)


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
