"""Resampling of position tables for inputs of other sizes (§4.3); the relative bias of texts."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Resampling = Literal["bicubic", "polyharmonic"]


def resample(table: Tensor, size: int, method: Resampling) -> Tensor:
    """A position table [n, D] stretched to `size` rows; the table itself when n = size."""
    if len(table) == size:
        return table
    weights = resampling_weights(len(table), size, method, table.dtype, table.device)
    with torch.autocast(table.device.type, enabled=False):
        return weights @ table


@lru_cache(maxsize=64)  # also of the copy: copying at every step would make a GPU wait
@torch.inference_mode(False)  # cached: what an evaluation makes, training may use
def resampling_weights(
    n: int, size: int, method: Resampling, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """The matrix [size, n] that resamples any table of n rows; computed on the CPU in float64."""
    if n == 1:
        weights = torch.ones(size, 1, dtype=torch.float64)
    elif method == "bicubic":
        image = torch.eye(n, dtype=torch.float64)[None, :, :, None]
        weights = F.interpolate(image, (size, 1), mode="bicubic", align_corners=False)[0, :, :, 0].T
    else:
        weights = polyharmonic_weights(n, size)
    return weights.to(dtype).to(device)


def polyharmonic_weights(n: int, size: int) -> Tensor:
    """Of a cubic polyharmonic spline with a linear term through points i/n, read at j/size."""
    known = torch.arange(n, dtype=torch.float64) / n
    asked = torch.arange(size, dtype=torch.float64) / size
    linear = torch.stack([known, torch.ones_like(known)], 1)
    system = torch.zeros(n + 2, n + 2, dtype=torch.float64)
    system[:n, :n] = (known[:, None] - known).abs() ** 3
    system[:n, n:], system[n:, :n] = linear, linear.T
    right = torch.zeros(n + 2, n, dtype=torch.float64)
    right[:n] = torch.eye(n, dtype=torch.float64)
    basis = torch.cat(
        [(asked[:, None] - known).abs() ** 3, torch.stack([asked, torch.ones_like(asked)], 1)], 1
    )
    coefficients: Tensor = torch.linalg.solve(system, right)
    return basis @ coefficients


class RelativeBias(nn.Module):
    """A learnable number per head and distance, added to attention scores (§3.2, as in T5)."""

    def __init__(self, heads: int, *, buckets: int, max_distance: int) -> None:
        super().__init__()
        self.buckets = buckets
        self.max_distance = max_distance
        self.table = nn.Parameter(torch.empty(buckets, heads))
        nn.init.uniform_(self.table, -0.05, 0.05)

    def forward(self, num_tokens: int) -> Tensor:
        """Bias [heads, N, N] of every query (rows) for every key (columns)."""
        device = self.table.device
        buckets = relative_buckets(num_tokens, self.buckets, self.max_distance, device)
        return F.embedding(buckets, self.table).permute(2, 0, 1)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # cached: what an evaluation makes, training may use
def relative_buckets(
    num_tokens: int, buckets: int, max_distance: int, device: torch.device | None = None
) -> Tensor:
    """T5's bidirectional buckets of key − query, int64 [N, N].

    Half of the buckets are for keys after the query. In each half, small distances have a bucket
    each, larger ones share logarithmically growing ones up to `max_distance`. Computed on the CPU,
    whatever the device: a logarithm rounded another way would be another bucket.
    """
    half, exact = buckets // 2, buckets // 4
    place = torch.arange(num_tokens)
    relative = place[None, :] - place[:, None]
    distance = relative.abs()
    growth = torch.log(distance.clamp(min=1) / exact) / math.log(max_distance / exact)
    large = (exact + (growth * (half - exact)).long()).clamp(max=half - 1)
    found = torch.where(distance < exact, distance, large) + half * (relative > 0)
    return found.to(device)
