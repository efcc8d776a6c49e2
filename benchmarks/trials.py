"""Trials of fine-tuning, each in a folder of its own with its settings; finished ones are read."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vatt.config import from_values, merge
from vatt.models.weights import read_settings
from vatt.presets import FINETUNE_PRESETS
from vatt.tasks import evaluate, finetune

ENOUGH = 0.01  # a longer training is chosen when it is better by more than this
LINEAR = (0.001, 0.01, 0.1, 1.0)  # strengths of logistic regression to choose from


def trial(
    out: Path,
    preset: str,
    changes: Mapping[str, Any],
    *,
    clips: int = 1,
    crops: int = 1,
    split: str = "test",
) -> Mapping[str, Any]:
    """Fine-tune with a preset and changes to it, then evaluate: the content of evaluate.json.

    Args:
        out: its folder; it keeps model and results, not the checkpoints.
        preset: of `vatt finetune`.
        changes: to the preset's values, as in a settings file.
        clips: of each example.
        crops: of each clip.
        split: what is evaluated.
    """
    result = out / "results" / "evaluate.json"
    if not result.is_file():
        values = merge(FINETUNE_PRESETS[preset](), {"out": str(out), **changes})
        config = from_values(finetune.FinetuneConfig, values, where=preset)
        if (made := finetune.run(config).steps) < config.train.steps:  # by SIGTERM
            raise SystemExit(f"{out}: stopped after {made} of {config.train.steps} steps")
        evaluate.run(evaluate.EvaluateConfig(run=out, clips=clips, crops=crops, split=split))
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


def spread(values: Sequence[float]) -> float:
    """The standard deviation of one value; 0 if it stands alone."""
    return stdev(values) if len(values) > 1 else 0.0


# ── files of packages ────────────────────────────────────────────────────────────────────────────


class LabelledFile(NamedTuple):
    """A row of a table for `vatt finetune`."""

    path: Path
    label: str
    split: str
    end_s: float | None = None  # how long the label holds; None: to the end


def different_files(found: Iterable[tuple[Path, str]]) -> dict[str, tuple[Path, str]]:
    """SHA-256 → file and label, in its order: repeats once, those with two labels not at all."""
    same = defaultdict[str, list[tuple[Path, str]]](list)
    for path, label in found:
        same[hashlib.sha256(path.read_bytes()).hexdigest()].append((path, label))
    kept = {
        digest: files[0]
        for digest, files in sorted(same.items())
        if len({label for _, label in files}) == 1
    }
    number = sum(map(len, same.values()))
    print(
        f"{number} labelled files, {len(same)} of them different; {len(same) - len(kept)} have two "
        f"labels and are left out: {len(kept)} are used"
    )
    return kept


def write_table(path: Path, files: Iterable[LabelledFile]) -> Path:
    """A CSV table as `vatt finetune` reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "label", "split", "end"))
        writer.writerows((one.path.absolute(), *one[1:]) for one in files)
    return path


SPLITS = ("train", "val", "test")
Examples = tuple[NDArray[np.float32], Sequence[str]]  # rows [N, D], and their labels


def linear_scores(train: Examples, val: Examples, test: Examples) -> NDArray[np.float64]:
    """Accuracies of logistic regression in validation and test, for each strength [n, 2]."""

    def scores(inverse_strength: float) -> list[float]:
        classifier = LogisticRegression(C=inverse_strength, max_iter=300)
        fitted = make_pipeline(StandardScaler(), classifier).fit(*train)
        return [fitted.score(*val), fitted.score(*test)]

    return np.array([scores(one) for one in LINEAR])


def best_linear(train: Examples, val: Examples, test: Examples) -> float:
    """Accuracy of logistic regression in the test, as regular as validation asks for."""
    found = linear_scores(train, val, test)
    return float(found[found[:, 0].argmax(), 1])
