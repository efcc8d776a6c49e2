"""A VATT of a few thousand weights, and inputs for it."""

from dataclasses import replace

import torch

from vatt.contracts import Inputs
from vatt.models.heads import HeadsConfig
from vatt.models.model_config import AudioConfig, ModelConfig, TextConfig, VideoConfig
from vatt.models.spectrogram import SpectrogramConfig
from vatt.models.transformer import TransformerConfig

BACKBONE = TransformerConfig(layers=2, width=24, heads=2, mlp_width=32, dropout=0.0)
SMALL_MODEL = ModelConfig(
    video=VideoConfig(transformer=BACKBONE, patch=(2, 4, 4), buckets=(2, 3, 4)),
    audio=AudioConfig(
        transformer=BACKBONE,
        patch=8,
        buckets=12,
        sample_rate_hz=800,
        spectrogram=SpectrogramConfig(
            window_s=0.04, step_s=0.01, bands=12, highest_hz=400.0, patch=(4, 3), buckets=(3, 4)
        ),
    ),
    text=TextConfig(transformer=BACKBONE, vocabulary=50, buckets=6),
    heads=HeadsConfig(va=16, vt=8),
)
SHARED_MODEL = replace(SMALL_MODEL, shared=True)
SPECTROGRAM_MODEL = replace(SMALL_MODEL, audio=replace(SMALL_MODEL.audio, kind="spectrogram"))


def some_inputs(clips: int = 6, *, seed: int = 0, frames: int = 4) -> Inputs:
    """Random clips for SMALL_MODEL: one has no sound, one no text, some fewer than 3 texts."""
    rng = torch.Generator().manual_seed(seed)
    has_audio = torch.ones(clips, dtype=torch.bool)
    has_audio[clips // 2] = False
    text_mask = torch.rand(clips, 3, generator=rng) > 0.3
    text_mask[0], text_mask[-1] = True, False
    words = torch.randint(0, 50, (clips, 3, 6), generator=rng)
    words[..., 4:] = 0
    return Inputs(
        frames=torch.rand(clips, frames, 12, 16, 3, generator=rng) * 2 - 1,
        audio=torch.rand(clips, 96, generator=rng) * 2 - 1,
        has_audio=has_audio,
        word_ids=words,
        text_mask=text_mask,
        draw=torch.randint(0, 2**62, (clips,), generator=rng),
    )


def cut(inputs: Inputs, rows: slice) -> Inputs:
    """Some clips of a batch."""
    assert inputs.draw is not None
    return Inputs(
        inputs.frames[rows],
        inputs.audio[rows],
        inputs.has_audio[rows],
        inputs.word_ids[rows],
        inputs.text_mask[rows],
        inputs.draw[rows],
    )
