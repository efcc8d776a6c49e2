"""The matrix products of a computation: which they are, run alone, and the fastest there are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

LARGE_SIDE = {"cuda": 8192, "cpu": 2048}  # of the product that measures what a device can reach


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the shapes of all matrix products in its context, those inside fused attention too."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shapes: list[tuple[torch.Size, torch.Size, torch.dtype]] = []

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
            q = args[1] if "backward" in name else args[0]
            q = q.flatten(0, 1)
            for _ in range(5 if "backward" in name else 2):  # of equal work: N × N × head width
                self._note(q, q.transpose(1, 2).shape)
        return func(*args, **(kwargs or {}))

    def _note(self, left: Tensor, right: torch.Size) -> None:
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
        operands = [made[key] for key in self.shapes]

        def run() -> None:
            with torch.inference_mode():
                for left, right in operands:
                    left @ right

        return run


def large_product(dtype: torch.dtype, device: torch.device) -> tuple[Callable[[], Tensor], int]:
    """One product of large square matrices, as fast as a device multiplies, and its operations."""
    side = LARGE_SIDE.get(device.type, LARGE_SIDE["cpu"])
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return lambda: left @ right, 2 * side**3
