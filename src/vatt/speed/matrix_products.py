"""The matrix products of a computation: which they are, run alone, and the fastest there are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

LARGE_SIDE = {"cuda": 8192, "cpu": 2048}  # of the product that measures what a device can reach
SCORES_IN_CACHE = {"cpu": 2**21}  # a fused kernel keeps them there; else all are made at once


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the shapes of all matrix products in its context, those inside fused attention too.

    heeds: may be set False meanwhile, for products that are not to be noted.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shapes: list[tuple[torch.Size, torch.Size, torch.dtype]] = []
        self.heeds = True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the operation."""
        name = func._schema.name
        if name in ("aten::mm", "aten::bmm"):
            self._note(args[0], args[1].shape)
        elif name in ("aten::addmm", "aten::baddbmm"):
            self._note(args[1], args[2].shape)
        elif "scaled_dot_product" in name:
            backward = "backward" in name
            q, k = (x.flatten(0, 1) for x in (args[1:3] if backward else args[:2]))
            self._note_attention(q, k, products=5 if backward else 2)
        return func(*args, **(kwargs or {}))

    def _note_attention(self, q: Tensor, k: Tensor, products: int) -> None:
        """Of equal work each: queries × keys × head width."""
        most = SCORES_IN_CACHE.get(q.device.type, 2**62)
        for some in torch.split(q, max(1, most // (q.shape[1] * k.shape[1]))):
            for _ in range(products):
                self._note(some, torch.Size((len(some), k.shape[2], k.shape[1])))

    def _note(self, left: Tensor, right: torch.Size) -> None:
        if self.heeds:
            self.shapes.append((left.shape, right, left.dtype))

    @property
    def flops(self) -> int:
        """Of all of them, a multiply-add being two."""
        return sum(2 * math.prod(left) * right[-1] for left, right, _ in self.shapes)

    def alone(self, device: torch.device) -> Callable[[], None]:
        """The same products of random numbers, one after the other."""

        def noise(shape: torch.Size, dtype: torch.dtype) -> Tensor:
            return torch.randn(shape, device=device).to(dtype)

        made = {
            (left, right, dtype): (noise(left, dtype), noise(right, dtype))
            for left, right, dtype in self.shapes
        }
        results = {key: left @ right for key, (left, right) in made.items()}

        def run() -> None:
            with torch.inference_mode():
                for key in self.shapes:
                    torch.matmul(*made[key], out=results[key])

        return run


def large_product(dtype: torch.dtype, device: torch.device) -> tuple[Callable[[], Tensor], int]:
    """One product of large square matrices, as fast as a device multiplies, and its operations."""
    side = LARGE_SIDE.get(device.type, LARGE_SIDE["cpu"])
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return lambda: left @ right, 2 * side**3
