"""Clips spread over a file that is in no shard (§4.3), as they would come out of shards.

PyTorch is imported where it is used: exported models read files without it.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import av
import numpy as np
from numpy.typing import NDArray

from vatt.contracts import Batch, Clip, ClipSpec, FramePath
from vatt.data.clip_timing import (
    audio_span,
    clip_samples,
    fill_waveform,
    frame_times,
    spread_places,
)
from vatt.data.resize import as_clip, centre_crop, needed
from vatt.errors import MediaError
from vatt.media.container import MediaSource, audio_stream, describe, media_errors
from vatt.media.damage import CUT_OFF, decode, what_is_damaged
from vatt.media.media_file import MediaFile, open_media
from vatt.media.planes import LARGEST_SHORT_SIDE, covering
from vatt.media.stored_form import StoredForm, stored_fps, stored_size
from vatt.media.video import EPSILON_S

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Segments = Sequence[tuple[float, float]]  # start and end of each
T = TypeVar("T")
logger = logging.getLogger(__name__)

CLIPS_OF_FILE = 4  # evenly spread (§4.3)
MOST_DAMAGED = 0.5  # of a file
_LONGER_S = 0.5  # edit lists and rounding take less
_LONG_S = 60.0  # shorter audio is decoded whole: then samples are exactly those of the whole track


def spread_frames(
    media: MediaFile, spec: ClipSpec, path: FramePath, device: torch.device
) -> Tensor:
    """Frames of four clips, float [4, T, H, W, 3] in [-1, 1].

    They are those that `vatt prepare` would store, at the size that it would give them; only its
    compression is left out. Of a file opened as `damaged` they lie in what is healthy of it.

    Raises:
        MediaError: the video cannot be decoded, or is mostly damaged.
    """
    return _as_frames(*spread_clip(media, spec, path), path, spec, device)


def _as_frames(
    clip: Clip, one: ClipSpec, path: FramePath, spec: ClipSpec, device: torch.device
) -> Tensor:
    """Frames of four clips, decoded as those of one."""
    from vatt.data.augment import apply

    inputs = apply(Batch.collate([clip]).to(device), one, antialias=path.antialias)
    return inputs.frames.view(CLIPS_OF_FILE, spec.frames, *inputs.frames.shape[2:])


def spread_clip(media: MediaFile, spec: ClipSpec, path: FramePath) -> tuple[Clip, ClipSpec]:
    """The frames of `spread_frames` as they are decoded: of all four clips, as those of one.

    Raises:
        MediaError: the video cannot be decoded, or is mostly damaged.
    """
    return _healthy(media, lambda anew, segments: _frames(anew, segments, spec, path))


def spread_waveforms(media: MediaFile, spec: ClipSpec) -> NDArray[np.int16] | None:
    """Waveforms of four clips, int16 [4, S]; None without audio.

    With video they are of the clips of `spread_frames`. Of a long file only these are read. Of a
    file opened as `damaged` they lie in what is healthy of it.

    Raises:
        MediaError: the audio cannot be decoded, or the file is mostly damaged.
    """
    return _healthy(media, lambda anew, segments: _waveforms(anew, segments, spec))


def frames_around(
    media: MediaFile, time_s: float, spec: ClipSpec, path: FramePath, device: torch.device
) -> Tensor:
    """Frames of the clip with a time in its middle, as far as the file allows: [1, T, H, W, 3].

    Raises:
        MediaError: the video cannot be decoded.
    """
    clip, one = _frames(media, [_around(media, time_s, spec)], spec, path)
    return _as_frames(clip, one, path, spec, device)[:1]


def waveform_around(media: MediaFile, time_s: float, spec: ClipSpec) -> NDArray[np.int16] | None:
    """The waveform of that clip, int16 [1, S]; None without audio."""
    found = _waveforms(media, [_around(media, time_s, spec)], spec)
    return None if found is None else found[:1]


def _around(media: MediaFile, time_s: float, spec: ClipSpec) -> tuple[float, float]:
    latest_s = max(media.facts.duration_s - spec.duration_s, 0.0)
    start_s = min(max(time_s - spec.duration_s / 2, 0.0), latest_s)
    return start_s, min(start_s + spec.duration_s, media.facts.duration_s)


def _healthy(media: MediaFile, read: Callable[[MediaFile, Segments | None], T]) -> T:
    """What is read of a file; when that is damaged it is read again, of the healthy segments."""
    try:
        found = read(media, None)
        if not is_damaged(media):
            return found
        problem = None
    except MediaError as error:
        if media.damage is None:
            raise
        problem = error
    segments = healthy_segments(media.source)
    if not segments:
        raise problem or MediaError(f"{describe(media.source)}: nothing of it is healthy")
    with open_media(media.source, damaged=True) as anew:
        return read(anew, segments)


def is_damaged(media: MediaFile) -> bool:
    """Whether what was read so far of a file opened as `damaged` is damaged, or ends early."""
    damage = media.damage
    return damage is not None and bool(damage.spans or damage.error or _ends_early(media))


def _ends_early(media: MediaFile) -> bool:
    """Whether the table of frames of an MP4 file lists more than there are; others have none."""
    has_table = "mp4" in media.container.format.name.split(",")
    return has_table and media.declared_s > media.facts.duration_s + _LONGER_S


def healthy_segments(source: MediaSource) -> Segments:
    """The parts of a damaged file between what is damaged, all of which is decoded to know it.

    Raises:
        MediaError: it is mostly damaged; says how much.
    """
    with open_media(source, damaged=True) as media, media_errors(source):
        assert media.damage is not None
        end_s = 0.0
        if media.has_video:
            reader = media.video()
            deque(reader.frames(), maxlen=0)
            end_s = reader.end_s
        container = media.handle()
        if (audio := audio_stream(container)) is not None:
            deque(decode(container, audio, media.damage), maxlen=0)
        if media.has_video:
            gaps = media.gaps(end_s)
        else:
            zero_s = (container.start_time or 0) / av.time_base
            gaps, end_s = media.damage.gaps(zero_s), media.damage.end_s - zero_s
    share, words = what_is_damaged(gaps, end_s)
    if share > MOST_DAMAGED:
        raise MediaError(
            f"{describe(source)}: {share:.0%} of it is damaged ({words}), expected at most "
            f"{MOST_DAMAGED:.0%}; get it again"
        )
    if gaps:
        healthy_s = end_s - sum(min(gap.end_s, end_s) - min(gap.start_s, end_s) for gap in gaps)
        says = f"damaged ({words})" if share else f"{CUT_OFF} at {end_s:.1f} s"
        logger.warning(
            "%s: %s; clips are taken from the other %.1f s", describe(source), says, healthy_s
        )
    starts_s = [0.0, *(max(gap.end_s, 0.0) for gap in gaps)]
    ends_s = [*(min(gap.start_s, end_s) for gap in gaps), end_s]
    pairs = zip(starts_s, ends_s, strict=True)
    return [(start_s, stop_s) for start_s, stop_s in pairs if start_s < stop_s]


class StoredFrames:
    """The frames of an open video as `vatt prepare` would store them, as they come to a model.

    `media` has video; `path` says how the model's training read frames.
    """

    def __init__(self, media: MediaFile, spec: ClipSpec, path: FramePath) -> None:
        video = media.facts.video
        assert video is not None
        self._media, self._spec, self._path = media, spec, path
        asked = None if path.fps is None else Fraction(path.fps).limit_denominator(1001)
        form = StoredForm(short_side=path.short_side or LARGEST_SHORT_SIDE, fps=asked, gop=1)
        self._fps, (height, width) = stored_fps(video, form), stored_size(video, form)
        self._height, self._width = height, width
        self._stored: tuple[int, int] | None = height, width
        upright = (video.height, video.width, video.rotation, video.mirrored)
        if path.copy and video.pix_fmt == "yuv420p" and upright == (height, width, 0, False):
            self._stored = None  # kept as it is

    def begins(self, time_s: float) -> float:
        """When the first frame from a time on begins in the stored video."""
        return math.ceil((time_s - EPSILON_S) * self._fps) / float(self._fps)

    def times(self, start_s: float, end_s: float) -> NDArray[np.float64]:
        """When the frames of a clip are taken, seconds [T]; `end_s` is that of its segment."""
        fps = float(self._fps)
        step = self._path.frame_step
        asked = frame_times(self._spec, start_s, end_s, frame_step=step, fps=fps)[1]
        # The frame on screen at a time is the stored one that begins at or before it.
        floored: NDArray[np.float64] = np.floor((asked + EPSILON_S) * fps) / fps
        return floored

    def read(self, times_s: NDArray[np.float64]) -> tuple[Clip, ClipSpec]:
        """The frames at these times [T'], as those of one clip, and what that clip is."""
        path, height, width = self._path, self._height, self._width
        changes, one = (
            centre_crop(width / height, self._spec),
            replace(self._spec, frames=len(times_s)),
        )
        if path.decode == "planes":
            found = self._media.planes(times_s, partial(needed, changes.crop, one), self._stored)
            frames, changes, layout = as_clip(found, changes)
        else:
            size = covering(path.decode_size, height, width)
            frames = self._media.frames(times_s, size=size, stored=self._stored)
            layout = None
        clip = Clip(
            key="",
            start_s=0.0,
            frames=frames,
            waveform=np.zeros(0, np.int16),
            has_audio=False,
            word_ids=np.zeros((1, 1), np.int64),
            text_mask=np.zeros(1, np.bool_),
            augmentation=changes,
            draw=0,
            layout=layout,
        )
        return clip, one


def _frames(
    media: MediaFile, segments: Segments | None, spec: ClipSpec, path: FramePath
) -> tuple[Clip, ClipSpec]:
    film = StoredFrames(media, spec, path)
    segments = segments or [(0.0, media.facts.duration_s)]
    # As many frames as the stored video would have.
    stored = [(film.begins(start_s), film.begins(end_s)) for start_s, end_s in segments]
    places = spread_places(stored, spec, CLIPS_OF_FILE)
    return film.read(np.concatenate([film.times(*place) for place in places]))


def _waveforms(
    media: MediaFile, segments: Segments | None, spec: ClipSpec
) -> NDArray[np.int16] | None:
    rate, facts, seconds = spec.sample_rate_hz, media.facts, media.facts.duration_s
    if facts.audio is None:
        return None
    places = spread_places(segments or [(0.0, seconds)], spec, CLIPS_OF_FILE)
    if segments is None and seconds > _LONG_S:
        spans = [audio_span(spec, start_s, end_s) for start_s, end_s in places]
        found = media.audio_spans(spans, sample_rate_hz=rate)
        # Audio alone that ends before its declared end: its true length is found by reading.
        if found is not None and (facts.video or len(found[-1])):
            return np.stack([fill_waveform(one, spec, spec.samples) for one in found])
    if segments is None and not facts.video:
        track = media.audio(sample_rate_hz=rate)
        places = spread_places(
            [(0.0, 0.0 if track is None else len(track) / rate)], spec, CLIPS_OF_FILE
        )
    else:
        whole = [(0, round(max(end_s for _, end_s in places) * rate))]
        found = media.audio_spans(whole, sample_rate_hz=rate)
        track = found[0] if found is not None else None
    if track is None:
        return None
    return np.stack([clip_samples(track, spec, start_s, end_s) for start_s, end_s in places])
