"""Drop tokens of large frames, or look at small ones? Table 14 of the paper, in small.

The demo's actions, fine-tuned from the run: with frames of twice its height and width, of whose
tokens a share is dropped in training; and with frames of its own size, which have as many tokens as
0.75 leaves of the large ones. Positions are interpolated (§4.3). Recipe and number of steps are the
same for all; nothing is dropped in evaluation. Frames are decoded once: 6 GB beside the trials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from trials import balanced_accuracy, mean_and_spread, print_table, spread, trial

from vatt.contracts import ClipSpec
from vatt.costs.flops import blueprint, forward_flops
from vatt.devices import autocast
from vatt.losses import softmax_cross_entropy
from vatt.models.classifier import Classifier
from vatt.models.weights import load_model, read_settings
from vatt.presets import finetune_demo
from vatt.speed.in_turn import in_turn

STEPS, ROUNDS = 120, 7  # of training; of timing
WAYS = ((2, 0.0), (2, 0.25), (2, 0.5), (2, 0.75), (1, 0.0))  # times the run's size; share dropped


def measure(
    *, run: Path, data: Path | None, out: Path, seeds: Sequence[int], quick: bool
) -> Mapping[str, Any]:
    """Print the table; the JSON line has its rows. Quick: 20 steps, judged on validation maps."""
    del data
    clip = read_settings(run / "model")[1]
    steps, split = (20, "val") if quick else (STEPS, "test")
    found: dict[tuple[int, float], list[float]] = {}
    models: dict[str, tuple[Classifier, ClipSpec]] = {}
    for times, drop in WAYS:
        sides = times * clip.height, times * clip.width
        name = f"{sides[0]}x{sides[1]}, {drop:.0%} dropped"
        changes = {
            "start_from": str(run),
            "clip": {"height": sides[0], "width": sides[1]},
            "data": {
                "shards": [str(run / "shards")],
                "decode_size": list(sides),
                "cache_dir": str(out / "decoded"),
            },
            "model": {"drop_token": drop},
            "train": {"steps": steps},
        }
        folders = [out / f"{sides[0]}-drop-{drop:g}-seed-{seed}" for seed in seeds]
        found[times, drop] = [
            balanced_accuracy(
                trial(folder, "finetune-demo", {**changes, "seed": seed}, split=split)
            )
            for folder, seed in zip(folders, seeds, strict=True)
        ]
        models[name] = load_model(Classifier, folders[0] / "model", torch.device("cpu"))
    taken = in_turn(
        {name: training_step(*one) for name, one in models.items()},
        device=torch.device("cpu"),
        repeats=ROUNDS,
    )
    rows = []
    for (name, one), accuracies in zip(models.items(), found.values(), strict=True):
        rows.append(
            {
                "what": name,
                "accuracy": mean(accuracies),
                "spread": spread(accuracies),
                "step_ms": round(median(taken[name]), 1),
                "gflops_training": gigaflops(*one, training=True),
                "gflops_evaluation": gigaflops(*one, training=False),
            }
        )
    print_table(
        ("frames", f"accuracy, {split} maps", "step, ms", "GFLOPs in training", "in evaluation"),
        [
            (
                row["what"],
                mean_and_spread(accuracies),
                f"{row['step_ms']:.0f}",
                f"{row['gflops_training']:.2f}",
                f"{row['gflops_evaluation']:.2f}",
            )
            for row, accuracies in zip(rows, found.values(), strict=True)
        ],
    )
    print(f"\n{steps} steps of {batch_size()} clips; GFLOPs: of the forward pass of one clip.")
    return {"steps": steps, "split": split, "rows": rows}


def training_step(model: Classifier, spec: ClipSpec) -> Callable[[], None]:
    """Forward, loss and backward pass of one batch of noise."""
    size = batch_size()
    frames = torch.rand(size, spec.frames, spec.height, spec.width, 3) * 2 - 1
    draw = torch.randint(1 << 62, (size,))
    targets = torch.eye(model.config.classes)[torch.arange(size) % model.config.classes]
    model.train()

    def step() -> None:
        with autocast("auto", frames.device):
            logits = model(frames, draw)
        softmax_cross_entropy(logits, targets).mean().backward()
        model.zero_grad()

    return step


def batch_size() -> int:
    """Of the recipe."""
    return int(finetune_demo()["data"]["batch_size"])


def gigaflops(model: Classifier, spec: ClipSpec, *, training: bool) -> float:
    """Of the forward pass of one clip, everything counted."""
    parts = forward_flops(blueprint(model.config), spec, training=training).values()
    return sum(flops.full for part in parts for flops in part.values()) / 1e9
