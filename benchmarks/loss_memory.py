"""How much memory do the losses of a batch take, by the chunk of scores that is held at once?

    python benchmarks/loss_memory.py [--batches 2048 8192 32768] [--chunks 1024 2048 4096]
        [--processes 1] [--device cuda] [--whole]

Random embeddings of the paper's spaces (512 and 256), all clips with audio and 5 texts; the whole
batch on each of --processes. Measured: what forward and backward pass take beyond the embeddings,
of the process (Linux) or the accelerator. Without --whole only as many columns are computed as make
2^29 scores; memory does not depend on how many there are but for their own gradients, and the time
is extrapolated. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import ctypes
import sys

import torch

from vatt.devices import processor
from vatt.losses import LossConfig
from vatt.models.heads import HeadsConfig
from vatt.speed.loss_cost import cost_of_losses

TEXTS = 5
MOST_SCORES = 2**29
M_MMAP_THRESHOLD = -3  # of the C library


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[2048, 8192, 32768])
    parser.add_argument("--chunks", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--whole", action="store_true")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    if sys.platform == "linux":
        # Each tensor by itself, and given back at once: else holes in the heap would count.
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**16)
    print("| B | clips of a process | chunk | scores of a chunk, MB | measured, MB | s |")
    print("|---|---|---|---|---|---|")
    for batch in chosen.batches:
        rows = batch // chosen.processes
        for chunk in chosen.chunks:
            cost = cost_of_losses(
                LossConfig(chunk=chunk), HeadsConfig(), rows, batch, TEXTS, device,
                most_scores=None if chosen.whole else MOST_SCORES,
            )  # fmt: skip
            scores, found = rows * chunk * 4 / 1e6, cost.bytes / 1e6
            line = f"| {batch:,} | {rows:,} | {chunk:,} | {scores:,.0f} | {found:,.0f} |"
            print(f"{line} {cost.seconds:.1f} |", flush=True)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    about = f"{gpu or processor()}; torch {torch.__version__}; {torch.get_num_threads()} threads"
    print(about, file=sys.stderr)


if __name__ == "__main__":
    main()
