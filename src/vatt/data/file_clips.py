"""Clips spread over a file that is in no shard (§4.3), as they would come out of shards."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vatt.contracts import Batch, Clip, ClipSpec, FramePath
from vatt.data.augment import apply, centre_crop
from vatt.data.clip_timing import frame_times, spread_starts
from vatt.data.resize import as_clip, covering, needed
from vatt.media.media_file import MediaFile
from vatt.media.planes import LARGEST_SHORT_SIDE
from vatt.media.stored_form import StoredForm, stored_fps, stored_size
from vatt.media.video import EPSILON_S

CLIPS_OF_FILE = 4  # evenly spread (§4.3)


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
    if path.decode == "planes":
        found = media.planes(times_s, partial(needed, changes.crop, one), (height, width))
        frames, changes, layout = as_clip(found, changes)
    else:
        size = covering(path.decode_size, height, width)
        frames, layout = media.frames(times_s, size=size, stored=(height, width)), None
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
