"""Tokens (§3.1): patches or words and where they are, the aggregation token in front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vatt.models.model_config import DropScope, ModelConfig, PositionForm, TextConfig
from vatt.models.patches import keep_tokens, take_patches, whole_patches
from vatt.models.positions import Resampling, resample
from vatt.models.transformer import NORM_EPSILON, Dense


class AxisPositions(nn.Module):
    """One learnable table per axis; a token's position is the sum of one row of each (eq. 1).

    Args:
        buckets: rows per axis; an input with another number of patches gets resampled tables.
        width: D.
        form: "sum" adds the rows (paper), "normed" layer-normalises their sum (official).
        resampling: how tables are resampled.
        transposed: number the tokens with the first axis fastest although the tokens come with
            the last axis fastest (a quirk of the official spectrogram model).
    """

    def __init__(
        self,
        buckets: Sequence[int],
        width: int,
        *,
        form: PositionForm,
        resampling: Resampling,
        transposed: bool = False,
    ) -> None:
        super().__init__()
        self.resampling = resampling
        self.transposed = transposed
        self.tables = nn.ParameterList(nn.Parameter(torch.empty(n, width)) for n in buckets)
        for table in self.tables:
            nn.init.trunc_normal_(table, std=width**-0.5, a=-2 * width**-0.5, b=2 * width**-0.5)
        self.norm = nn.LayerNorm(width, eps=NORM_EPSILON) if form == "normed" else None

    @property
    def num_buckets(self) -> int:
        """Number of tokens of an input whose grid the tables fit."""
        return math.prod(len(table) for table in self.tables)

    def forward(self, grid: Sequence[int]) -> Tensor:
        """Position vectors [N, D] of a grid of patches, last axis fastest."""
        total: Tensor | None = None
        for axis, (table, size) in enumerate(zip(self.tables, grid, strict=True)):
            shape = [1] * len(grid) + [table.shape[1]]
            shape[axis] = size
            rows = resample(table, size, self.resampling).view(shape)
            total = rows if total is None else total + rows
        assert total is not None
        if self.transposed:
            total = total.transpose(0, 1)
        total = total.reshape(-1, total.shape[-1])
        return total if self.norm is None else self.norm(total)


class PatchTokens(nn.Module):
    """Tokens of a signal on a grid: a video, a waveform or a spectrogram.

    The settings say, beside sizes: what fills the last patch of an axis or whether it is left out
    (`edges`), biases and a further GELU layer of the official code (`patch_bias`,
    `pre_projection`), and how the signal is standardised, per channel and before padding.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig, modality: Literal["video", "audio"]) -> None:
        super().__init__()
        video, audio = config.video, config.audio
        transposed = False
        mean: tuple[float, ...] = (0.0,)
        std: tuple[float, ...] = (1.0,)
        patch: tuple[int, ...]
        buckets: tuple[int, ...]
        if modality == "video":
            patch, buckets, mean, std = video.patch, video.buckets, video.mean, video.std
        elif audio.kind == "spectrogram":
            patch, buckets = audio.spectrogram.patch, audio.spectrogram.buckets
            transposed = audio.transposed_positions
        else:
            patch, buckets = (audio.patch,), (audio.buckets,)
        transformer = video.transformer if modality == "video" else audio.transformer
        width = transformer.width
        # Positions draw their numbers first: a seed gives the weights that it always gave.
        positions = AxisPositions(
            buckets,
            width,
            form=config.position_form,
            resampling=config.position_resampling,
            transposed=transposed,
        )
        self.patch = patch
        self.edges, self.drop_count = config.edges, config.drop_token_count
        self.dropout = transformer.dropout
        self.projection = Dense(math.prod(patch) * len(mean), width, bias=config.patch_bias)
        self.pre_projection = Dense(width, width) if config.pre_projection else None
        self.positions = positions
        self.agg = agg_token(width)
        self.standardised = any(mean) or any(value != 1 for value in std)
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)

    def forward(
        self, signal: Tensor, *, draw: Tensor | None, rate: float, stream: int, scope: DropScope
    ) -> Tensor:
        """Tokens [B, 1 + N, D], the aggregation token first.

        Only kept patches are projected: the same tokens as projecting all and dropping some.

        Args:
            signal: [B, *grid, channels].
            draw: int64 [B], what decides which tokens are dropped; None keeps all.
            rate: share of the tokens to drop (§3.1.1).
            stream: number of this modality, so that modalities drop independently.
            scope: one choice per clip or one for the batch.
        """
        signal = whole_patches(signal, self.patch, self.edges, self.mean)
        grid = [size // p for size, p in zip(signal.shape[1:-1], self.patch, strict=True)]
        num_tokens, positions, kept = math.prod(grid), self.positions(grid), None
        if draw is not None and rate > 0:
            of = self.positions.num_buckets if self.drop_count == "buckets" else num_tokens
            kept = keep_tokens(draw, num_tokens, rate, of=of, stream=stream, scope=scope)
            positions = F.embedding(kept, positions)  # its gradient is the same each time
        tokens = F.linear(take_patches(signal, self.patch, kept), *self.folded_projection())
        if self.pre_projection is not None:
            tokens = F.gelu(self.pre_projection(tokens))
        tokens = tokens + positions
        tokens = F.dropout(tokens, self.dropout, self.training)
        return torch.cat([self.agg.expand(tokens.shape[0], 1, -1).to(tokens.dtype), tokens], 1)

    def folded_projection(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the projection with the standardisation of the signal in them."""
        weight, bias = self.projection.weight, self.projection.bias
        if not self.standardised:
            return weight, bias
        voxels = math.prod(self.patch)
        weight = weight / self.std.repeat(voxels)
        shift = (weight * self.mean.repeat(voxels)).sum(-1)
        return weight, -shift if bias is None else bias - shift


def glorot_normal_(weight: Tensor, *, fan_in: int, fan_out: int) -> Tensor:
    """Fill with normal numbers of the Glorot deviation, none beyond 2 σ (official)."""
    std = math.sqrt(2.0 / (fan_in + fan_out)) / 0.87962566103423978  # what the truncation takes off
    return nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def agg_token(width: int) -> nn.Parameter:
    """x_AGG of eq. 2, [D], initialised as in the official code."""
    return nn.Parameter(glorot_normal_(torch.empty(width), fan_in=width, fan_out=width))


class WordTokens(nn.Module):
    """Tokens of texts: word vectors, the aggregation token in front (§3.1).

    A word table narrower or wider than D (`word_width`) is followed by a GELU layer that maps words
    and aggregation token to D (official); `pre_projection` is the GELU layer of the official
    agnostic model, which leaves the aggregation token out.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        text, width = config.text, config.text.transformer.width
        positions: AxisPositions | None = None
        if text.positions == "absolute":
            positions = AxisPositions(
                (text.buckets,),
                width,
                form=config.position_form,
                resampling=config.position_resampling,
            )
        self.words = word_table(text, width)
        self.dropout = text.transformer.dropout
        self.agg_projected = text.word_width is not None and not config.pre_projection
        self.projection: nn.Linear | None = None
        if config.pre_projection or text.word_width is not None:
            self.projection = Dense(text.word_width or width, width, bias=config.pre_projection)
        self.positions = positions
        self.agg = agg_token(self.words.embedding_dim if self.agg_projected else width)

    def forward(self, word_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Texts [R, L] → tokens [R, 1 + L, D] and which of them are real, bool [R, 1 + L]."""
        words: Tensor = self.words(word_ids)
        agg = self.agg.expand(words.shape[0], 1, -1)
        if self.agg_projected:
            tokens = self._project(torch.cat([agg, words], 1))
            agg, words = tokens[:, :1], tokens[:, 1:]
        else:
            words = self._project(words)
        if self.positions is not None:
            words = words + self.positions([word_ids.shape[1]])
        tokens = torch.cat([agg.to(words.dtype), words], 1)
        real = F.pad(word_ids != 0, (1, 0), value=True)
        return F.dropout(tokens, self.dropout, self.training), real

    def _project(self, words: Tensor) -> Tensor:
        return words if self.projection is None else F.gelu(self.projection(words))


def word_table(text: TextConfig, width: int) -> nn.Embedding:
    """A vector for each word id, 0 is padding; `width` wide unless the settings say otherwise."""
    words = nn.Embedding(text.vocabulary, text.word_width or width)
    nn.init.uniform_(words.weight, -0.05, 0.05)
    words.weight.requires_grad_(not text.frozen_words)
    return words


class LinearText(nn.Module):
    """Text without a Transformer: a ReLU layer on each word, then the maximum over words (MMV)."""

    def __init__(self, text: TextConfig) -> None:
        super().__init__()
        self.words = word_table(text, text.linear_width)
        self.projection = Dense(self.words.embedding_dim, text.linear_width)

    def forward(self, word_ids: Tensor) -> Tensor:
        """Texts [R, L] → features [R, D]; padding takes part, as in the official code."""
        return F.relu(self.projection(self.words(word_ids))).amax(1)
