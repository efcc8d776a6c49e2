"""Prepared shards → clips: for training a function of (seed, step, slot), for evaluation of a list.

Training asks for clip `step × batch_size + slot` of one endless random order (sampling.ClipOrder).
Nothing else decides what it is: not the number of workers, not the cache, not what came before.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from vatt.contracts import Clip, ClipSpec, draw_bits
from vatt.data import augment
from vatt.data.augment import AugmentConfig
from vatt.data.clip_reader import ClipReader
from vatt.data.data_config import DataConfig
from vatt.data.sampling import ClipOrder, Place, Segments, lay_out
from vatt.data.tokenizer import WordTokenizer
from vatt.errors import ConfigError, DataError, MediaError
from vatt.shards.read import ShardFolder

logger = logging.getLogger(__name__)

REPLACEMENTS = 20  # tried for one clip before giving up


@dataclass(frozen=True, slots=True)
class UnreadableClip:
    """An item that could not be read: which video, why, and at which step or position."""

    key: str
    cause: str
    step: int


class Fetched(NamedTuple):
    """A clip and what failed on the way to it; no clip when nothing replaces the failed one."""

    clip: Clip | None
    failures: tuple[UnreadableClip, ...] = ()


class ClipDataset(torch.utils.data.Dataset[Clip]):
    """The clips of training; `dataset[step, slot]` is a function of (seed, step, slot) alone."""

    def __init__(
        self,
        config: DataConfig,
        spec: ClipSpec,
        augmentation: AugmentConfig,
        tokenizer: WordTokenizer | None,
        seed: int,
    ) -> None:
        """Open the shards, fill the cache if one is asked for, and lay out the order.

        Raises:
            DataError: shards are missing or damaged, or no video is long enough for a clip.
        """
        if not config.shards:
            raise ConfigError("data.shards: no folder given; make one with `vatt prepare`")
        self.config, self.spec, self.seed = config, spec, seed
        self._augmentation = augmentation
        folders = [ShardFolder.open(folder) for folder in config.shards]
        self._readers = [
            ClipReader(data, config, spec, tokenizer, [data.rows(config.split)]) for data in folders
        ]
        sources = [self._segments(reader) for reader in self._readers]
        self.num_videos = sum(len(torch.unique(segments.row)) for segments in sources)
        self._order = ClipOrder(sources, seed=seed, weights=config.weights)

    def _segments(self, reader: ClipReader) -> Segments:
        data, spec, repeat = reader.data, self.spec, self.config.short_clip == "repeat"
        rows = data.rows(self.config.split)
        segments = lay_out(
            rows,
            data.column("duration_s")[rows],
            data.cuts(rows),
            spec.duration_s,
            repeat_short=repeat,
        )
        unused = len(rows) - len(torch.unique(segments.row))
        if unused:
            logger.warning(
                "%s: %d of %d videos have no part of %.2f s without a cut; not used",
                data.folder,
                unused,
                len(rows),
                spec.duration_s,
            )
        if not segments.num_clips:
            raise DataError(
                f"{data.folder}: no video of split {self.config.split!r} has a part of "
                f"{spec.duration_s:.2f} s without a cut; make clips shorter (clip.frames, "
                'clip.fps) or set data.short_clip = "repeat"'
            )
        return segments

    @property
    def num_clips(self) -> int:
        """Different clips; without weights each one has come once after so many."""
        return self._order.num_clips

    def __getitem__(self, where: tuple[int, int]) -> Clip:
        """The clip of a step and slot; see `fetch`."""
        clip = self.fetch(where).clip
        assert clip is not None
        return clip

    def fetch(self, where: tuple[int, int]) -> Fetched:
        """The clip of a step and slot, in [0, batch_size), with what failed on the way to it.

        A clip that cannot be read is replaced by the one at the same place of the next
        epoch of its folder.

        Raises:
            DataError: none of many replacements can be read either.
        """
        index, failures = self._index(where), list[UnreadableClip]()
        for attempt in range(REPLACEMENTS):
            place = self._order.place(index, attempt)
            try:
                return Fetched(self._read(place, index, attempt), tuple(failures))
            except (MediaError, DataError) as error:
                name = self._readers[place.source].name(place.row)
                failures.append(UnreadableClip(name, str(error), where[0]))
        raise DataError(
            f"{failures[-1].cause}\nand so did {REPLACEMENTS - 1} other clips in a row; check the "
            "shards, or prepare them again"
        )

    def place(self, where: tuple[int, int]) -> Place:
        """Where the clip of a step and slot is, if it can be read."""
        return self._order.place(self._index(where))

    def _index(self, where: tuple[int, int]) -> int:
        step, slot = where
        return step * self.config.batch_size + slot

    def _read(self, place: Place, index: int, attempt: int) -> Clip:
        draw = draw_bits(self.seed, index, attempt)
        rng = np.random.default_rng(draw)
        reader, segment = self._readers[place.source], place.segment
        start_s = segment.clip_start(place.clip, rng.random(), self.spec.duration_s)
        changes = augment.draw(self._augmentation, rng, reader.aspect(place.row), self.spec)
        clip = reader.read(place.row, start_s, segment.end_s, changes, draw)
        if clip.has_audio and self._augmentation.audio_noise:
            noisy = augment.add_noise(clip.waveform, self._augmentation.audio_noise, rng)
            return replace(clip, waveform=noisy)
        return clip


@dataclass(frozen=True, slots=True)
class Window:
    """A clip to evaluate: row of the index, start in seconds."""

    row: int
    start_s: float


class EvalDataset(torch.utils.data.Dataset[Clip]):
    """Given windows of the videos of one shard folder, in the given order, not augmented.

    Frames are cropped to the largest centred box of the model's aspect. Windows of the same video
    that follow each other are read faster.
    """

    def __init__(
        self,
        data: ShardFolder,
        windows: Sequence[Window],
        spec: ClipSpec,
        config: DataConfig,
        tokenizer: WordTokenizer | None = None,
    ) -> None:
        """Fill the cache, if one is asked for.

        In memory it holds the videos of the windows; on disk whole splits, so that training and
        every evaluation share it.
        """
        self.windows, self.spec, self.config = tuple(windows), spec, config
        cached = [np.unique([window.row for window in windows]).astype(np.int64)]
        if config.cache == "disk":
            cached = [data.rows(split) for split in np.unique(data.column("split")[cached[0]])]
        self._reader = ClipReader(data, config, spec, tokenizer, cached)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, position: int) -> Clip:
        """The clip of a window.

        Raises:
            MediaError: the video cannot be decoded there, or ends too early and
                `data.short_clip` is "skip".
            DataError: the shard cannot be read.
        """
        reader, window = self._reader, self.windows[position]
        row, start_s = window.row, window.start_s
        if start_s >= reader.end_s(row):
            raise MediaError(
                f"{reader.name(row)}: needs a clip from {start_s:.2f} s, but the video ends at "
                f"{reader.end_s(row):.2f} s; start earlier"
            )
        changes = augment.centre_crop(reader.aspect(row), self.spec)
        return reader.read(row, start_s, reader.end_s(row), changes)

    def fetch(self, position: int) -> Fetched:
        """The clip of a window; without a clip, but with the failure, if it cannot be read."""
        try:
            return Fetched(self[position])
        except (MediaError, DataError) as error:
            name = self._reader.name(self.windows[position].row)
            return Fetched(None, (UnreadableClip(name, str(error), position),))
