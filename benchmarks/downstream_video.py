"""Which of 8 actions do clips of the demo's test maps show? Fine-tuned, from scratch, and probed.

The recipe is that of the demo (preset finetune-demo), with all labels of the training maps: from
the run's weights; from fresh ones, for as many steps as the validation maps ask for; and from the
run's weights on one frame that repeats. Beside them stands the run's linear probe. Accuracies are
means over classes on the test maps, which decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from trials import (
    balanced_accuracy,
    best_validation,
    mean_and_spread,
    print_table,
    shortest_of_the_best,
    spread,
    trial,
)

from vatt.errors import DataError
from vatt.evaluation.results import read_result
from vatt.presets import finetune_demo

SCRATCH = (400, 800, 1600)  # steps to choose from, by the first seed's accuracy in validation
ONE_FRAME = {"clip": {"fps": 2e4}}  # all frames of a clip within a millisecond


def measure(
    *, run: Path, data: Path | None, out: Path, seeds: Sequence[int], quick: bool
) -> Mapping[str, float]:
    """Print the table; accuracies in [0, 1]."""
    del data
    probe = (read_result(run, "linear-eval") or {}).get("video_action")
    if probe is None:
        raise DataError(f"{run}: no linear probe of the actions; run `vatt linear-eval {run}`")
    usual = 20 if quick else int(finetune_demo()["train"]["steps"])
    lengths = (20, 40) if quick else SCRATCH

    def folder(name: str, steps: int, seed: int) -> Path:
        return out / f"{name}-{steps}-seed-{seed}"

    def accuracy(name: str, steps: int, seed: int, changes: Mapping[str, Any]) -> float:
        given = {
            "start_from": str(run),
            "data": {"shards": [str(run / "shards")]},
            "train": {"steps": steps},
            "eval_every": max(50, steps // 8),
            "seed": seed,
        }
        return balanced_accuracy(
            trial(folder(name, steps, seed), "finetune-demo", {**given, **changes})
        )

    tuned = [accuracy("finetuned", usual, seed, {}) for seed in seeds]
    still = [accuracy("still", usual, seed, ONE_FRAME) for seed in seeds]
    tried = [accuracy("scratch", steps, seeds[0], {"scratch": True}) for steps in lengths]
    validated = [best_validation(folder("scratch", steps, seeds[0])) for steps in lengths]
    chosen = lengths[shortest_of_the_best(validated)]
    scratch = [accuracy("scratch", chosen, seed, {"scratch": True}) for seed in seeds]
    as_long = accuracy("finetuned", chosen, seeds[0], {})
    print_table(
        ("8 actions, test maps", "steps", "accuracy"),
        (
            ("fine-tuned from the run", str(usual), mean_and_spread(tuned)),
            ("… as long as scratch, first seed", str(chosen), f"{as_long:.3f}"),
            ("from scratch", str(chosen), mean_and_spread(scratch)),
            ("one frame, fine-tuned from the run", str(usual), mean_and_spread(still)),
            ("linear probe of the run", "", f"{probe['pretrained']['svm']:.3f}"),
            ("chance", "", f"{probe['chance']:.3f}"),
        ),
    )
    print("\nFrom scratch, first seed; the steps are chosen by validation:\n")
    print_table(
        ("steps", "validation (top-1)", "test maps"),
        [
            (str(steps), f"{val:.3f}", f"{test:.3f}")
            for steps, val, test in zip(lengths, validated, tried, strict=True)
        ],
    )
    return {
        "finetuned": mean(tuned),
        "probe": probe["pretrained"]["svm"],
        "scratch": mean(scratch),
        "still": mean(still),
        "chance": probe["chance"],
        "spread": spread(tuned),
    }
