"""Prepared shards → clips: for training a function of (seed, step, slot), for evaluation of a list.

Training asks for clip `step × batch_size + slot` of one endless random order (sampling.ClipOrder).
Nothing else decides what it is: not the number of workers, not the cache, not what came before.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vatt.contracts import Augmentation, Clip, ClipSpec, draw_bits
from vatt.data import augment
from vatt.data.augment import AugmentConfig
from vatt.data.cache import CacheSettings, VideoCache, open_cache
from vatt.data.sampling import (
    ClipOrder,
    Place,
    Segment,
    clip_samples,
    clip_slots,
    clip_times,
    fits,
)
from vatt.data.shards import Dataset
from vatt.data.texts import TextReader
from vatt.data.words import WordTokenizer
from vatt.errors import ConfigError, DataError, MediaError
from vatt.media.audio import decode_audio
from vatt.media.video import decode_frames

logger = logging.getLogger(__name__)

REPLACEMENTS = 20  # tried for one clip before giving up


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Where clips come from and how they are read."""

    shards: tuple[Path, ...] = ()  # folders made by `vatt prepare`
    weights: tuple[float, ...] = ()
    """Share of each folder among the clips; in proportion to their clips when empty."""
    split: str = "train"
    decode_size: tuple[int, int] = (256, 320)
    """Height and width of decoded frames, before the crop; pictures are stretched to it, and crops
    undo that."""
    short_clip: Literal["repeat", "skip"] = "repeat"
    """What to do where a video, or a part between cuts, is shorter than a clip."""
    max_caption_gap_s: float | None = None
    """Captions whose middle is further than this from the clip's are no positives of it."""
    silent_below: float = 0.0
    """Clips whose peak, in [0, 1], is below this count as clips without sound."""
    batch_size: int = 2048  # clips of one step, over all ranks (§4.3)
    workers: int | None = None
    """Processes that read clips, per rank: 0 is the training process itself, none one per core."""
    cache: Literal["none", "memory", "disk"] = "none"
    """Decode every video once and keep frames and sound; for small data sets."""
    cache_dir: Path | None = None  # of cache = "disk"; `cache` inside each shard folder if not set
    max_bad_fraction: float = 0.05  # of the videos may fail before training stops

    def __post_init__(self) -> None:
        self._check("weights", len(self.weights) in (0, len(self.shards)), "one per shard folder")
        self._check("weights", all(weight > 0 for weight in self.weights), "> 0")
        self._check("decode_size", min(self.decode_size) > 0, "height and width > 0")
        self._check("batch_size", self.batch_size > 0, "> 0")
        self._check("workers", self.workers is None or self.workers >= 0, "0 or more, or none")
        self._check("silent_below", 0.0 <= self.silent_below <= 1.0, "0 to 1")
        self._check("max_bad_fraction", 0.0 <= self.max_bad_fraction <= 1.0, "0 to 1")
        gap_s = self.max_caption_gap_s
        self._check("max_caption_gap_s", gap_s is None or gap_s > 0, "> 0, or none")

    def _check(self, name: str, good: bool, expected: str) -> None:
        if not good:
            raise ConfigError(f"data.{name}: found {getattr(self, name)}, expected {expected}")


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that could not be read: which video, why, and at which step or position."""

    key: str
    cause: str
    step: int


class Fetched(NamedTuple):
    """A clip and what failed on the way to it; no clip when nothing replaces the failed one."""

    clip: Clip | None
    failures: tuple[Failure, ...] = ()


class ClipReader:
    """Reads clips of the videos of one shard folder, from its cache where there is one."""

    def __init__(
        self,
        data: Dataset,
        config: DataConfig,
        spec: ClipSpec,
        tokenizer: WordTokenizer | None,
        cached: Sequence[NDArray[np.int64]],
    ) -> None:
        """Open the folder.

        Args:
            data: the folder.
            config: how to read; its `split` is not looked at.
            spec: what a clip holds.
            tokenizer: turns captions into word ids; without one, clips have no texts.
            cached: rows that have a cache, one per array, if `data.cache` asks for any.
        """
        self.data = data
        self._config, self._spec, self._tokenizer = config, spec, tokenizer
        self._duration_s = data.column("duration_s")
        self._shape = np.stack([data.column("height"), data.column("width")], axis=1)
        self._texts = TextReader(data, spec, tokenizer, config.max_caption_gap_s)
        self._last: tuple[int, bytes, NDArray[np.int16] | None] | None = None
        self._caches: dict[int, VideoCache] = {}  # by row
        for rows in cached if config.cache != "none" else ():
            cache = open_cache(
                data,
                rows,
                CacheSettings(config.decode_size, spec.sample_rate_hz),
                folder=self._cache_folder(),
            )
            self._caches |= dict.fromkeys(rows.tolist(), cache)

    def _cache_folder(self) -> Path | None:
        if self._config.cache == "memory":
            return None
        return self._config.cache_dir or self.data.folder / "cache"

    def name(self, row: int) -> str:
        """What errors call a video."""
        return f"{self.data.folder}: {self.key(row)}"

    def key(self, row: int) -> str:
        """The video's key, as stored with its embeddings and labels."""
        return str(self.data.index["key"][row])

    def aspect(self, row: int) -> float:
        """Width / height of the video as it is shown."""
        height, width = self._shape[row]
        return float(width) / float(height) if height and width else 1.0

    def read(
        self, row: int, start_s: float, end_s: float, augmentation: Augmentation, draw: int = 0
    ) -> Clip:
        """One clip.

        Args:
            row: which video.
            start_s: when the clip starts.
            end_s: end of the part that it may show; a clip that does not fit repeats.
            augmentation: handed on with the clip.
            draw: handed on with the clip.

        Raises:
            MediaError: the video cannot be decoded there, or the clip does not fit and
                `data.short_clip` is "skip".
            DataError: the shard cannot be read.
        """
        spec = self._spec
        if self._config.short_clip == "skip" and not fits(spec, start_s, end_s):
            raise MediaError(
                f"{self.name(row)}: needs {spec.duration_s:.2f} s from {start_s:.2f} s "
                f"({spec.frames} frames at {spec.fps:g} fps), but the video ends at {end_s:.2f} s; "
                'start earlier or set data.short_clip = "repeat"'
            )
        frames, track = self._decoded(row, clip_times(spec, start_s, end_s))
        waveform = np.zeros(spec.samples, np.int16)
        if track is not None:
            waveform = clip_samples(track, spec, start_s, end_s)
        peak = int(np.abs(waveform.astype(np.int32)).max())
        has_audio = track is not None and peak >= self._config.silent_below * 2**15
        word_ids, text_mask = self._texts.nearest(row, start_s + spec.duration_s / 2)
        return Clip(
            key=self.key(row),
            start_s=start_s,
            frames=frames,
            waveform=waveform if has_audio else np.zeros_like(waveform),
            has_audio=has_audio,
            word_ids=word_ids,
            text_mask=text_mask,
            augmentation=augmentation,
            draw=draw,
        )

    def end_s(self, row: int) -> float:
        """Duration of the video."""
        return float(self._duration_s[row])

    def _decoded(
        self, row: int, times_s: NDArray[np.float64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int16] | None]:
        if row in self._caches and (video := self._caches[row].get(row)) is not None:
            frames = video.frames_at(times_s)
            if frames is not None:
                return frames, video.track
        try:
            if self._last is None or self._last[0] != row:  # neighbours often want the same sound
                source = self.data.read_video(row)
                track = decode_audio(source, sample_rate_hz=self._spec.sample_rate_hz)
                self._last = row, source, track
            _, source, track = self._last
            return decode_frames(source, times_s, size=self._config.decode_size), track
        except MediaError as error:
            raise MediaError(f"{self.name(row)}: {error}") from error


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
        folders = [Dataset.open(folder) for folder in config.shards]
        self._readers = [
            ClipReader(data, config, spec, tokenizer, [data.rows(config.split)]) for data in folders
        ]
        sources = [self._segments(reader) for reader in self._readers]
        self.num_videos = sum(len({row for row, _ in segments}) for segments in sources)
        self._order = ClipOrder(sources, seed=seed, weights=config.weights)

    def _segments(self, reader: ClipReader) -> list[tuple[int, Segment]]:
        cuts = reader.data.index["cuts"]
        segments = []
        rows = reader.data.rows(self.config.split).tolist()
        for row in rows:
            found = clip_slots(
                reader.end_s(row),
                cuts[row].as_py(),
                self.spec.duration_s,
                repeat_short=self.config.short_clip == "repeat",
            )
            segments += [(row, segment) for segment in found]
        used = len({row for row, _ in segments})
        if used < len(rows):
            logger.warning(
                "%s: %d of %d videos have no part of %.2f s without a cut; not used",
                reader.data.folder,
                len(rows) - used,
                len(rows),
                self.spec.duration_s,
            )
        if not segments:
            raise DataError(
                f"{reader.data.folder}: no video of split {self.config.split!r} has a part of "
                f"{self.spec.duration_s:.2f} s without a cut; make clips shorter (clip.frames, "
                'clip.fps) or set data.short_clip = "repeat"'
            )
        return segments

    @property
    def clips_per_epoch(self) -> int:
        """After how many clips each one has come once."""
        return self._order.clips_per_epoch

    def __getitem__(self, where: tuple[int, int]) -> Clip:
        """The clip of a step and slot; see `fetch`."""
        clip = self.fetch(where).clip
        assert clip is not None
        return clip

    def fetch(self, where: tuple[int, int]) -> Fetched:
        """The clip of a step and slot, in [0, batch_size), with what failed on the way to it.

        A clip that cannot be read is replaced by the one at the same place of the next epoch.

        Raises:
            DataError: none of many replacements can be read either.
        """
        step, slot = where
        index = step * self.config.batch_size + slot
        failures: list[Failure] = []
        for attempt in range(REPLACEMENTS):
            place = self._order[index + attempt * self.clips_per_epoch]
            try:
                return Fetched(self._read(place, index, attempt), tuple(failures))
            except (MediaError, DataError) as error:
                name = self._readers[place.source].name(place.row)
                failures.append(Failure(name, str(error), step))
        raise DataError(
            f"{failures[-1].cause}\nand so did {REPLACEMENTS - 1} other clips in a row; check the "
            "shards, or prepare them again"
        )

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
        data: Dataset,
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
            return Fetched(None, (Failure(name, str(error), position),))
