"""Times of several ways to do something, which take turns: all meet the same load."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch


def in_turn(
    ways: Mapping[str, Callable[[], object]], *, device: torch.device, repeats: int
) -> dict[str, list[float]]:
    """Milliseconds of each way, `repeats` times after a round that warms up."""
    rounds = [[once(way, device) for way in ways.values()] for _ in range(repeats + 1)]
    return dict(zip(ways, map(list, zip(*rounds[1:], strict=True)), strict=True))


def once(way: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one call; the device is waited for."""
    started = time.perf_counter()
    way()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - started) * 1e3
