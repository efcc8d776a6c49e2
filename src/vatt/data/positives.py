"""The captions nearest to a clip, as word ids: the positives of MIL-NCE (§3.4, §4.1)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vatt.contracts import ClipSpec
from vatt.data.data_config import DataConfig
from vatt.data.sampling import nearest_captions
from vatt.data.tokenizer import WordTokenizer
from vatt.shards.read import ShardFolder

VIDEOS_KEPT = 4096  # whose captions stay in memory


class _Texts(NamedTuple):
    spans_s: NDArray[np.float64]  # [n, 2]
    word_ids: NDArray[np.int64]  # [n, L]


class TextReader:
    """Reads the captions of a shard folder; keeps those of the last few thousand videos."""

    def __init__(
        self,
        data: ShardFolder,
        spec: ClipSpec,
        tokenizer: WordTokenizer | None,
        config: DataConfig,
    ) -> None:
        """Set up.

        Args:
            data: the folder.
            spec: gives K texts of L words.
            tokenizer: without one, clips have no texts.
            config: how far captions may be away, and what to do where there are few.
        """
        self._data, self._spec, self._tokenizer, self._config = data, spec, tokenizer, config
        self._kept: dict[int, _Texts] = {}

    def nearest(self, row: int, middle_s: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The K captions nearest to a moment.

        Returns:
            word_ids: int64 [K, L]; text_mask: bool [K], False (and zeros) where there are fewer, if
                they are not to be repeated.

        Raises:
            DataError: the video's record cannot be read.
        """
        spec = self._spec
        word_ids = np.zeros((spec.texts, spec.words), np.int64)
        mask = np.zeros(spec.texts, np.bool_)
        if self._tokenizer is not None:
            texts = self._texts(row, self._tokenizer)
            near = nearest_captions(
                texts.spans_s, middle_s, count=spec.texts, max_gap_s=self._config.max_caption_gap_s
            )
            if self._config.few_captions == "repeat" and len(near):
                near = np.resize(near, spec.texts)
            word_ids[: len(near)], mask[: len(near)] = texts.word_ids[near], True
        return word_ids, mask

    def _texts(self, row: int, tokenizer: WordTokenizer) -> _Texts:
        if row not in self._kept:
            if len(self._kept) == VIDEOS_KEPT:
                del self._kept[next(iter(self._kept))]
            captions = self._data.read_record(row).captions
            word_ids = tokenizer.encode([caption.text for caption in captions], self._spec.words)
            spans_s = np.array([(caption.start_s, caption.end_s) for caption in captions])
            has_words = word_ids[:, 0] > 0
            self._kept[row] = _Texts(spans_s.reshape(-1, 2)[has_words], word_ids[has_words])
        return self._kept[row]
