"""The page of `vatt report` about a classifier: how it learned, how good it is, class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vatt.config import CONFIG_FILE, read_toml
from vatt.errors import DataError
from vatt.evaluation.examples import file_of
from vatt.evaluation.metrics import neighbour_accuracy
from vatt.evaluation.results import read_result, versions
from vatt.evaluation.score_files import FeatureSample
from vatt.models.classifier import ClassifierConfig
from vatt.models.weights import read_settings
from vatt.report.figures import ClassPoints, Curve, class_maps, confusion, curves
from vatt.report.page import Row, Table, render
from vatt.report.training_curve import read_metrics
from vatt.run_folder import METRICS_FILE

MOST_CLASSES = 60  # that a figure of confusions can name
LEAST_EXAMPLES = 8  # of a map


def classifier_page(
    run: Path, model: Path, title: str, *, compare: Path | None = None, seed: int = 0
) -> str:
    """The whole page, of what is in the run folder; parts that are missing are named.

    Args:
        run: its folder.
        model: the folder of its model.
        title: of the page.
        compare: another run folder, whose features are shown beside these.
        seed: of the map of the features.

    Raises:
        CheckpointError: the model, a result or the training log is damaged.
        DataError: the runs to compare are not of the same examples.
    """
    settings, spec, extra = read_settings(model)
    assert isinstance(settings, ClassifierConfig)
    log, result = read_metrics(run / METRICS_FILE), read_result(run, "evaluate")
    about = {
        "classes": f"{settings.classes}, " + ("several" if settings.several else "one")
        + " true at once",
        "classifies": settings.modality,
        "a clip": f"{spec.frames} frames, {spec.duration_s:.2f} s",
        "a frame": f"{spec.width} × {spec.height}",
        "audio": f"{spec.sample_rate_hz / 1000:g} kHz",
    }  # fmt: skip
    if "measure" in extra:
        about["model"] = (
            f"best {extra['measure']} of validation, {extra['value']:.3f}, after {extra['step']:,} "
            "steps"
        )
    elif "step" in extra:
        about["model"] = f"the last, after {extra['step']:,} steps"
    counts = (result or {}).get("confusion")
    few = counts is not None and len(counts) <= MOST_CLASSES
    return render(
        "classifier.html",
        title=title,
        about=about,
        curves=_curves(log),
        result=result,
        measures=None if result is None else _numbers(result["measures"]),
        per_class=None if result is None else _per_class(result["measures"]),
        confusion=confusion(np.array(counts), settings.names) if few else None,
        features=_features([run] if compare is None else [run, compare], seed),
        versions=versions(),
    )


def _features(runs: Sequence[Path], seed: int) -> dict[str, Any] | None:
    """A map of the features of each run by class, and how near those of one class are."""
    samples = {run: FeatureSample.load(run) for run in runs}
    found = {run: one for run, one in samples.items() if one is not None}
    if len(runs) > len(found) > 0 or (len(runs) > 1 and not found):
        missing = next(run for run in runs if run not in found)
        raise DataError(f"{missing}: holds no features to compare; run vatt evaluate {missing}")
    first = next(iter(found.values()), None)
    if first is None or len(first.ids) < LEAST_EXAMPLES:
        return None
    for run, one in found.items():
        if (one.ids, one.names) != (first.ids, first.names):
            raise DataError(
                f"{run}: was evaluated on other examples or classes than {runs[0]}; run vatt "
                "evaluate of both with the same --shards and --split"
            )
    titles = [f"{run.resolve().name} ({_start(run)})" for run in found]
    points = [
        ClassPoints(title, one.features, one.classes)
        for title, one in zip(titles, found.values(), strict=True)
    ]
    return {
        "map": class_maps(points, first.names, seed=seed),
        "shown": len(first.ids),
        "of": first.about["of"],
        "split": first.about["split"],
        **_neighbours(first, dict(zip(titles, found.values(), strict=True))),
    }


def _neighbours(first: FeatureSample, samples: Mapping[str, FeatureSample]) -> dict[str, Any]:
    """How near examples of one class are, of classes with two files or more; by title."""
    files = np.array(list(map(file_of, first.ids)))
    several = [n for n in set(first.classes.tolist()) if len(set(files[first.classes == n])) > 1]
    rows = np.isin(first.classes, several)
    classes, of_rows = first.classes[rows], files[rows].tolist()
    if not several:
        return {"table": None, "compared": 0}
    found: list[Row] = [
        (title, [f"{neighbour_accuracy(one.features[rows], classes, of_rows):.3f}"])
        for title, one in samples.items()
    ]
    largest = np.bincount(classes).max() / len(classes)
    found.append(("always the largest class", [f"{largest:.3f}"]))
    columns = ["features", "of the class of most of the 5 nearest"]
    return {"table": Table(columns, [found]), "compared": len(classes)}


def _start(run: Path) -> str:
    """What its training began with, in a few words."""
    path = run / CONFIG_FILE
    settings = read_toml(path) if path.is_file() else {}
    if settings.get("scratch"):
        return "from scratch"
    start = settings.get("start_from")
    return f"from {Path(start).name}" if start else "as it is"


def _curves(log: list[dict[str, float]]) -> str | None:
    """Losses of training and validation, and the validation's first measure, over the steps."""
    checked = [entry for entry in log if "val_loss" in entry]
    if len(log) < 2:
        return None
    losses = {one["step"]: one["loss"] for one in log if "loss" in one}
    panels = [Curve("training loss", list(losses), {"": list(losses.values())})]
    if len(checked) > 1:
        steps = [one["step"] for one in checked]
        names = [name for name in ("val_top1", "val_top5", "val_mean_ap") if name in checked[0]]
        panels += [
            Curve("validation loss", steps, {"": [one["val_loss"] for one in checked]}),
            Curve(
                "validation", steps, {name[4:]: [one[name] for one in checked] for name in names}
            ),
        ]
    return curves(panels)


def _numbers(measures: dict[str, Any]) -> Table:
    rows = [(name, [f"{v:.4f}"]) for name, v in measures.items() if isinstance(v, float)]
    return Table(["measure", "value"], [rows])


def _per_class(measures: dict[str, Any]) -> Table | None:
    found, count = measures.get("per_class") or {}, measures.get("examples") or {}
    rows = [
        (name, [f"{share:.3f}", str(count.get(name, "–"))])
        for name, share in sorted(found.items(), key=lambda one: one[1])
    ]
    columns = ["class, the worst first", "share found", "examples"]
    return Table(columns, [rows]) if rows else None
