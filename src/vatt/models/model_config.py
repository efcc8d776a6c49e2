"""Settings of a model: sizes (Table 1) and forms (docs/paper-vs-code.md) of all its parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vatt.contracts import AudioKind
from vatt.errors import ConfigError
from vatt.models.heads import HeadsConfig
from vatt.models.positions import Resampling
from vatt.models.spectrogram import SpectrogramConfig
from vatt.models.transformer import BASE, MEDIUM, SMALL, TransformerConfig

Modality = Literal["video", "audio", "text"]
Edges = Literal["pad", "cut"]
PositionForm = Literal["sum", "normed"]
DropScope = Literal["sample", "batch"]
DropCount = Literal["tokens", "buckets"]


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
    peak: float | None = None
    """Scale each clip's waveform so that its largest sample is this; left out: as it is."""

    def __post_init__(self) -> None:
        _check_positive("model.audio.patch", self.patch)
        _check_positive("model.audio.buckets", self.buckets)
        _check_positive("model.audio.peak", 1.0 if self.peak is None else self.peak)


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
    drop_token_count: DropCount = "tokens"
    """What drop_token is a share of: the input's tokens (paper), or the position buckets, whatever
    the input's size (official)."""
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
