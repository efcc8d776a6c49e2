"""Is attention faster written out, or by PyTorch's fused kernel? By length, dtype and gradients.

    python benchmarks/attention.py [--device cuda]

For each length: from the rows of one projection to rows again, forward alone and with its backward
pass, as the model runs it in float32 and under bfloat16 autocast, about as many tokens each time.
*Uncut* is written out in one piece. The ways take turns, times are medians of five, and the number
after ± is half the spread of the ratios. What follows is in `models/transformer.py`. About a minute
on two free cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from einops import rearrange
from timing import processor, report
from torch import Tensor

from vatt.models import transformer
from vatt.models.transformer import attend
from vatt.speed.in_turn import in_turn

LENGTHS = (17, 33, 65, 129, 197, 257, 393, 785, 1569)
WIDTHS = {"demo": (4, 48), "Base": (12, 64)}  # heads, width of one
TOKENS = 1569
REPEATS = 5


def main() -> None:
    """Print a line each, then all as JSON, then from which lengths on the kernel is faster."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    device = torch.device(parser.parse_args().device)
    torch.manual_seed(0)
    rows: dict[str, Any] = {}
    crossings = []
    for dtype in (torch.float32, torch.bfloat16):
        for gradients in (False, True):
            for size, (heads, width) in WIDTHS.items():
                kind = f"{size} {str(dtype)[6:]} {'with gradients' if gradients else 'forward'}"
                ratios = {}
                for length in LENGTHS:
                    shape = (max(1, round(TOKENS / length)), length, 3 * heads * width)
                    inputs = torch.randn(shape, device=device, dtype=dtype, requires_grad=gradients)
                    row = measured(inputs, heads)
                    rows[f"{kind} {length}"] = row
                    ratios[length] = row["written_out_over_fused"]
                    print(f"{kind:32}{length:6} tokens  {shown(row)}", flush=True)
                crossings.append(f"{kind} {crossing(ratios)}")
    report("attention: written out or fused?", rows, device=device)
    print(f"{processor()}: the fused kernel is faster: {'; '.join(crossings)}")


def measured(inputs: Tensor, heads: int) -> dict[str, float]:
    """Medians of the three ways, and how written out compares."""
    ways = {
        "written_out": lambda: one_pass(inputs, heads, fused=False),
        "uncut": uncut(lambda: one_pass(inputs, heads, fused=False)),
        "fused": lambda: one_pass(inputs, heads, fused=True),
    }
    times = in_turn(ways, device=inputs.device, repeats=REPEATS)
    ratios = [a / b for a, b in zip(times["written_out"], times["fused"], strict=True)]
    return {
        **{way: round(median(each), 2) for way, each in times.items()},
        "written_out_over_fused": round(median(ratios), 2),
        "spread": round((max(ratios) - min(ratios)) / 2, 2),
    }


def one_pass(inputs: Tensor, heads: int, *, fused: bool) -> None:
    """As `Attention` does between its projections; backward if the inputs want gradients."""
    q, k, v = rearrange(inputs, "b n (p h d) -> p b h n d", p=3, h=heads).unbind()
    bf16 = inputs.dtype == torch.bfloat16
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bf16):
        mixed = attend(q, k, v, bias=None, scale=q.shape[-1] ** -0.5, dropout=0.0, fused=fused)
    out = mixed.transpose(1, 2).flatten(2)
    if out.requires_grad:
        out.backward(out.detach())


def uncut(work: Callable[[], object]) -> Callable[[], object]:
    """The same work with scores of any size in one piece."""

    def whole() -> None:
        before, transformer.PIECE_SCORES = transformer.PIECE_SCORES, 2**62
        work()
        transformer.PIECE_SCORES = before

    return whole


def shown(row: dict[str, float]) -> str:
    """One line of the table."""
    times = "  ".join(f"{way} {row[way]:8.2f} ms" for way in ("written_out", "uncut", "fused"))
    return f"{times}  written out / fused {row['written_out_over_fused']:.2f} ± {row['spread']:.2f}"


def crossing(ratios: dict[int, float]) -> str:
    """The least length from which on the kernel is faster at all lengths."""
    slower = [length for length, ratio in ratios.items() if ratio <= 1]
    later = [length for length in ratios if length > max(slower, default=0)]
    return f"from {later[0]} tokens on" if later else f"at no length up to {max(ratios)}"


if __name__ == "__main__":
    main()
