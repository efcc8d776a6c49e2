"""What does DropToken save? One training step (forward, loss, backward) at four drop rates.

    python benchmarks/drop_token.py [--preset demo] [--batch 128] [--device cuda]

The baseline is rate 0. Inputs are random numbers of the preset's sizes: nothing is decoded.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import torch
from timing import milliseconds, report

from vatt.config import from_values
from vatt.contracts import ClipSpec, Inputs
from vatt.devices import autocast, keep_freed_memory
from vatt.losses import LossConfig, contrast
from vatt.models.model_config import ModelConfig
from vatt.models.vatt import Vatt
from vatt.presets import PRESETS

RATES = (0.0, 0.25, 0.5, 0.75)


def random_inputs(batch: int, clip: ClipSpec, vocabulary: int, device: torch.device) -> Inputs:
    """A batch of noise in which every clip has sound and all its texts."""
    return Inputs(
        frames=torch.rand(batch, clip.frames, clip.height, clip.width, 3, device=device) * 2 - 1,
        audio=torch.rand(batch, clip.samples, device=device) * 2 - 1,
        has_audio=torch.ones(batch, dtype=torch.bool, device=device),
        word_ids=torch.randint(1, vocabulary, (batch, clip.texts, clip.words), device=device),
        text_mask=torch.ones(batch, clip.texts, dtype=torch.bool, device=device),
        draw=torch.randint(1 << 62, (batch,), device=device),
    )


def main() -> None:
    """Measure all rates on one batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="demo", choices=PRESETS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    keep_freed_memory()  # as in training
    values: dict[str, Any] = PRESETS[args.preset]()
    sizes = from_values(ModelConfig, values.get("model", {}), where=args.preset)
    clip = from_values(ClipSpec, values.get("clip", {}), where=args.preset)
    torch.manual_seed(0)
    inputs = random_inputs(args.batch, clip, sizes.text.vocabulary, device)
    rows: dict[str, Any] = {}
    for rate in RATES:
        model = Vatt(replace(sizes, drop_token=rate)).train().to(device)

        def step(model: Vatt = model) -> None:
            with autocast("auto", device):
                embeddings = model(inputs)
            contrast(embeddings, embeddings, LossConfig()).total.backward()
            model.zero_grad()

        times = milliseconds(step, device=device)
        first = rows.get("0.0", times)["median"]
        rows[str(rate)] = {**times, "times_faster": round(first / times["median"], 2)}
    report(f"DropToken: one step of {args.batch} clips, preset {args.preset}", rows, device=device)


if __name__ == "__main__":
    main()
