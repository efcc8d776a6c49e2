"""Clips of random numbers, as a loader would deliver them."""

from __future__ import annotations

import torch

from vatt.contracts import Batch, ClipSpec


def noise_clips(clips: int, clip: ClipSpec, vocabulary: int) -> Batch:
    """A batch of so many clips, all with audio and texts, frames of the model's size."""
    shape = (clips, clip.frames, clip.height, clip.width, 3)
    return Batch(
        keys=tuple(map(str, range(clips))),
        starts_s=(0.0,) * clips,
        frames=torch.randint(0, 256, shape, dtype=torch.uint8),
        layout=torch.tensor([[0, clip.height, clip.width, 0, 0]] * clips),
        waveform=torch.randint(-9000, 9000, (clips, clip.samples), dtype=torch.int16),
        has_audio=torch.ones(clips, dtype=torch.bool),
        word_ids=torch.randint(1, vocabulary, (clips, clip.texts, clip.words)),
        text_mask=torch.ones(clips, clip.texts, dtype=torch.bool),
        draw=torch.randint(1 << 62, (clips,)),
        crop=torch.tensor([[0.0, 0.0, 1.0, 1.0]] * clips),
        flip=torch.zeros(clips, dtype=torch.bool),
        colour=torch.tensor([[0.0, 1.0, 1.0, 0.0]] * clips),
        gain=torch.ones(clips),
        videos=tuple(range(clips)),
        positions=tuple(range(clips)),
    )
