"""What pre-training makes of a batch: losses (eq. 4–6), on any number of ranks, in any parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from vatt import distributed
from vatt.contracts import Batch, ClipSpec, Embeddings, Inputs, draw_bits
from vatt.data import augment
from vatt.data.augment import AugmentConfig
from vatt.devices import autocast, seeded
from vatt.losses import Identity, LossConfig, contrast, text_ids
from vatt.models.model_config import ModelConfig
from vatt.models.vatt import Features, Part
from vatt.training.loop import TrainConfig


class ObjectiveConfig(Protocol):
    """The settings that it depends on."""

    @property
    def clip(self) -> ClipSpec:
        """What a clip holds."""
        ...

    @property
    def model(self) -> ModelConfig:
        """Whose choice of tokens all clips share, if they do."""
        ...

    @property
    def augment(self) -> AugmentConfig:
        """How frames are resized."""
        ...

    @property
    def loss(self) -> LossConfig:
        """The form of the losses."""
        ...

    @property
    def train(self) -> TrainConfig:
        """What is computed in bfloat16, and in which parts."""
        ...

    @property
    def seed(self) -> int:
        """Of dropout in parts."""
        ...


def objective(batch: Batch, model: nn.Module, config: ObjectiveConfig) -> dict[str, Tensor]:
    """From a batch to this rank's shares of the losses (eq. 4–6).

    Args:
        batch: this rank's B clips.
        model: a `Vatt` in training mode, as `parallelize` gives it.
        config: how frames are resized, what is computed in bfloat16, and the form of the losses.

    Returns:
        Scalars loss, video_audio and video_text; the shares of all ranks add up.
    """
    with autocast(config.train.autocast, batch.frames.device):
        mine: Embeddings = model(inputs_of(batch, config))
    all_ranks = Embeddings(
        video_va=distributed.gather(mine.video_va),
        audio_va=distributed.gather(mine.audio_va),
        video_vt=distributed.gather(mine.video_vt),
        text_vt=distributed.gather(mine.text_vt),
        has_audio=distributed.gather(mine.has_audio),
        text_mask=distributed.gather(mine.text_mask),
    )
    identities = None
    if batch.videos:  # not known of batches that older versions captured
        thousandth_s, device = config.clip.duration_s / 1000, batch.word_ids.device
        starts = [round(start_s / thousandth_s) for start_s in batch.starts_s]
        ours = Identity(
            video=torch.tensor(batch.videos).to(device, non_blocking=True),
            start=torch.tensor(starts).to(device, non_blocking=True),
            texts=text_ids(batch.word_ids),
        )
        identities = ours, Identity(*map(distributed.gather, ours))
    losses = contrast(mine, all_ranks, config.loss, identities)
    return {
        "loss": losses.total,
        "video_audio": losses.video_audio,
        "video_text": losses.video_text,
    }


def inputs_of(batch: Batch, config: ObjectiveConfig) -> Inputs | list[Part]:
    """What the model takes: inputs, or a function for each part of `train.micro_batch` clips.

    The dropout of a part is a function of the place of its clips in training, so that it is the
    same in the backward pass, and however many ranks share the batch.
    """
    if config.model.drop_token_scope == "batch":  # of all ranks, in all parts
        batch = replace(batch, draw=distributed.first_of_all(batch.draw))
    size = config.train.micro_batch
    apply = partial(
        augment.apply,
        spec=config.clip,
        antialias=config.augment.antialias,
        all_texts=config.train.compile,
    )
    if size is None:
        return apply(batch)

    def part(features: Callable[[Inputs], Features], first: int) -> Features:
        with seeded(draw_bits(config.seed, batch.positions[first])):
            clips = slice(first, first + size)
            return features(apply(batch, clips=clips))

    return [partial(part, first=first) for first in range(0, len(batch), size)]
