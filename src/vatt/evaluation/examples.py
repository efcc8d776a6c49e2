"""Which labelled examples a split holds, the classes they name, and the clips that judge each."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vatt.contracts import Augmentation, Batch, Clip, ClipSpec, UnreadableClip
from vatt.data.clip_reader import ClipReader
from vatt.data.clip_timing import spread_starts
from vatt.data.data_config import DataConfig
from vatt.data.datasets import EvalDataset
from vatt.data.resize import centre_crop
from vatt.errors import DataError, MediaError
from vatt.evaluation.clips import TOLERANCE_S, place_clip
from vatt.shards.read import ShardFolder
from vatt.shards.record import SampleRecord

CAPTION = "caption"  # column of labels
_PART = re.compile(r"-p\d{4}$")  # of a long file: `Item.part_key`


@dataclass(frozen=True, slots=True)
class LabelledSpan:
    """What is classified: a labelled span of a video, mostly the whole of it.

    row: of the index; cuts_s: of the video, its start and end among them; gaps_s: start and end of
        each damaged stretch, which are cuts, too.
    labels: those that hold in the middle of the span, each once.
    folder: what tells its shard folder from others (`folders_with`); "" where there is one.
    """

    row: int
    key: str
    start_s: float
    end_s: float
    labels: tuple[str, ...]
    cuts_s: tuple[float, ...]
    gaps_s: tuple[tuple[float, float], ...] = ()
    folder: str = ""

    @property
    def id(self) -> str:
        """Names the example in results: folder (if there are several), key of the video, start."""
        return f"{self.folder}{self.key}@{self.start_s:.3f}"

    def clips(self, spec: ClipSpec, number: int) -> tuple[list[float], float]:
        """Starts of the clips that judge it, and the end of what they may show.

        Spread evenly over the span (§4.3), and moved as little as needed to lie between cuts. Where
        the span has no room for so many, some are the same; without room for one, a clip repeats
        what lies between the cuts around the middle.
        """
        middle_s, end_s = (self.start_s + self.end_s) / 2, self.cuts_s[-1]
        span_s = max(self.end_s - self.start_s, spec.duration_s)
        wanted = middle_s - span_s / 2 + spread_starts(span_s, spec, number)
        moved = (
            place_clip(start_s + spec.duration_s / 2, end_s, self.cuts_s[1:-1], spec.duration_s)
            for start_s in wanted.tolist()
        )
        possible = np.array(
            [
                start_s
                for start_s in moved
                if start_s is not None
                and not any(a < start_s + spec.duration_s and start_s < b for a, b in self.gaps_s)
            ]
        )
        if len(possible):
            nearest = np.abs(possible - wanted[:, None]).argmin(1)
            return possible[nearest].tolist(), end_s
        after = int(np.searchsorted(self.cuts_s[1:-1], middle_s, side="right"))
        return [self.cuts_s[after]] * number, self.cuts_s[after + 1]


def file_of(example: str) -> str:
    """Which file an example is of, by its id: all parts of a long one are of the same."""
    return _PART.sub("", example.rpartition("@")[0])


def find_examples(
    shards: ShardFolder,
    split: str | None,
    column: str,
    *,
    with_audio: bool = False,
    folder: str = "",
) -> list[LabelledSpan]:
    """Every labelled span of a split, in the order of the index.

    Args:
        shards: an opened folder.
        split: which of its videos; None: all.
        column: of the labels.
        with_audio: only of videos with audio.
        folder: its name among several.

    Raises:
        DataError: the split has no videos, or none of them has a label there.
    """
    found, columns = list[LabelledSpan](), set[str]()
    rows = shards.rows(split)
    rows = rows[shards.column("labels")[rows] > 0]
    for row in rows[shards.column("has_audio")[rows] | (not with_audio)].tolist():
        record = shards.read_record(row)
        columns |= {name for label in record.labels for name in label}
        end_s = record.facts.duration_s
        cuts_s, gaps_s = _breaks(record, end_s)
        labels = [label for label in record.labels if str(label.get(column) or "")]
        for first_s, last_s in sorted({(one["start_s"], one["end_s"]) for one in labels}):
            span = max(0.0, float(first_s)), min(float(last_s), end_s)
            if span[1] - span[0] < TOLERANCE_S:
                continue
            names = _holding(labels, column, sum(span) / 2)
            found.append(LabelledSpan(row, record.key, *span, names, cuts_s, gaps_s, folder))
    if not found:
        there = sorted(columns - {"start_s", "end_s"}) or "no labels"
        raise DataError(
            f"{shards.folder}: no label {column!r} in split {split or 'any'!r} (its columns: "
            f"{there}); choose one with --label"
        )
    return found


def find_captioned(shards: ShardFolder, split: str, *, folder: str = "") -> list[LabelledSpan]:
    """Every captioned stretch of a split once, with all captions of it as its labels.

    Captions are those of the labels' column `caption`; of a video without labels its captions.

    Raises:
        DataError: there is none.
    """
    found = list[LabelledSpan]()
    for row in shards.rows(split).tolist():
        record = shards.read_record(row)
        end_s = record.facts.duration_s
        texts = defaultdict[tuple[float, float], list[str]](list)
        spans: Sequence[Mapping[str, Any]] = record.labels or [
            {"start_s": one.start_s, "end_s": one.end_s, CAPTION: one.text}
            for one in record.captions
        ]
        for span in spans:
            if text := str(span.get(CAPTION) or "").strip():
                texts[max(0.0, float(span["start_s"])), min(float(span["end_s"]), end_s)].append(
                    text
                )
        cuts_s, gaps_s = _breaks(record, end_s)
        found += [
            LabelledSpan(row, record.key, *span, tuple(dict.fromkeys(said)), cuts_s, gaps_s, folder)
            for span, said in sorted(texts.items())
            if span[1] - span[0] >= TOLERANCE_S
        ]
    if not found:
        raise DataError(
            f"{shards.folder}: no caption in split {split!r}; choose another with --split, or give "
            "`vatt prepare` the captions"
        )
    return found


def _breaks(
    record: SampleRecord, end_s: float
) -> tuple[tuple[float, ...], tuple[tuple[float, float], ...]]:
    """Cuts of a video, its start and end among them, and its gaps."""
    cuts_s = (0.0, *sorted(cut for cut in record.cuts if 0 < cut < end_s), end_s)
    return cuts_s, tuple((gap.start_s, gap.end_s) for gap in record.gaps)


def _holding(labels: Sequence[Mapping[str, Any]], column: str, time_s: float) -> tuple[str, ...]:
    hold = [one for one in labels if one["start_s"] <= time_s < one["end_s"]]
    return tuple(dict.fromkeys(str(one[column]) for one in hold))


def class_names(examples: Sequence[LabelledSpan], *, several: bool) -> tuple[str, ...]:
    """The classes that examples name, by name.

    Raises:
        DataError: there is one alone, or an example is of two where one is expected.
    """
    if not several:
        refuse_several(examples)
    names = sorted({name for example in examples for name in example.labels})
    if len(names) < 2:
        found = f"one class, {names[0]!r}" if names else "none"
        raise DataError(f"labels: found {found}, expected 2 classes or more")
    return tuple(names)


def refuse_several(examples: Sequence[LabelledSpan]) -> None:
    """Stop where an example has several labels.

    Raises:
        DataError: names the first one.
    """
    for example in examples:
        if len(example.labels) > 1:
            raise DataError(
                f"{example.id}: found the labels {', '.join(example.labels)} at once, expected "
                "one; if several can be true, train with --targets.labels several"
            )


def k_hot_of(examples: Sequence[LabelledSpan], names: Sequence[str]) -> NDArray[np.bool_]:
    """Bool [N, classes], which classes each example is of; others than `names` are of none."""
    number = {name: at for at, name in enumerate(names)}
    true = np.zeros((len(examples), len(names)), np.bool_)
    for row, example in zip(true, examples, strict=True):
        row[[number[name] for name in example.labels if name in number]] = True
    return true


def refuse_other_classes(trained: Sequence[str], found: Sequence[str], where: str) -> None:
    """Stop where labels name a class that the model does not know.

    Raises:
        DataError: says the first one, and both lists where they first differ.
    """
    unknown = [name for name in found if name not in set(trained)]
    if unknown:
        at = next(
            (n for n, (ours, theirs) in enumerate(zip(trained, found, strict=False))
             if ours != theirs),
            min(len(trained), len(found)),
        )  # fmt: skip
        ours, theirs = (names[at] if at < len(names) else "nothing" for names in (trained, found))
        raise DataError(
            f"{where}: {len(unknown)} classes that the model was not trained on, first "
            f"{unknown[0]!r}; in order of name the lists differ first at class {at}: the model has "
            f"{ours!r}, the labels have {theirs!r}"
        )


def reader_of(
    data: ShardFolder, examples: Sequence[LabelledSpan], config: DataConfig, spec: ClipSpec
) -> ClipReader:
    """Reads clips of these examples; a cache on disk holds the whole split, for others to use."""
    rows = np.unique([example.row for example in examples]).astype(np.int64)
    if config.cache == "disk" and len(rows):
        rows = data.rows(str(data.column("split")[rows[0]]))
    return ClipReader(data, config, spec, None, [rows])


class ExampleClips:
    """Reads the clips of examples, those of one example at once and as one, for a `Loader`."""

    def __init__(
        self,
        data: ShardFolder,
        examples: Sequence[LabelledSpan],
        spec: ClipSpec,
        config: DataConfig,
        *,
        clips: int,
        centred: bool = False,
    ) -> None:
        """Open the folder; frames come whole, or in a centred box of the clip's aspect."""
        self.examples, self.spec, self.num_clips = tuple(examples), spec, clips
        self._centred = centred
        self._reader = reader_of(data, examples, config, spec)

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, positions: Sequence[int]) -> Batch:
        """The examples of some positions; without those that cannot be read."""
        clips, read, unreadable = list[Clip](), list[int](), list[UnreadableClip]()
        for position in positions:
            example = self.examples[position]
            starts_s, end_s = example.clips(self.spec, self.num_clips)
            try:
                box = Augmentation()
                if self._centred:
                    box = centre_crop(self._reader.aspect(example.row), self.spec)
                clips.append(self._reader.read_several(example.row, starts_s, end_s, box))
                read.append(position)
            except (MediaError, DataError) as error:
                name = self._reader.name(example.row)
                unreadable.append(UnreadableClip(name, str(error), position))
        return Batch.collate(clips, read, unreadable)


class JoinedClips:
    """The clips of several shard folders as one source, one folder after the other."""

    def __init__(self, sources: Sequence[ExampleClips] | Sequence[EvalDataset]) -> None:
        """Join sources of clips of one spec, and of one number for each example."""
        self._sources: Sequence[ExampleClips | EvalDataset] = sources
        self.spec = sources[0].spec
        self.num_clips = getattr(sources[0], "num_clips", 1)
        self._firsts = list(accumulate((len(one) for one in sources), initial=0))

    def __len__(self) -> int:
        return self._firsts[-1]

    def batch(self, positions: Sequence[int]) -> Batch:
        """The examples of some positions; without those that cannot be read."""
        parts = list[Batch]()
        for first, source in zip(self._firsts, self._sources, strict=False):
            own = [at - first for at in positions if first <= at < first + len(source)]
            if own:
                part = source.batch(own)
                at = tuple(one + first for one in part.positions)
                parts.append(replace(part, positions=at))
        return Batch.joined(parts)
