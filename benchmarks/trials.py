"""Trials of fine-tuning, each in a folder of its own with its settings; finished ones are read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from vatt.config import from_values, merge
from vatt.models.weights import read_settings
from vatt.presets import FINETUNE_PRESETS
from vatt.tasks import evaluate, finetune

ENOUGH = 0.01  # a longer training is chosen when it is better by more than this


def trial(
    out: Path, preset: str, changes: Mapping[str, Any], *, clips: int = 1, split: str = "test"
) -> Mapping[str, Any]:
    """Fine-tune with a preset and changes to it, then evaluate: the content of evaluate.json.

    Args:
        out: its folder; it keeps model and results, not the checkpoints.
        preset: of `vatt finetune`.
        changes: to the preset's values, as in a settings file.
        clips: of each example.
        split: what is evaluated.
    """
    result = out / "results" / "evaluate.json"
    if not result.is_file():
        values = merge(FINETUNE_PRESETS[preset](), {"out": str(out), **changes})
        finetune.run(from_values(finetune.FinetuneConfig, values, where=preset))
        evaluate.run(evaluate.EvaluateConfig(run=out, clips=clips, crops=1, split=split))
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
    content: Mapping[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return content


def balanced_accuracy(result: Mapping[str, Any]) -> float:
    """Mean over the classes of each class's accuracy, of an evaluate.json."""
    return mean(result["measures"]["per_class"].values())


def best_validation(out: Path) -> float:
    """The best accuracy in validation of a trial, by which its model was kept."""
    return float(read_settings(out / "model")[2]["value"])


def shortest_of_the_best(validated: Sequence[float]) -> int:
    """The first length that no longer one is better than by more than `ENOUGH`."""
    best = range(len(validated))
    return next(at for at in best if max(validated[at:]) <= validated[at] + ENOUGH)


def mean_and_spread(values: Sequence[float]) -> str:
    """The mean and, of several, the standard deviation of one, for a table."""
    return f"{mean(values):.3f} ± {stdev(values):.3f}" if len(values) > 1 else f"{values[0]:.3f}"


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table."""
    for row in (titles, ["---"] * len(titles), *rows):
        print(f"| {' | '.join(row)} |")
