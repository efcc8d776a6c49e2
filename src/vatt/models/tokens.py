"""Tokenization (§3.1): patches, words, DropToken, and the aggregation token in front."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vatt.errors import ConfigError
from vatt.models.model_config import DropCount, DropScope, Edges, ModelConfig
from vatt.models.positions import AxisPositions
from vatt.models.transformer import dense, glorot_normal_


def video_tokens(config: ModelConfig) -> PatchTokens:
    """What makes tokens of frames."""
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
        drop_count=config.drop_token_count,
        mean=video.mean,
        std=video.std,
    )


def audio_tokens(config: ModelConfig) -> PatchTokens:
    """What makes tokens of a waveform or a spectrogram."""
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
        drop_count=config.drop_token_count,
    )


def text_tokens(config: ModelConfig) -> WordTokens | LinearText:
    """What makes tokens of word ids or, of text of kind "linear", already its features."""
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


def _positions(config: ModelConfig, buckets: tuple[int, ...], width: int) -> AxisPositions:
    return AxisPositions(
        buckets, width, form=config.position_form, resampling=config.position_resampling
    )


class PatchTokens(nn.Module):
    """Tokens of a signal on a grid: a video, a waveform or a spectrogram.

    Args:
        patch: size of a patch along each axis of the grid.
        channels: numbers at each point of the grid.
        width: D.
        positions: where the patches are.
        edges: "pad" fills the last patch of an axis with zeros (paper: ⌈·⌉), "cut" leaves the
            remainder out (official).
        bias: whether the patch projection has a bias (official; the paper writes none).
        pre_projection: a further GELU layer before positions (official agnostic model).
        dropout: of the tokens, once positions are added.
        drop_count: what DropToken's rate is a share of, "tokens" of the input (paper) or "buckets"
            of the position tables (official).
        mean: of the signal, per channel; subtracted, before padding.
        std: of the signal, per channel; divided by.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        patch: Sequence[int],
        channels: int,
        width: int,
        positions: AxisPositions,
        edges: Edges,
        bias: bool,
        pre_projection: bool,
        dropout: float,
        drop_count: DropCount = "tokens",
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ) -> None:
        super().__init__()
        self.patch = tuple(patch)
        self.edges = edges
        self.dropout = dropout
        self.projection = dense(math.prod(patch) * channels, width, bias=bias)
        self.pre_projection = dense(width, width, bias=True) if pre_projection else None
        self.positions = positions
        self.drop_count = drop_count
        self.agg = agg_token(width)
        self.standardised = any(mean) or any(value != 1 for value in std)
        self.register_buffer("mean", torch.tensor(mean).expand(channels), persistent=False)
        self.register_buffer("std", torch.tensor(std).expand(channels), persistent=False)

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
            positions = positions[kept]
        tokens = F.linear(take_patches(signal, self.patch, kept), *self.folded_projection())
        if self.pre_projection is not None:
            tokens = F.gelu(self.pre_projection(tokens))
        tokens = tokens + positions
        tokens = F.dropout(tokens, self.dropout, self.training)
        return torch.cat([self.agg.expand(len(tokens), 1, -1).to(tokens.dtype), tokens], 1)

    def folded_projection(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the projection with the standardisation of the signal in them."""
        weight, bias = self.projection.weight, self.projection.bias
        if not self.standardised:
            return weight, bias
        voxels = math.prod(self.patch)
        weight = weight / self.std.repeat(voxels)
        shift = (weight * self.mean.repeat(voxels)).sum(-1)
        return weight, -shift if bias is None else bias - shift


def agg_token(width: int) -> nn.Parameter:
    """x_AGG of eq. 2, [D], initialised as in the official code."""
    return nn.Parameter(glorot_normal_(torch.empty(width), fan_in=width, fan_out=width))


def whole_patches(signal: Tensor, patch: Sequence[int], edges: Edges, padding: Tensor) -> Tensor:
    """[B, *grid, C] cut down, or filled up with `padding` [C], to a whole number of patches.

    Raises:
        ConfigError: there is nothing left after cutting down.
    """
    sizes = signal.shape[1:-1]
    if edges == "cut":
        if any(n < p for n, p in zip(sizes, patch, strict=True)):
            raise ConfigError(
                f"model input: found size {tuple(sizes)}, expected at least one patch "
                f'{tuple(patch)}; give larger clips or set model.edges = "pad"'
            )
        return signal[(slice(None), *(slice(n - n % p) for n, p in zip(sizes, patch, strict=True)))]
    whole = [math.ceil(n / p) * p for n, p in zip(sizes, patch, strict=True)]
    if whole == list(sizes):
        return signal
    padded = padding.to(signal).repeat(len(signal), *whole, 1)
    padded[(slice(None), *(slice(n) for n in sizes))] = signal
    return padded


def take_patches(signal: Tensor, patch: Sequence[int], kept: Tensor | None) -> Tensor:
    """Patches as rows [B, N_kept, voxels], voxels in the order of the axes, channels last.

    Args:
        signal: [B, *grid, C], whole patches.
        patch: size of a patch along each axis.
        kept: int64 [B, N_kept], which patches (last axis fastest); None takes all. The others are
            never copied: along the last axis a patch is contiguous, and such runs are gathered.
    """
    B, C, axes = len(signal), signal.shape[-1], len(patch)
    kind = signal.device.type
    if torch.is_autocast_enabled(kind):
        # The cast that the projection would make, early: half the bytes to gather.
        signal = signal.to(torch.get_autocast_dtype(kind))
    if kept is None:
        for axis, p in enumerate(patch):
            signal = torch.unflatten(signal, 1 + 2 * axis, (-1, p))
        order = (0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1)
        return signal.permute(order).flatten(1, axes).flatten(2)
    grid = tuple(size // p for size, p in zip(signal.shape[1:-1], patch, strict=True))
    # torch.unravel_index would do, but copies the grid to the device, which makes a GPU wait.
    patches_after = [math.prod(grid[axis + 1 :]) for axis in range(axes)]
    where = [kept // after % size for after, size in zip(patches_after, grid, strict=True)]
    run = torch.arange(B, device=kept.device)[:, None, None]
    for axis, p in enumerate(patch[:-1]):
        inside = torch.arange(p, device=kept.device)
        line = where[axis][..., None] * p + inside  # [B, N_kept, p]
        run = (run * signal.shape[1 + axis])[..., None] + line[:, :, None]
        run = run.flatten(2)
    run = run * grid[-1] + where[-1][..., None]
    runs = signal.reshape(-1, patch[-1] * C).index_select(0, run.flatten())
    return runs.view(B, kept.shape[1], -1)


def keep_tokens(
    draw: Tensor,
    num_tokens: int,
    rate: float,
    *,
    stream: int,
    scope: DropScope,
    of: int | None = None,
) -> Tensor:
    """DropToken's choice (§3.1.1): which tokens stay, in ascending order.

    A function of each clip's `draw` alone: the same on any device and however a batch is cut.

    Args:
        draw: int64 [B], random bits of each clip.
        num_tokens: N.
        rate: share to drop, 0 ≤ rate < 1; ⌊(1 − rate) · of⌋ tokens stay, at least one.
        stream: another number gives an independent choice.
        scope: "sample", or "batch" to give all clips the choice of the first (official).
        of: what `rate` is a share of, where it is not N.

    Returns:
        int64 [B, N_kept].

    Raises:
        ConfigError: there are fewer tokens than shall stay.
    """
    num_kept = max(1, math.floor((1 - rate) * (of or num_tokens) + 1e-9))
    if num_kept > num_tokens:
        raise ConfigError(
            f"model.drop_token: found {num_tokens} tokens, expected at least {num_kept}, which is "
            f"{1 - rate:g} of {of} position buckets; give larger clips, or set "
            'model.drop_token_count = "tokens"'
        )
    seeds = draw[:1].expand_as(draw) if scope == "batch" else draw
    counters = torch.arange(num_tokens, device=draw.device) + (stream << 32)
    numbers = _mix(_mix(seeds)[:, None] + counters)
    return numbers.argsort(-1)[:, :num_kept].sort(-1).values


def _mix(x: Tensor) -> Tensor:
    """splitmix64: every bit of the 64 depends on every bit of the input; int64 wraps around."""
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def _signed(bits: int) -> int:
    return bits - (1 << 64) if bits >> 63 else bits


def _shift(x: Tensor, places: int) -> Tensor:
    """Right shift that fills with zeros; torch's own copies the sign."""
    return (x >> places) & ((1 << (64 - places)) - 1)


class WordTokens(nn.Module):
    """Tokens of texts: word vectors, the aggregation token in front (§3.1).

    Args:
        vocabulary: number of word ids; 0 is padding.
        width: D.
        word_width: width of the word table; None makes it D, as in the paper, and otherwise a
            GELU layer maps words and aggregation token to D (official).
        frozen: the word table is not trained (official).
        pre_projection: the GELU layer of the official agnostic model; not for the aggregation
            token.
        positions: a learned position per word (official agnostic model), or None.
        dropout: of the tokens.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        width: int,
        word_width: int | None,
        frozen: bool,
        pre_projection: bool,
        positions: AxisPositions | None,
        dropout: float,
    ) -> None:
        super().__init__()
        table_width = word_width or width
        self.words = nn.Embedding(vocabulary, table_width)
        nn.init.uniform_(self.words.weight, -0.05, 0.05)
        self.words.weight.requires_grad_(not frozen)
        self.dropout = dropout
        self.agg_projected = word_width is not None and not pre_projection
        self.projection: nn.Linear | None = None
        if pre_projection or word_width is not None:
            self.projection = dense(table_width, width, bias=pre_projection)
        self.positions = positions
        self.agg = agg_token(table_width if self.agg_projected else width)

    def forward(self, word_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Texts [R, L] → tokens [R, 1 + L, D] and which of them are real, bool [R, 1 + L]."""
        words: Tensor = self.words(word_ids)
        agg = self.agg.expand(len(words), 1, -1)
        if self.agg_projected:
            tokens = self._project(torch.cat([agg, words], 1))
        else:
            words = self._project(words)
            if self.positions is not None:
                words = words + self.positions([word_ids.shape[1]])
            tokens = torch.cat([agg.to(words.dtype), words], 1)
        real = F.pad(word_ids != 0, (1, 0), value=True)
        return F.dropout(tokens, self.dropout, self.training), real

    def _project(self, words: Tensor) -> Tensor:
        return words if self.projection is None else F.gelu(self.projection(words))


class LinearText(nn.Module):
    """Text without a Transformer: a ReLU layer on each word, then the maximum over words (MMV)."""

    def __init__(
        self, *, vocabulary: int, width: int, word_width: int | None, frozen: bool
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, word_width or width)
        nn.init.uniform_(self.words.weight, -0.05, 0.05)
        self.words.weight.requires_grad_(not frozen)
        self.projection = dense(word_width or width, width, bias=True)

    def forward(self, word_ids: Tensor) -> Tensor:
        """Texts [R, L] → features [R, D]; padding takes part, as in the official code."""
        return F.relu(self.projection(self.words(word_ids))).amax(1)
