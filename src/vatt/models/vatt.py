"""VATT: three backbones, or one for all (§3), from raw signals to the two common spaces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vatt.contracts import AudioKind, Embeddings, Inputs
from vatt.errors import ConfigError
from vatt.models.heads import Heads, HeadsConfig, SumOverRanks, alone
from vatt.models.positions import AxisPositions, PositionForm, RelativeBias, Resampling
from vatt.models.spectrogram import SpectrogramConfig, log_mel
from vatt.models.tokens import DropScope, Edges, LinearText, PatchTokens, WordTokens
from vatt.models.transformer import BASE, MEDIUM, SMALL, Transformer, TransformerConfig, dense

Modality = Literal["video", "audio", "text"]
VIDEO_STREAM, AUDIO_STREAM = 0, 1  # DropToken draws for them independently


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoConfig:
    """Video tokens and backbone (§3.1, §4.3)."""

    transformer: TransformerConfig = MEDIUM
    patch: tuple[int, int, int] = (4, 16, 16)
    """Frames × height × width."""
    buckets: tuple[int, int, int] = (8, 14, 14)
    """Rows of the position tables of time, height and width; other sizes are resampled."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Of the data's red, green and blue, in [-1, 1]; subtracted from the frames."""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        _check_positive("model.video.patch", *self.patch)
        _check_positive("model.video.buckets", *self.buckets)
        _check_positive("model.video.std", *self.std)


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioConfig:
    """Audio tokens and backbone (§3.1, §4.3)."""

    kind: AudioKind = "waveform"
    transformer: TransformerConfig = BASE
    patch: int = 128
    """Samples of the waveform (§4.5.1)."""
    buckets: int = 1200
    """Rows of the waveform's position table: 153,600 samples / 128."""
    sample_rate_hz: int = 48_000
    """What spectrograms are computed at; clip.sample_rate_hz must be the same."""
    spectrogram: SpectrogramConfig = field(default_factory=SpectrogramConfig)
    transposed_positions: bool = False
    """Number the spectrogram's patches in the official code's order, which is not theirs."""

    def __post_init__(self) -> None:
        _check_positive("model.audio.patch", self.patch)
        _check_positive("model.audio.buckets", self.buckets)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """Text tokens and backbone (§3.1, §3.2)."""

    kind: Literal["t5", "linear"] = "t5"
    """t5: a Transformer with relative bias. linear: a ReLU layer and the maximum over words."""
    transformer: TransformerConfig = SMALL
    vocabulary: int = 65_536
    word_width: int | None = None
    """Width of the word table; left out: the backbone's (paper). The official code has 300, and a
    GELU layer after it."""
    frozen_words: bool = False
    """Never train the word table (official, where it holds word2vec)."""
    positions: Literal["relative", "absolute"] = "relative"
    """absolute: a learned position for each word (official agnostic model)."""
    buckets: int = 16
    """Rows of the table of absolute positions."""
    relative_layers: Literal["first", "all"] = "first"
    """Layers whose scores get the relative bias: the first (§3.2), or all the same (official)."""
    relative_buckets: int = 32
    relative_max_distance: int = 64
    """Words further apart share a bucket (official; the paper gives no value)."""
    linear_width: int = 2048
    """Features of kind "linear" (official)."""

    def __post_init__(self) -> None:
        _check_positive("model.text.vocabulary", self.vocabulary)
        _check_positive("model.text.buckets", self.buckets)
        _check_positive("model.text.linear_width", self.linear_width)
        if self.word_width is not None:
            _check_positive("model.text.word_width", self.word_width)
        if self.relative_buckets < 4 or self.relative_max_distance <= self.relative_buckets // 4:
            raise ConfigError(
                f"model.text.relative_buckets: found {self.relative_buckets} up to distance "
                f"{self.relative_max_distance}, expected >= 4 and less than 4 times the distance"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A whole VATT; the defaults are the paper's Medium-Base-Small."""

    video: VideoConfig = field(default_factory=VideoConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    text: TextConfig = field(default_factory=TextConfig)
    heads: HeadsConfig = field(default_factory=HeadsConfig)
    shared: bool = False
    """One backbone for the three modalities (VATT-MA); their transformer settings must be equal."""
    drop_token: float = 0.5
    """Share of video and audio tokens dropped in training (§3.1.1)."""
    drop_token_scope: DropScope = "sample"
    """sample: each clip drops its own. batch: the same for all clips (official)."""
    edges: Edges = "pad"
    """Sizes that are not whole patches: zeros added (paper), or the rest left out (official)."""
    patch_bias: bool = False
    """A bias in the patch projection (official; the paper writes none)."""
    position_form: PositionForm = "sum"
    """sum: position rows are added (paper). normed: layer norm of their sum (official)."""
    position_resampling: Resampling = "bicubic"
    """Of position tables for other input sizes (§4.3); polyharmonic is the official code's."""
    pre_projection: bool = False
    """A GELU layer of each modality before its positions (official agnostic model)."""
    post_projection: int | None = None
    """Width of a GELU layer of each modality after the backbone (1024 in the official agnostic
    model); left out: none."""

    def __post_init__(self) -> None:
        if not 0 <= self.drop_token < 1:
            raise ConfigError(f"model.drop_token: found {self.drop_token}, expected 0 <= … < 1")
        if self.post_projection is not None:
            _check_positive("model.post_projection", self.post_projection)
        transformers = [self.video.transformer, self.audio.transformer, self.text.transformer]
        if self.shared and len(set(transformers)) > 1:
            raise ConfigError(
                "model.shared: found backbones of different sizes, expected equal "
                "model.video.transformer, model.audio.transformer and model.text.transformer"
            )
        if self.shared and self.text.kind == "linear":
            raise ConfigError('model.shared: found model.text.kind "linear", expected "t5"')


def _check_positive(name: str, *values: float) -> None:
    if any(value <= 0 for value in values):
        found = values[0] if len(values) == 1 else values
        raise ConfigError(f"{name}: found {found}, expected > 0")


@dataclass(frozen=True, slots=True)
class Features:
    """Outputs of the backbones for the aggregation token, z_out^0 of eq. 2.

    video, audio: [B, D]; text: [B, K, D]; has_audio: bool [B]; text_mask: bool [B, K].
    """

    video: Tensor
    audio: Tensor
    text: Tensor
    has_audio: Tensor
    text_mask: Tensor


class Vatt(nn.Module):
    """Raw video, audio and text → features → common spaces (Figure 1).

    Args:
        config: sizes and forms.
        sum_over_ranks: differentiable sum of a tensor over all ranks, for batch norm in the heads.
    """

    def __init__(self, config: ModelConfig, *, sum_over_ranks: SumOverRanks = alone) -> None:
        super().__init__()
        self.config = config
        self.video_tokens = _video_tokens(config)
        self.audio_tokens = _audio_tokens(config)
        self.text_tokens = _text_tokens(config)
        text = config.text
        self.relative_bias = (
            RelativeBias(
                text.transformer.heads,
                buckets=text.relative_buckets,
                max_distance=text.relative_max_distance,
            )
            if text.kind == "t5" and text.positions == "relative"
            else None
        )
        self.backbones = _backbones(config)
        widths = {
            "video": config.video.transformer.width,
            "audio": config.audio.transformer.width,
            "text": text.transformer.width if text.kind == "t5" else text.linear_width,
        }
        self.post_projections = nn.ModuleDict()
        if config.post_projection is not None:
            for modality, width in widths.items():
                self.post_projections[modality] = dense(width, config.post_projection, bias=True)
                widths[modality] = config.post_projection
        self.heads = Heads(
            config.heads,
            video_width=widths["video"],
            audio_width=widths["audio"],
            text_width=widths["text"],
            sum_over_ranks=sum_over_ranks,
        )

    def forward(self, inputs: Inputs) -> Embeddings:
        """Embed a batch in both common spaces (eq. 3)."""
        return self.project(self.features(inputs))

    def features(self, inputs: Inputs) -> Features:
        """Run the backbones; every clip on its own, so a batch may be cut anywhere."""
        words = inputs.word_ids
        return Features(
            self.video_features(inputs.frames, inputs.draw),
            self.audio_features(inputs.audio, inputs.draw),
            self.text_features(words.flatten(0, 1)).view(*words.shape[:2], -1),
            inputs.has_audio,
            inputs.text_mask,
        )

    def project(self, features: Features) -> Embeddings:
        """Run the heads (eq. 3); in training their batch norm sees all clips of the batch."""
        video_va, video_vt = self.heads.video(features.video)
        return Embeddings(
            video_va=video_va,
            audio_va=self.heads.audio(features.audio, features.has_audio),
            video_vt=video_vt,
            text_vt=self.heads.text(features.text, features.text_mask),
            has_audio=features.has_audio,
            text_mask=features.text_mask,
        )

    def backbone(self, modality: Modality) -> Transformer:
        """The Transformer of a modality: the same object for all three when shared."""
        backbone = self.backbones["shared" if self.config.shared else modality]
        assert isinstance(backbone, Transformer)
        return backbone

    def video_features(self, frames: Tensor, draw: Tensor | None = None) -> Tensor:
        """Frames [B, T, H, W, 3] in [-1, 1] → [B, D]; int64 [B] `draw` drops tokens."""
        tokens = self.video_tokens(
            frames,
            draw=draw,
            rate=self.config.drop_token,
            stream=VIDEO_STREAM,
            scope=self.config.drop_token_scope,
        )
        return self._finish("video", self.backbone("video")(tokens, only_first=True))

    def audio_features(self, audio: Tensor, draw: Tensor | None = None) -> Tensor:
        """Waveform [B, S] in [-1, 1] → [B, D]; int64 [B] `draw` drops tokens.

        A spectrogram model also takes [B, F, M] log-mel values in [0, 1].
        """
        settings = self.config.audio
        if settings.kind == "spectrogram" and audio.ndim == 2:
            audio = log_mel(audio, settings.sample_rate_hz, settings.spectrogram)
        tokens = self.audio_tokens(
            audio[..., None],
            draw=draw,
            rate=self.config.drop_token,
            stream=AUDIO_STREAM,
            scope=self.config.drop_token_scope,
        )
        return self._finish("audio", self.backbone("audio")(tokens, only_first=True))

    def text_features(self, word_ids: Tensor) -> Tensor:
        """Word ids int64 [R, L], 0 is padding → [R, D]."""
        if isinstance(self.text_tokens, LinearText):
            return self._finish("text", self.text_tokens(word_ids)[:, None])
        tokens, real = self.text_tokens(word_ids)
        bias = None if self.relative_bias is None else self.relative_bias(tokens.shape[1])
        out = self.backbone("text")(
            tokens,
            key_mask=real,
            bias=bias,
            bias_layers=self.config.text.relative_layers,
            only_first=True,
        )
        return self._finish("text", out)

    def _finish(self, modality: Modality, out: Tensor) -> Tensor:
        features = out[:, 0]
        if modality in self.post_projections:
            features = F.gelu(self.post_projections[modality](features))
        return features


def _backbones(config: ModelConfig) -> nn.ModuleDict:
    if config.shared:
        return nn.ModuleDict({"shared": Transformer(config.video.transformer)})
    backbones = nn.ModuleDict(
        {
            "video": Transformer(config.video.transformer),
            "audio": Transformer(config.audio.transformer),
        }
    )
    if config.text.kind == "t5":
        backbones["text"] = Transformer(config.text.transformer)
    return backbones


def _positions(config: ModelConfig, buckets: tuple[int, ...], width: int) -> AxisPositions:
    return AxisPositions(
        buckets, width, form=config.position_form, resampling=config.position_resampling
    )


def _video_tokens(config: ModelConfig) -> PatchTokens:
    video = config.video
    return PatchTokens(
        patch=video.patch,
        channels=3,
        width=video.transformer.width,
        positions=_positions(config, video.buckets, video.transformer.width),
        edges=config.edges,
        bias=config.patch_bias,
        pre_projection=config.pre_projection,
        dropout=video.transformer.dropout,
        mean=video.mean,
        std=video.std,
    )


def _audio_tokens(config: ModelConfig) -> PatchTokens:
    audio = config.audio
    spectrogram = audio.kind == "spectrogram"
    width = audio.transformer.width
    positions = _positions(
        config, audio.spectrogram.buckets if spectrogram else (audio.buckets,), width
    )
    positions.transposed = spectrogram and audio.transposed_positions
    return PatchTokens(
        patch=audio.spectrogram.patch if spectrogram else (audio.patch,),
        channels=1,
        width=width,
        positions=positions,
        edges=config.edges,
        bias=config.patch_bias,
        pre_projection=config.pre_projection,
        dropout=audio.transformer.dropout,
    )


def _text_tokens(config: ModelConfig) -> WordTokens | LinearText:
    text = config.text
    if text.kind == "linear":
        return LinearText(
            vocabulary=text.vocabulary,
            width=text.linear_width,
            word_width=text.word_width,
            frozen=text.frozen_words,
        )
    width = text.transformer.width
    absolute = text.positions == "absolute"
    return WordTokens(
        vocabulary=text.vocabulary,
        width=width,
        word_width=text.word_width,
        frozen=text.frozen_words,
        pre_projection=config.pre_projection,
        positions=_positions(config, (text.buckets,), width) if absolute else None,
        dropout=text.transformer.dropout,
    )
