"""Is attention faster written out, or by PyTorch's fused kernel? Forward and backward, bfloat16.

    python benchmarks/attention.py [--device cuda]

The baseline is the fused kernel; the shapes are those of the demo's text, video and audio tokens.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from timing import milliseconds, report
from torch import Tensor

SHAPES = {"text": (384, 4, 17, 48), "video": (128, 4, 25, 48), "audio": (128, 4, 80, 48)}


def written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q·kᵀ / √d)·v as two products, [B, heads, N, head width]."""
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v


def main() -> None:
    """Measure both on all shapes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    device = torch.device(parser.parse_args().device)
    torch.manual_seed(0)
    rows = {}
    for name, shape in SHAPES.items():
        inputs = [
            torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True)
            for _ in range(3)
        ]
        ways = {"written_out": written_out, "fused": F.scaled_dot_product_attention}
        row = {
            way: milliseconds(lambda: attend(*inputs).sum().backward(), device=device)  # noqa: B023
            for way, attend in ways.items()
        }
        ratio = row["fused"]["median"] / row["written_out"]["median"]
        rows[name] = {**row, "fused_over_written_out": round(ratio, 2)}
    report("attention: written out or fused?", rows, device=device)


if __name__ == "__main__":
    main()
