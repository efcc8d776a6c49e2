"""What a video's record says about a clip: the nearest captions as word ids (§4.1), the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vatt.contracts import ClipSpec, Labels
from vatt.data.data_config import DataConfig
from vatt.data.tokenizer import WordTokenizer
from vatt.media.captions.clean import Caption
from vatt.shards.read import ShardFolder

VIDEOS_KEPT = 4096  # whose captions and labels stay in memory


class _Annotations(NamedTuple):
    """Of one video: its segments, captions that have words, and labels."""

    edges_s: NDArray[np.float64]  # the video's start, its cuts, its end
    spans_s: NDArray[np.float64]  # [n, 2]
    word_ids: NDArray[np.int64]  # [n, L]
    labels: Sequence[Mapping[str, Any]]  # start_s, end_s and the columns of the manifest


class AnnotationReader:
    """Reads captions and labels of a shard folder; keeps those of the last few thousand videos."""

    def __init__(
        self, data: ShardFolder, spec: ClipSpec, tokenizer: WordTokenizer | None, config: DataConfig
    ) -> None:
        """Set up.

        Args:
            data: the folder.
            spec: gives K texts of L words.
            tokenizer: without one, clips have no texts.
            config: how far captions may be away, and what to do where there are few.
        """
        self._data, self._spec, self._tokenizer, self._config = data, spec, tokenizer, config
        self._of_video = lru_cache(VIDEOS_KEPT)(self._read)

    def __reduce__(self) -> Any:  # another process begins with an empty cache
        return AnnotationReader, (self._data, self._spec, self._tokenizer, self._config)

    def _read(self, row: int) -> _Annotations:
        captions: Sequence[Caption] = ()
        labels: Sequence[Mapping[str, Any]] = ()
        edges_s = np.zeros(0)
        if self._tokenizer is not None or self._data.index["labels"][row].as_py() != 0:
            record = self._data.read_record(row)
            captions, labels = record.captions, record.labels
            end_s = record.facts.duration_s
            edges_s = np.unique([0.0, *(cut for cut in record.cuts if 0 < cut < end_s), end_s])
        spans_s = np.array([(one.start_s, one.end_s) for one in captions]).reshape(-1, 2)
        word_ids = np.zeros((len(captions), self._spec.words), np.int64)
        if self._tokenizer is not None:
            word_ids = self._tokenizer.encode([one.text for one in captions], self._spec.words)
        has_words = word_ids[:, 0] > 0
        return _Annotations(edges_s, spans_s[has_words], word_ids[has_words], labels)

    def texts(self, row: int, middle_s: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The K captions nearest to the middle of a clip, of its segment alone if so set.

        Returns:
            word_ids: int64 [K, L]; text_mask: bool [K], False (and zeros) where there are fewer, if
                they are not to be repeated.

        Raises:
            DataError: the video's record cannot be read.
        """
        spec, found = self._spec, self._of_video(row)
        word_ids = np.zeros((spec.texts, spec.words), np.int64)
        mask = np.zeros(spec.texts, np.bool_)
        segment_s = None
        if self._config.positives == "segment" and len(found.edges_s):
            after = int(np.searchsorted(found.edges_s[1:-1], middle_s, side="right"))
            segment_s = found.edges_s[after], found.edges_s[after + 1]
        near = nearest_captions(
            found.spans_s,
            middle_s,
            count=spec.texts,
            max_gap_s=self._config.max_caption_gap_s,
            segment_s=segment_s,
        )
        if self._config.few_captions == "repeat" and len(near):
            near = np.resize(near, spec.texts)
        word_ids[: len(near)], mask[: len(near)] = found.word_ids[near], True
        return word_ids, mask

    def labels(self, row: int, time_s: float) -> Labels:
        """The labels that hold at a time, from their start up to, not including, their end.

        Returns:
            Their texts by column, without empty ones; several labels may hold at once.

        Raises:
            DataError: the video's record cannot be read.
        """
        found: dict[str, dict[str, None]] = {}  # a dict keeps the order
        for label in self._of_video(row).labels:
            if label["start_s"] <= time_s < label["end_s"]:
                for column, text in label.items():
                    if column not in ("start_s", "end_s") and text != "":
                        found.setdefault(column, {})[str(text)] = None
        return {column: tuple(texts) for column, texts in found.items()}


def nearest_captions(
    spans_s: NDArray[np.float64],
    middle_s: float,
    *,
    count: int,
    max_gap_s: float | None = None,
    segment_s: tuple[float, float] | None = None,
) -> NDArray[np.int64]:
    """The captions nearest in time to a clip: the positives of MIL-NCE (§4.1).

    Args:
        spans_s: [n, 2], start and end of each caption.
        middle_s: the middle of the clip.
        count: K, how many are wanted.
        max_gap_s: captions further away than this are left out.
        segment_s: start and end of the segment that the clip lies in. Captions of other segments
            are left out: one belongs to a segment if either has the middle of the other inside.

    Returns:
        At most `count` row numbers, nearest first. Distance is between middles; with a segment a
        caption that is on in the middle of the clip is at distance 0. Of captions equally near, the
        one with the nearer middle comes first, then the one that starts first.
    """
    starts_s, ends_s = spans_s.T
    middles_s = spans_s.mean(axis=1)
    gaps_s = apart_s = np.abs(middles_s - middle_s)
    kept = np.ones(len(spans_s), np.bool_)
    if segment_s is not None:
        first_s, last_s = segment_s
        apart_s = np.where((starts_s <= middle_s) & (middle_s < ends_s), 0.0, gaps_s)
        half_s = (first_s + last_s) / 2
        kept = (first_s <= middles_s) & (middles_s < last_s)  # most of a caption lies here
        kept |= (starts_s <= half_s) & (half_s < ends_s)  # one for several segments, or for all
    if max_gap_s is not None:
        kept &= apart_s <= max_gap_s
    order = np.lexsort((starts_s, gaps_s, apart_s))
    return order[kept[order]][:count]
