"""The page of `vatt report` about a classifier: how it learned, how good it is, class by class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vatt.evaluation.results import read_result, versions
from vatt.models.classifier import ClassifierConfig
from vatt.models.weights import read_settings
from vatt.report.figures import Curve, confusion, curves
from vatt.report.page import Table, render
from vatt.report.training_curve import read_metrics
from vatt.run_folder import METRICS_FILE

MOST_CLASSES = 60  # that a figure of confusions can name


def classifier_page(run: Path, model: Path, title: str) -> str:
    """The whole page, of what is in the run folder; parts that are missing are named.

    Args:
        run: its folder.
        model: the folder of its model.
        title: of the page.

    Raises:
        CheckpointError: the model, a result or the training log is damaged.
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
        versions=versions(),
    )


def _curves(log: list[dict[str, float]]) -> str | None:
    """Losses of training and validation, and the validation's first measure, over the steps."""
    checked = [entry for entry in log if "val_loss" in entry]
    if len(log) < 2:
        return None
    panels = [Curve("training loss", [one["step"] for one in log], {"": [o["loss"] for o in log]})]
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
    found = measures.get("per_class") or {}
    rows = [
        (name, [f"{share:.3f}"]) for name, share in sorted(found.items(), key=lambda one: one[1])
    ]
    return Table(["class, the worst first", "share found"], [rows]) if rows else None
