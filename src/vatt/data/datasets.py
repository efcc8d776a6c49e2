"""Prepared shards → batches of clips: of training by seed and position, of evaluation by a list.

The position of a clip of training is step × batch size + slot, in one endless random order
(clip_order.ClipOrder). Nothing else decides what it is: not the number of workers, not the cache,
not what came before.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain, count

import numpy as np
import torch
from numpy.typing import NDArray

from vatt.contracts import Batch, Clip, ClipSpec, UnreadableClip, draw_bits
from vatt.data import augment
from vatt.data.augment import AugmentConfig
from vatt.data.clip_order import ClipOrder, Place, lay_out
from vatt.data.clip_reader import ClipReader
from vatt.data.data_config import DataConfig
from vatt.data.resize import centre_crop
from vatt.data.tokenizer import WordTokenizer
from vatt.errors import ConfigError, DataError, MediaError
from vatt.shards.read import ShardFolder

logger = logging.getLogger(__name__)

REPLACEMENTS = 20  # tried for one clip before giving up
UNLABELLED = 10_000  # clips without a label that are passed over in search of one


class ClipDataset:
    """The clips of training; each is a function of the seed and its position in the order."""

    def __init__(
        self,
        config: DataConfig,
        spec: ClipSpec,
        augmentation: AugmentConfig,
        tokenizer: WordTokenizer | None,
        seed: int,
        *,
        label: str | None = None,
        with_audio: bool = False,
    ) -> None:
        """Open the shards, fill the cache if one is asked for, and lay out the order.

        Args:
            config: which videos, and how they are read.
            spec: what a clip holds.
            augmentation: what may be changed.
            tokenizer: without one, clips have no texts.
            seed: of all that is drawn.
            label: only clips with a label in this column; in the place of others come later ones.
            with_audio: only videos with audio.

        Raises:
            DataError: shards are missing or damaged, or no video is long enough for a clip.
        """
        if not config.shards:
            raise ConfigError("data.shards: no folder given; make one with `vatt prepare`")
        self.config, self.spec, self.seed = config, spec, seed
        self._augmentation = augmentation
        self._readers, folders, self.num_videos = list[ClipReader](), [], 0
        self._has_audio = self._has_texts = False
        self._tokenizer, self._label = tokenizer, label
        for data in [ShardFolder.open(folder) for folder in config.shards]:
            rows = data.rows(config.split)
            if label is not None:
                rows = rows[data.column("labels")[rows] > 0]
            if with_audio:
                rows = rows[data.column("has_audio")[rows]]
            if not len(rows):
                wanted = " and audio" if with_audio else ""
                raise DataError(
                    f"{data.folder}: no video of split {config.split!r} has labels{wanted}"
                )
            segments = lay_out(
                rows,
                data.column("duration_s")[rows],
                data.cuts(rows),
                spec.duration_s,
                repeat_short=config.short_clip == "repeat",
                gaps=data.gaps(rows),
            )
            if not segments.num_clips:
                raise DataError(
                    f"{data.folder}: no video of split {config.split!r} has a part of "
                    f"{spec.duration_s:.2f} s without a cut; make clips shorter (clip.frames, "
                    'clip.fps) or set data.short_clip = "repeat"'
                )
            used = torch.unique(segments.row).numpy()
            if len(used) < len(rows):
                logger.warning(
                    "%s: %d of %d videos have no part of %.2f s without a cut; not used",
                    data.folder,
                    len(rows) - len(used),
                    len(rows),
                    spec.duration_s,
                )
            self.num_videos += len(used)
            self._has_audio |= bool(data.column("has_audio")[used].any())
            self._has_texts |= tokenizer is not None and bool(data.column("captions")[used].any())
            folders.append(segments)
            self._readers.append(ClipReader(data, config, spec, tokenizer, [rows]))
        self._order = ClipOrder(folders, seed=seed, weights=config.weights)

    @property
    def num_clips(self) -> int:
        """Different clips; without weights each one has come once after so many."""
        return self._order.num_clips

    def check_contrast(self, *, texts: bool = True) -> None:
        """Refuse data from which contrast learns nothing; say when a batch holds clips twice.

        Args:
            texts: whether texts are learned from.

        Raises:
            DataError: there is one clip alone, or neither audio nor, if wanted, captions.
        """
        config = self.config
        where = f"{', '.join(map(str, config.shards))}: split {config.split!r}"
        if not self._has_audio and not (self._has_texts and texts):
            found = "neither audio nor captions" if texts else "no audio (loss.text_weight is 0)"
            raise DataError(
                f"{where} has {found}: nothing to learn frames from; give `vatt prepare` videos "
                "with audio, or with captions beside them (or --asr for those that are spoken)"
            )
        if self.num_clips == 1:
            raise DataError(
                f"{where} has one clip of {self.spec.duration_s:.2f} s alone, expected 2 or more: "
                "a clip is learned by telling it from others; prepare more videos, or longer ones"
            )
        if config.batch_size > self.num_clips:
            logger.warning(
                "%s has %d clips of %.2f s, fewer than data.batch_size (%d): every batch holds "
                "some of them several times; prepare more videos, or set data.batch_size lower",
                where,
                self.num_clips,
                self.spec.duration_s,
                config.batch_size,
            )

    def place(self, position: int) -> Place:
        """Where the clip of a position is, if it can be read."""
        return self._order.place(position)

    def batch(self, positions: Sequence[int]) -> Batch:
        """The clips of some positions: of one step, as many as asked for; see `fetch`."""
        found = [self.fetch(position) for position in positions]
        unreadable = chain.from_iterable(failed for _, failed in found)
        return Batch.collate([clip for clip, _ in found], positions, tuple(unreadable))

    def fetch(self, position: int) -> tuple[Clip, list[UnreadableClip]]:
        """The clip of a position, and what could not be read there before.

        A clip that cannot be read is replaced by the one at the same place of the next epoch
        (`ClipOrder.place`).

        Raises:
            DataError: none of many replacements can be read either.
        """
        unreadable = list[UnreadableClip]()
        for attempt in count():
            place = self._order.place(position, attempt)
            reader, segment = self._readers[place.folder], place.segment
            draw = draw_bits(self.seed, position, attempt)
            rng = np.random.default_rng(draw)
            start_s = segment.clip_start(place.clip, rng.random(), self.spec.duration_s)
            changes = augment.draw(self._augmentation, rng, reader.aspect(place.row), self.spec)
            try:
                if self._label is not None and not reader.has_label(
                    place.row, start_s, segment.end_s, self._label
                ):
                    if attempt < UNLABELLED:
                        continue
                    break
                clip = reader.read(place.row, start_s, segment.end_s, changes, draw)
            except (MediaError, DataError) as error:
                step = position // self.config.batch_size
                unreadable.append(UnreadableClip(reader.name(place.row), str(error), step))
                if len(unreadable) == REPLACEMENTS:
                    break
                continue
            if clip.has_audio and self._augmentation.audio_noise:
                noisy = augment.add_noise(clip.waveform, self._augmentation.audio_noise, rng)
                clip = replace(clip, waveform=noisy)
            if self._tokenizer is not None and self.config.unknown_words:
                words = _words_as_known(
                    self.seed,
                    position // self.config.batch_size,
                    self.config.unknown_words,
                    self._tokenizer.vocabulary_size,
                    self._tokenizer.unknown_id,
                )
                clip = replace(clip, word_ids=words[clip.word_ids])
            return clip, unreadable
        if not unreadable:
            raise DataError(
                f"{', '.join(map(str, self.config.shards))}: found no label {self._label!r} on "
                f"{UNLABELLED} clips of split {self.config.split!r} in a row; see `--label`"
            )
        raise DataError(
            f"{unreadable[-1].reason}\nand so did {REPLACEMENTS - 1} other clips in a row; check "
            "the shards, or prepare them again"
        )


@lru_cache(maxsize=2)
def _words_as_known(
    seed: int, step: int, share: float, vocabulary_size: int, unknown_id: int
) -> NDArray[np.int64]:
    """Each word id as it is in the batch of a step: its own, or the unknown word's, int64 [V].

    The same for all clips of the batch: texts of the same words stay texts of the same words.
    """
    words = np.arange(vocabulary_size)
    unknown = np.random.default_rng(draw_bits(seed, step, vocabulary_size)).random(len(words))
    return np.where((words > 0) & (unknown < share), unknown_id, words)  # 0 is padding


class EvalDataset:
    """Clips at given places in the videos of one shard folder, in the given order, not augmented.

    Frames are cropped to the largest centred box of the model's aspect. Clips of the same video
    that follow each other are read faster.
    """

    def __init__(
        self,
        data: ShardFolder,
        clips: Sequence[tuple[int, float]],
        spec: ClipSpec,
        config: DataConfig,
        tokenizer: WordTokenizer | None = None,
    ) -> None:
        """Fill the cache, if one is asked for.

        In memory it holds the videos of the clips; on disk whole splits, so that training and
        every evaluation share it.

        Args:
            data: the folder.
            clips: row of the index and start in seconds of each.
            spec: what a clip holds.
            config: how to read.
            tokenizer: without one, clips have no texts.
        """
        self.clips, self.spec = tuple(clips), spec
        cached = [np.unique([row for row, _ in clips]).astype(np.int64)]
        if config.cache == "disk":
            cached = [data.rows(split) for split in np.unique(data.column("split")[cached[0]])]
        self._reader = ClipReader(data, config, spec, tokenizer, cached)

    def __len__(self) -> int:
        return len(self.clips)

    def batch(self, positions: Sequence[int]) -> Batch:
        """The clips of some positions of the list; without those that cannot be read."""
        clips, read, unreadable = list[Clip](), list[int](), list[UnreadableClip]()
        for position in positions:
            try:
                clips.append(self[position])
                read.append(position)
            except (MediaError, DataError) as error:
                name = self._reader.name(self.clips[position][0])
                unreadable.append(UnreadableClip(name, str(error), position))
        return Batch.collate(clips, read, unreadable)

    def __getitem__(self, position: int) -> Clip:
        """The clip of a position.

        Raises:
            MediaError: the video cannot be decoded there, or ends too early and
                `data.short_clip` is "skip".
            DataError: the shard cannot be read.
        """
        reader, (row, start_s) = self._reader, self.clips[position]
        if start_s >= reader.end_s(row):
            raise MediaError(
                f"{reader.name(row)}: needs a clip from {start_s:.2f} s, but the video ends at "
                f"{reader.end_s(row):.2f} s; start earlier"
            )
        changes = centre_crop(reader.aspect(row), self.spec)
        return reader.read(row, start_s, reader.end_s(row), changes)
