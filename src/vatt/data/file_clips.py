"""Clips spread over a file that is in no shard (§4.3), as they would come out of shards."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vatt.contracts import Batch, Clip, ClipSpec, FramePath
from vatt.data.augment import apply, centre_crop
from vatt.data.clip_timing import (
    audio_span,
    clip_samples,
    fill_waveform,
    frame_times,
    spread_starts,
)
from vatt.data.resize import as_clip, covering, needed
from vatt.media.media_file import MediaFile
from vatt.media.planes import LARGEST_SHORT_SIDE
from vatt.media.stored_form import StoredForm, stored_fps, stored_size
from vatt.media.video import EPSILON_S

CLIPS_OF_FILE = 4  # evenly spread (§4.3)
_LONG_S = 60.0  # shorter audio is decoded whole: then samples are exactly those of the whole track


def spread_frames(
    media: MediaFile, spec: ClipSpec, path: FramePath, device: torch.device
) -> Tensor:
    """Frames of four clips, float [4, T, H, W, 3] in [-1, 1].

    They are those that `vatt prepare` would store, at the size that it would give them; only its
    compression is left out.

    Raises:
        MediaError: the video cannot be decoded.
    """
    video = media.facts.video
    assert video is not None
    fps_asked = None if path.fps is None else Fraction(path.fps).limit_denominator(1001)
    form = StoredForm(short_side=path.short_side or LARGEST_SHORT_SIDE, fps=fps_asked, gop=1)
    fps, (height, width) = stored_fps(video, form), stored_size(video, form)
    # As many frames as the stored video would have.
    end_s = math.ceil((media.facts.duration_s - EPSILON_S) * fps) / float(fps)
    clips = [
        frame_times(spec, start_s, end_s, frame_step=path.frame_step, fps=float(fps))[1]
        for start_s in spread_starts(end_s, spec, CLIPS_OF_FILE).tolist()
    ]
    # The frame on screen at a time is the stored one that begins at or before it.
    times_s = np.floor((np.concatenate(clips) + EPSILON_S) * float(fps)) / float(fps)
    changes, one = centre_crop(width / height, spec), replace(spec, frames=len(times_s))
    stored: tuple[int, int] | None = height, width
    upright = (video.height, video.width, video.rotation, video.mirrored)
    if path.copy and video.pix_fmt == "yuv420p" and upright == (height, width, 0, False):
        stored = None  # kept as it is
    if path.decode == "planes":
        found = media.planes(times_s, partial(needed, changes.crop, one), stored)
        frames, changes, layout = as_clip(found, changes)
    else:
        size = covering(path.decode_size, height, width)
        frames, layout = media.frames(times_s, size=size, stored=stored), None
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
    inputs = apply(Batch.collate([clip]).to(device), one, antialias=path.antialias)
    return inputs.frames.view(CLIPS_OF_FILE, spec.frames, *inputs.frames.shape[2:])


def spread_waveforms(media: MediaFile, spec: ClipSpec) -> NDArray[np.int16] | None:
    """Waveforms of four clips, int16 [4, S]; None without audio.

    With video they are of the clips of `spread_frames`. Of a long file only these are read.

    Raises:
        MediaError: the audio cannot be decoded.
    """
    rate, facts = spec.sample_rate_hz, media.facts
    if facts.audio is None:
        return None
    end_s = facts.duration_s
    if end_s > _LONG_S:
        starts_s = spread_starts(end_s, spec, CLIPS_OF_FILE).tolist()
        spans = [audio_span(spec, start_s, end_s) for start_s in starts_s]
        found = media.audio_spans(spans, sample_rate_hz=rate)
        # Audio alone that ends before its declared end: its true length is found by reading.
        if found is not None and (facts.video or len(found[-1])):
            return np.stack([fill_waveform(one, spec, spec.samples) for one in found])
    track = media.audio(sample_rate_hz=rate)
    if track is None:
        return None
    end_s = end_s if facts.video else len(track) / rate
    starts_s = spread_starts(end_s, spec, CLIPS_OF_FILE).tolist()
    return np.stack([clip_samples(track, spec, start_s, end_s) for start_s in starts_s])
