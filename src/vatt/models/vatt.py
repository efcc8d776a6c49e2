"""VATT: three backbones, or one for all (§3), from raw signals to the two common spaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vatt.contracts import Embeddings, Inputs
from vatt.models.heads import Heads, SumOverRanks, alone
from vatt.models.model_config import Modality, ModelConfig
from vatt.models.positions import RelativeBias
from vatt.models.spectrogram import log_mel
from vatt.models.tokens import LinearText, PatchTokens, WordTokens
from vatt.models.transformer import Dense, Transformer

VIDEO_STREAM, AUDIO_STREAM = 0, 1  # DropToken draws for them independently


class Features(NamedTuple):
    """Outputs of the backbones for the aggregation token, z_out^0 of eq. 2.

    video, audio: [B, D]; text: [B, K, D]; has_audio: bool [B]; text_mask: bool [B, K].
    """

    video: Tensor
    audio: Tensor
    text: Tensor
    has_audio: Tensor
    text_mask: Tensor


Part: TypeAlias = Callable[[Callable[[Inputs], Features]], Features]


class Vatt(nn.Module):
    """Raw video, audio and text → features → common spaces (Figure 1).

    Args:
        config: sizes and forms.
        sum_over_ranks: differentiable sum of a tensor over all ranks, for batch norm in the heads.
    """

    def __init__(self, config: ModelConfig, *, sum_over_ranks: SumOverRanks = alone) -> None:
        super().__init__()
        self.config = config
        text = config.text
        self.video_tokens = PatchTokens(config, "video")
        self.audio_tokens = PatchTokens(config, "audio")
        self.text_tokens = LinearText(text) if text.kind == "linear" else WordTokens(config)
        self.relative_bias = (
            RelativeBias(
                text.transformer.heads,
                buckets=text.relative_buckets,
                max_distance=text.relative_max_distance,
            )
            if text.kind == "t5" and text.positions == "relative"
            else None
        )
        self.backbones = nn.ModuleDict()
        if config.shared:
            self.backbones["shared"] = Transformer(config.video.transformer)
        else:
            self.backbones["video"] = Transformer(config.video.transformer)
            self.backbones["audio"] = Transformer(config.audio.transformer)
            if text.kind == "t5":
                self.backbones["text"] = Transformer(text.transformer)
        widths = {
            "video": config.video.transformer.width,
            "audio": config.audio.transformer.width,
            "text": text.transformer.width if text.kind == "t5" else text.linear_width,
        }
        self.post_projections = nn.ModuleDict()
        if config.post_projection is not None:
            for modality, width in widths.items():
                self.post_projections[modality] = Dense(width, config.post_projection)
                widths[modality] = config.post_projection
        self.heads = Heads(
            config.heads,
            video_width=widths["video"],
            audio_width=widths["audio"],
            text_width=widths["text"],
            sum_over_ranks=sum_over_ranks,
        )

    def forward(self, inputs: Inputs | Sequence[Part]) -> Embeddings:
        """Embed a batch in both common spaces (eq. 3).

        Args:
            inputs: those of the batch, or a function for each of its parts, which makes the part's
                inputs and calls the backbones on them. All but the last, which the backward pass
                begins with, keep nothing for it but are called again there: one part is in memory
                at a time.
        """
        if isinstance(inputs, Inputs):
            return self.project(self.features(inputs))
        *others, last = inputs
        parts = [checkpoint(part, self.features, use_reentrant=False) for part in others]
        parts.append(last(self.features))
        return self.project(Features(*map(torch.cat, zip(*parts, strict=True))))

    def features(self, inputs: Inputs) -> Features:
        """Run the backbones; every clip on its own, so a batch may be cut anywhere."""
        video = self.video_features(inputs.frames, inputs.draw)
        audio = self.audio_features(inputs.audio, inputs.draw)
        B, K, _ = inputs.word_ids.shape
        words, rows = inputs.word_ids.flatten(0, 1), inputs.text_rows
        if rows is None:
            texts = self.text_features(words)
        else:  # no two rows are the same: neither way needs a sum
            found = self.text_features(words.index_select(0, rows))
            texts = found.new_zeros(B * K, found.shape[-1]).index_copy(0, rows, found)
        return Features(video, audio, texts.view(B, K, -1), inputs.has_audio, inputs.text_mask)

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
            log_scales=self.heads.log_scales,
            biases=self.heads.biases,
        )

    def backbone(self, modality: Modality) -> Transformer:
        """The Transformer of a modality: the same object for all three when shared."""
        backbone = self.backbones["shared" if self.config.shared else modality]
        assert isinstance(backbone, Transformer)
        return backbone

    def video_features(self, frames: Tensor, draw: Tensor | None = None) -> Tensor:
        """Frames [B, T, H, W, 3] in [-1, 1] → [B, D]; int64 [B] `draw` drops tokens."""
        return self._signal_features("video", frames, draw)

    def audio_features(self, audio: Tensor, draw: Tensor | None = None) -> Tensor:
        """Waveform [B, S] in [-1, 1] → [B, D]; int64 [B] `draw` drops tokens.

        A spectrogram model also takes [B, F, M] log-mel values in [0, 1].
        """
        return self._signal_features("audio", audio, draw)

    def _signal_features(
        self, modality: Literal["video", "audio"], signal: Tensor, draw: Tensor | None
    ) -> Tensor:
        return signal_features(
            modality,
            signal,
            draw,
            config=self.config,
            tokens=self.video_tokens if modality == "video" else self.audio_tokens,
            backbone=self.backbone(modality),
            post_projection=self._post_projection(modality),
        )

    def text_features(self, word_ids: Tensor) -> Tensor:
        """Word ids int64 [R, L], 0 is padding → [R, D]."""
        if isinstance(self.text_tokens, LinearText):
            return _finish(self.text_tokens(word_ids)[:, None], self._post_projection("text"))
        tokens, real = self.text_tokens(word_ids)
        bias = None if self.relative_bias is None else self.relative_bias(tokens.shape[1])
        out = self.backbone("text")(
            tokens,
            key_mask=real,
            bias=bias,
            bias_layers=self.config.text.relative_layers,
            only_first=True,
        )
        return _finish(out, self._post_projection("text"))

    def _post_projection(self, modality: Modality) -> nn.Module | None:
        return dict(self.post_projections.items()).get(modality)


def signal_features(
    modality: Literal["video", "audio"],
    signal: Tensor,
    draw: Tensor | None,
    *,
    config: ModelConfig,
    tokens: PatchTokens,
    backbone: Transformer,
    post_projection: nn.Module | None,
) -> Tensor:
    """Frames, waveform or log-mel values of B clips → features [B, D].

    Args:
        modality: which of them.
        signal: [B, …], as `Vatt.video_features` and `Vatt.audio_features` take it.
        draw: int64 [B], what decides which tokens are dropped; None keeps all.
        config: rate and scope of DropToken, and what a spectrogram is.
        tokens: of this modality.
        backbone: its own or the shared one.
        post_projection: GELU layer after the backbone, if any.
    """
    if modality == "audio":
        audio = config.audio
        if audio.peak is not None and signal.ndim == 2:
            signal = signal * (audio.peak / signal.abs().amax(1, keepdim=True).clamp(min=1e-4))
        if audio.kind == "spectrogram" and signal.ndim == 2:
            signal = log_mel(signal, audio.sample_rate_hz, audio.spectrogram)
        signal = signal[..., None]
    rows = tokens(
        signal,
        draw=draw,
        rate=config.drop_token,
        stream=VIDEO_STREAM if modality == "video" else AUDIO_STREAM,
        scope=config.drop_token_scope,
    )
    return _finish(backbone(rows, only_first=True), post_projection)


def _finish(out: Tensor, post_projection: nn.Module | None) -> Tensor:
    """Features of the aggregation token, [B, D], of a backbone's outputs [B, 1 or N, D]."""
    features = out[:, 0]
    return features if post_projection is None else F.gelu(post_projection(features))
