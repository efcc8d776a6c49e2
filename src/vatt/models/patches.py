"""Patches of a signal (§3.1) and DropToken's choice among them (§3.1.1): functions of tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vatt.errors import ConfigError
from vatt.models.model_config import DropScope, Edges


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
    B, C, axes = signal.shape[0], signal.shape[-1], len(patch)
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

    A function of each clip's `draw` alone: the same on any device and, but for scope "batch",
    however a batch is cut.

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
