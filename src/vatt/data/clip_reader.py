"""Reads one clip of one video: frames, waveform, texts and labels, from a shard or its cache."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vatt.contracts import Augmentation, Clip, ClipSpec, name_bits
from vatt.data.annotations import AnnotationReader
from vatt.data.cache import CacheSettings, VideoCache, open_cache
from vatt.data.clip_timing import audio_span, fill_waveform, fits, frame_times
from vatt.data.data_config import DataConfig
from vatt.data.resize import as_clip, needed
from vatt.data.tokenizer import WordTokenizer
from vatt.errors import MediaError
from vatt.media.media_file import MediaFile, open_media
from vatt.media.planes import covering
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
        self.data, self._config, self._spec = data, config, spec
        self._duration_s, self._fps = data.column("duration_s"), data.column("fps")
        self._shape = np.stack([data.column("height"), data.column("width")], axis=1)
        self._has_audio = data.column("has_audio")
        self._annotations = AnnotationReader(data, spec, tokenizer, config)
        self._track: tuple[int, NDArray[np.int16] | None] | None = None  # the last one, and its row
        self._in_blocks: dict[int, bool] = {}  # by row: whether its audio can be read in blocks
        self._caches: dict[int, VideoCache] = {}  # by row
        for rows in cached if config.cache != "none" else ():
            settings = CacheSettings(config.rgb_size, spec.sample_rate_hz)
            on_disk = config.cache_dir or data.folder / "cache"
            folder = None if config.cache == "memory" else on_disk
            cache = open_cache(data, rows, settings, folder=folder)
            self._caches |= dict.fromkeys(rows.tolist(), cache)

    def name(self, row: int) -> str:
        """What errors call a video."""
        return f"{self.data.folder}: {self.data.index['key'][row]}"

    def aspect(self, row: int) -> float:
        """Width / height of the video as it is shown."""
        height, width = self._shape[row]
        return float(width) / float(height) if height and width else 1.0

    def end_s(self, row: int) -> float:
        """Duration of the video."""
        return float(self._duration_s[row])

    def read(
        self, row: int, start_s: float, end_s: float, augmentation: Augmentation, draw: int = 0
    ) -> Clip:
        """One clip; see `read_several`."""
        return self.read_several(row, (start_s,), end_s, augmentation, draw)

    def read_several(
        self,
        row: int,
        starts_s: Sequence[float],
        end_s: float,
        augmentation: Augmentation,
        draw: int = 0,
    ) -> Clip:
        """Clips of one video, decoded at once and joined to one; texts and labels of the first.

        Args:
            row: which video.
            starts_s: when each clip starts.
            end_s: end of the segment that they may show; a clip that does not fit repeats.
            augmentation: handed on with the clip.
            draw: handed on with the clip.

        Raises:
            MediaError: the video cannot be decoded there, or a clip does not fit and
                `data.short_clip` is "skip".
            DataError: the shard cannot be read.
        """
        spec, config, fps = self._spec, self._config, float(self._fps[row])
        start_s = max(starts_s)
        if config.short_clip == "skip" and not fits(spec, start_s, end_s):
            raise MediaError(
                f"{self.name(row)}: needs {spec.duration_s:.2f} s from {start_s:.2f} s "
                f"({spec.frames} frames at {spec.fps:g} fps), but the video ends at {end_s:.2f} s; "
                'start earlier or set data.short_clip = "repeat"'
            )
        places = [
            frame_times(spec, start_s, end_s, frame_step=config.frame_step, fps=fps)
            for start_s in starts_s
        ]
        start_s, times_s = places[0][0], np.concatenate([times_s for _, times_s in places])
        spans = [audio_span(spec, start_s, end_s) for start_s, _ in places]
        audio: list[NDArray[np.int16] | None]
        cut = partial(needed, augmentation.crop, spec)

        video = self._caches[row].get(row) if row in self._caches else None
        frames = None if video is None else video.frames_at(times_s, cut)
        if video is not None and frames is not None:
            track = video.track
            audio = [None if track is None else track[first : first + n] for first, n in spans]
        else:
            try:
                with open_media(self.data.source(row), quickly=True) as media:
                    if config.decode == "planes":
                        frames = media.planes(times_s, cut)
                    else:
                        height, width = self._shape[row].tolist()
                        size = covering(config.decode_size, height or 0, width or 0)
                        frames = media.frames(times_s, size=size)
                    audio = [self.decode_audio(row, media, *span) for span in spans]
            except MediaError as error:
                raise MediaError(f"{self.name(row)}: {error}") from error

        waveform = np.zeros(len(spans) * spec.samples, np.int16)
        for number, (samples, (_, length)) in enumerate(zip(audio, spans, strict=True)):
            if samples is not None:
                part = slice(number * spec.samples, (number + 1) * spec.samples)
                waveform[part] = fill_waveform(samples, spec, length)
        peak = int(np.abs(waveform.astype(np.int32)).max())
        has_audio = audio[0] is not None and peak >= config.silent_below * 2**15
        frames, augmentation, layout = as_clip(frames, augmentation)
        middle_s = (start_s + min(start_s + spec.duration_s, end_s)) / 2  # of what it shows
        word_ids, text_mask = self._annotations.texts(row, middle_s)
        return Clip(
            key=str(self.data.index["key"][row]),
            start_s=start_s,
            frames=frames,
            waveform=waveform if has_audio else np.zeros_like(waveform),
            has_audio=has_audio,
            word_ids=word_ids,
            text_mask=text_mask,
            augmentation=augmentation,
            draw=draw,
            video=name_bits(self.name(row)),
            layout=layout,
            labels=self._annotations.labels(row, middle_s),
        )

    def has_label(self, row: int, start_s: float, end_s: float, column: str) -> bool:
        """Whether a clip has a label in this column; nothing is decoded."""
        middle_s = (start_s + min(start_s + self._spec.duration_s, end_s)) / 2
        return column in self._annotations.labels(row, middle_s)

    def decode_audio(
        self, row: int, media: MediaFile, first: int, count: int
    ) -> NDArray[np.int16] | None:
        """Samples, fewer where the track or the last frame ends; None without audio.

        Where only a whole track can be decoded it is kept: neighbours often want the same one.
        """
        if not self._has_audio[row]:
            return None
        rate = self._spec.sample_rate_hz
        if row not in self._in_blocks:
            self._in_blocks[row] = media.has_audio_at(rate)
        if self._in_blocks[row]:
            end = round(self.end_s(row) * rate)
            count = max(0, min(count, end - first))
            return media.audio_at(first, count, sample_rate_hz=rate)
        if self._track is None or self._track[0] != row:
            self._track = row, media.audio(sample_rate_hz=rate)
        _, track = self._track
        return None if track is None else track[first : first + count]
