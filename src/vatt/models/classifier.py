"""A classifier of video or of audio: one pre-trained backbone and a linear layer (§4.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vatt.errors import ConfigError
from vatt.models.model_config import ModelConfig
from vatt.models.positions import resample
from vatt.models.tokens import PatchTokens, glorot_normal_
from vatt.models.transformer import Dense, Transformer
from vatt.models.vatt import Vatt, signal_features


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierConfig:
    """A classifier on the video or the audio backbone of a model."""

    modality: Literal["video", "audio"] = "video"
    classes: int
    dropout: float = 0.0
    """Of the features before the linear layer; the official code has 0.5 for video of its own
    backbone, 0.2 for the shared one, 0 for audio."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Settings of the backbone, at the classifier's own input size; what belongs to the other
    modalities and to the heads is not used."""
    names: tuple[str, ...] = ()
    """Of the classes, in the order of the logits; empty where they are not known."""
    labels: Literal["one", "several"] | None = None
    """How many classes are true at once; left out: one of video, several of audio (official)."""

    @property
    def several(self) -> bool:
        """Whether a class's probability is the sigmoid of its logit, and not the softmax."""
        return self.modality == "audio" if self.labels is None else self.labels == "several"

    def __post_init__(self) -> None:
        assert len(self.names) in (0, self.classes), "a name for each class, or none"
        if self.classes < 2:
            raise ConfigError(f"classifier.classes: found {self.classes}, expected >= 2")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"classifier.dropout: found {self.dropout}, expected 0 <= … < 1")


class Classifier(nn.Module):
    """Raw video or audio → tokens → backbone → logits.

    The linear layer starts as the official one: Glorot normal for video; for audio Glorot uniform
    with the bias -ln(classes - 1), at which each class has the probability 1 / classes.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        video, model = config.modality == "video", config.model
        transformer = (model.video if video else model.audio).transformer
        width = transformer.width
        self.tokens = PatchTokens(model, config.modality)
        self.backbone = Transformer(transformer)
        self.post_projection: nn.Linear | None = None
        if model.post_projection is not None:
            self.post_projection = Dense(width, model.post_projection)
            width = model.post_projection
        self.linear = Dense(width, config.classes)
        if video:
            glorot_normal_(self.linear.weight, fan_in=width, fan_out=config.classes)
        else:
            nn.init.constant_(self.linear.bias, -math.log(config.classes - 1))

    def features(self, signal: Tensor, draw: Tensor | None = None) -> Tensor:
        """Features [B, D] of frames [B, T, H, W, 3], waveforms [B, S] or log-mel [B, F, M].

        As `Vatt.video_features` and `Vatt.audio_features`; int64 [B] `draw` drops tokens.
        """
        return signal_features(
            self.config.modality,
            signal,
            draw,
            config=self.config.model,
            tokens=self.tokens,
            backbone=self.backbone,
            post_projection=self.post_projection,
        )

    def forward(self, signal: Tensor, draw: Tensor | None = None) -> Tensor:
        """Logits [B, classes]."""
        return self.classify(self.features(signal, draw))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of each class."""
        return logits.sigmoid() if self.config.several else logits.softmax(-1)

    def classify(self, features: Tensor) -> Tensor:
        """Logits [B, classes] of features [B, D]."""
        logits: Tensor = self.linear(F.dropout(features, self.config.dropout, self.training))
        return logits


@torch.no_grad()
def restore(classifier: Classifier, pretrained: Vatt | Classifier) -> None:
    """Start a classifier from a pre-trained model, or another classifier: all but the linear layer.

    Position tables of another number of rows are resampled as `model.position_resampling` says
    (§4.3): so a model trained at 224² goes on at 320².

    Raises:
        ConfigError: the backbones are of different sizes; names a weight.
    """
    modality, found = classifier.config.modality, pretrained.state_dict()
    backbone = "shared" if getattr(pretrained.config, "shared", False) else modality
    homes = {"tokens.": f"{modality}_tokens.", "backbone.": f"backbones.{backbone}."}
    homes["post_projection."] = f"post_projections.{modality}."
    homes = {part: part for part in homes} if isinstance(pretrained, Classifier) else homes
    for name, weight in classifier.named_parameters():
        part = f"{name.split('.')[0]}."
        if part not in homes:
            continue
        source = homes[part] + name.removeprefix(part)
        value = found.get(source)
        if value is not None and name.startswith("tokens.positions.tables."):
            value = resample(value, len(weight), classifier.config.model.position_resampling)
        if value is None or value.shape != weight.shape:
            shape = "nothing" if value is None else list(value.shape)
            raise ConfigError(
                f"{source}: found {shape} in the pre-trained model, expected "
                f"{list(weight.shape)} for the classifier's {name}; give the classifier the "
                "settings of the model that it starts from"
            )
        weight.copy_(value)
