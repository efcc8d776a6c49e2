"""Clips of the videos of one shard folder: pictures, sound and texts of one moment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vatt.contracts import Augmentation, Clip, ClipSpec, Crop, Layout
from vatt.data.cache import VideoCache, open_cache
from vatt.data.cache_table import CacheSettings
from vatt.data.data_config import DataConfig
from vatt.data.positives import TextReader
from vatt.data.resize import needed, within
from vatt.data.sampling import clip_times, fits, sound_span, whole_sound
from vatt.data.tokenizer import WordTokenizer
from vatt.errors import MediaError
from vatt.media.media_file import MediaFile, open_media
from vatt.media.planes import Planes
from vatt.shards.read import ShardFolder


class ClipReader:
    """Reads clips of the videos of one shard folder, from its cache where there is one."""

    def __init__(
        self,
        data: ShardFolder,
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
        self._config, self._spec = config, spec
        self._duration_s, self._fps = data.column("duration_s"), data.column("fps")
        self._shape = np.stack([data.column("height"), data.column("width")], axis=1)
        self._has_sound = data.column("has_audio")
        self._texts = TextReader(data, spec, tokenizer, config)
        self._track: tuple[int, NDArray[np.int16] | None] | None = None  # the last one, and its row
        self._caches: dict[int, VideoCache] = {}  # by row
        for rows in cached if config.cache != "none" else ():
            cache = open_cache(
                data,
                rows,
                CacheSettings(config.rgb_size, spec.sample_rate_hz),
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
        start_s, times_s = self._moment(row, start_s, end_s)
        first, length = sound_span(spec, start_s, end_s)
        seen, heard = self._decoded(row, times_s, augmentation.crop, (first, length))
        waveform = np.zeros(spec.samples, np.int16)
        if heard is not None:
            waveform = whole_sound(heard, spec, length)
        peak = int(np.abs(waveform.astype(np.int32)).max())
        has_audio = heard is not None and peak >= self._config.silent_below * 2**15
        word_ids, text_mask = self._texts.nearest(row, start_s + spec.duration_s / 2)
        clip = Clip(
            key=self.key(row),
            start_s=start_s,
            frames=seen.flat if isinstance(seen, Planes) else seen,
            waveform=waveform if has_audio else np.zeros_like(waveform),
            has_audio=has_audio,
            word_ids=word_ids,
            text_mask=text_mask,
            augmentation=augmentation,
            draw=draw,
        )
        return _of_planes(clip, seen) if isinstance(seen, Planes) else clip

    def _moment(self, row: int, start_s: float, end_s: float) -> tuple[float, NDArray[np.float64]]:
        """Start of the clip and the times of its frames, as `data.frame_step` says."""
        fps = float(self._fps[row])
        if self._config.frame_step == "time" or fps <= 0:
            return start_s, clip_times(self._spec, start_s, end_s)
        start_s = math.floor(start_s * fps + 1e-6) / fps  # when a frame begins
        stride = max(1, int(fps / self._spec.fps + 1e-6))
        return start_s, clip_times(self._spec, start_s, end_s, step_s=stride / fps)

    def end_s(self, row: int) -> float:
        """Duration of the video."""
        return float(self._duration_s[row])

    def _decoded(
        self, row: int, times_s: NDArray[np.float64], crop: Crop, span: tuple[int, int]
    ) -> tuple[NDArray[np.uint8] | Planes, NDArray[np.int16] | None]:
        cut = partial(needed, crop, self._spec)
        if row in self._caches and (video := self._caches[row].get(row)) is not None:
            seen = video.frames_at(times_s, cut)
            if seen is not None:
                return seen, video.sound(*span)
        try:
            with open_media(self.data.source(row), quickly=True) as media:
                if self._config.decode == "planes":
                    planes = media.planes(times_s, cut)
                    return planes, self.decode_sound(row, media, *span)
                frames = media.frames(times_s, size=self._config.decode_size)
                return frames, self.decode_sound(row, media, *span)
        except MediaError as error:
            raise MediaError(f"{self.name(row)}: {error}") from error

    def decode_sound(
        self, row: int, media: MediaFile, first: int, count: int
    ) -> NDArray[np.int16] | None:
        """The samples of a stretch, fewer where the track or the picture ends; None without sound.

        Where only a whole track can be decoded it is kept: neighbours often want the same one.
        """
        if not self._has_sound[row]:
            return None
        rate = self._spec.sample_rate_hz
        if media.has_audio_at(rate):
            end = round(self.end_s(row) * rate)
            return media.audio_at(first, max(0, min(count, end - first)))
        if self._track is None or self._track[0] != row:
            self._track = row, media.audio(sample_rate_hz=rate)
        _, track = self._track
        return None if track is None else track[first : first + count]


def _of_planes(clip: Clip, planes: Planes) -> Clip:
    """The clip with its layout, and its crop as one of what was kept of the pictures."""
    height, width, *colours = planes.form
    kept = within(clip.augmentation, planes.box, height, width)
    return replace(clip, augmentation=kept, layout=Layout(*planes.box.size, *colours))
