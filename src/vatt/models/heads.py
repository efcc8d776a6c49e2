"""Common space projection (§3.3, eq. 3): from features to the va and vt spaces."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vatt.errors import ConfigError
from vatt.models.transformer import Dense

SumOverRanks = Callable[[Tensor], Tensor]
# Of weights that training keeps within bounds (and never decays): a factor of 1 to 100, as in CLIP.
BOUNDS = {
    "heads.log_scales": (0.0, math.log(100.0)),
    "heads.biases": (-math.inf, math.inf),
}
SAME = 1e-10  # variance over squared mean of rows that differ by rounding alone; float32: ~1e-14


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadsConfig:
    """Sizes of the common spaces and form of the projections (eq. 3)."""

    va: int = 512
    vt: int = 256
    form: Literal["paper", "official"] = "paper"
    """paper: batch norm after every linear layer. official: none for audio and text, a bias
    instead, and one more ReLU before the projection from va to vt."""
    learned: Literal["none", "temperature", "temperature_and_bias"] = "none"
    """What of the losses is a weight of each space, in place of a setting (CLIP, SigLIP)."""

    def __post_init__(self) -> None:
        for name in ("va", "vt"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.heads.{name}: found {getattr(self, name)}, expected >= 1")


def alone(total: Tensor) -> Tensor:
    """The sum over ranks of a single process."""
    return total


class MaskedBatchNorm(nn.Module):
    """Batch norm over valid rows only, of all ranks; biased variance everywhere (official).

    Args:
        width: columns of a row.
        sum_over_ranks: differentiable sum of a tensor over all ranks; models know no ranks.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, sum_over_ranks: SumOverRanks = alone) -> None:
        super().__init__()
        self.momentum = 0.9  # share of the old running value that stays (Keras sense)
        self.epsilon = 1e-5
        self.sum_over_ranks = sum_over_ranks
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, rows: Tensor, valid: Tensor) -> Tensor:
        """Normalise [R, E]; only rows where `valid` (bool [R]) is True count.

        Invalid rows are scaled like the others and mean nothing. Without two valid rows that differ
        the running statistics are used and stay as they are: rows that equal their mean would all
        become the bias, which no loss can tell apart.
        """
        with torch.autocast(rows.device.type, enabled=False):
            rows = rows.float()
            if not self.training:
                return self._scale(rows, self.running_mean, self.running_var)
            share = valid[:, None].to(rows.dtype)
            count = self.sum_over_ranks(share.sum())
            total = count.clamp(min=1)
            mean = self.sum_over_ranks((rows * share).sum(0)) / total
            variance = self.sum_over_ranks(((rows - mean).square() * share).sum(0)) / total
            differ = (variance > SAME * mean.square()).any()  # nothing differs from itself
            mean = torch.where(differ, mean, self.running_mean)
            variance = torch.where(differ, variance, self.running_var)
            with torch.no_grad():
                self.running_mean.lerp_(mean, 1 - self.momentum)
                self.running_var.lerp_(variance, 1 - self.momentum)
            return self._scale(rows, mean, variance)

    def _scale(self, rows: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return (rows - mean) * ((variance + self.epsilon).rsqrt() * self.weight) + self.bias


class Projection(nn.Module):
    """A linear layer, followed by batch norm unless it has a bias."""

    def __init__(
        self, in_width: int, out_width: int, *, bias: bool, sum_over_ranks: SumOverRanks
    ) -> None:
        super().__init__()
        self.dense = Dense(in_width, out_width, bias=bias)
        self.norm = None if bias else MaskedBatchNorm(out_width, sum_over_ranks)

    def forward(self, rows: Tensor, valid: Tensor) -> Tensor:
        """Project [R, D] → [R, E]; bool [R] says which rows count in the statistics."""
        out: Tensor = self.dense(rows)
        return out if self.norm is None else self.norm(out, valid)


class Heads(nn.Module):
    """g_v→va, g_a→va, g_t→vt and g_v→vt (eq. 3)."""

    def __init__(
        self,
        config: HeadsConfig,
        *,
        video_width: int,
        audio_width: int,
        text_width: int,
        sum_over_ranks: SumOverRanks = alone,
    ) -> None:
        super().__init__()
        self.official = config.form == "official"
        self.log_scales: nn.Parameter | None = None  # of va and of vt, as `Embeddings` has them
        self.biases: nn.Parameter | None = None
        if config.learned != "none":
            self.log_scales = nn.Parameter(torch.zeros(2))
        if config.learned == "temperature_and_bias":
            self.biases = nn.Parameter(torch.zeros(2))

        def projection(in_width: int, out_width: int, *, bias: bool = False) -> Projection:
            return Projection(in_width, out_width, bias=bias, sum_over_ranks=sum_over_ranks)

        self.video_hidden = projection(video_width, config.va)
        self.video_va = projection(config.va, config.va)
        self.video_vt = projection(config.va, config.vt)
        self.audio_va = projection(audio_width, config.va, bias=self.official)
        self.text_vt = projection(text_width, config.vt, bias=self.official)

    @torch.no_grad()
    def begin_scores(self, temperature: float, bias: float) -> None:
        """What is learned of the scores begins with these values."""
        if self.log_scales is not None:
            self.log_scales.fill_(-math.log(temperature))
        if self.biases is not None:
            self.biases.fill_(bias)

    def video(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Video features [B, D] → rows in va [B, E_va] and, from these, in vt [B, E_vt]."""
        valid = torch.ones(features.shape[0], dtype=torch.bool, device=features.device)
        va = self.video_va(F.relu(self.video_hidden(features, valid)), valid)
        return va, self.video_vt(F.relu(va) if self.official else va, valid)

    def audio(self, features: Tensor, has_audio: Tensor) -> Tensor:
        """Audio features [B, D] → rows in va [B, E_va]; bool [B] says which are real."""
        rows: Tensor = self.audio_va(features, has_audio)
        return rows.float()  # without batch norm it may be bfloat16, in which ranks add gradients

    def text(self, features: Tensor, text_mask: Tensor) -> Tensor:
        """Text features [B, K, D] → rows in vt [B, K, E_vt]; bool [B, K] says which are real."""
        rows: Tensor = self.text_vt(features.flatten(0, 1), text_mask.flatten())
        return rows.float().view(*text_mask.shape, -1)
