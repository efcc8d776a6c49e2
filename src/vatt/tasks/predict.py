"""`vatt predict`: the likeliest classes of files, by a fine-tuned classifier."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from vatt.devices import cpus_of_rank
from vatt.encoder import ClipClassifier, load_classifier
from vatt.errors import ConfigError, MediaError
from vatt.ingest.labelled import SUFFIXES
from vatt.ingest.sources import printable
from vatt.storage import write_atomically
from vatt.workers.progress import ProgressBar


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictConfig:
    """Name the likeliest classes of files, each by four clips spread over it."""

    files: Positional[tuple[Path, ...]]
    """Videos, audio or images, or folders of them (read with their sub-folders)."""
    model: Path
    """Run folder or model folder of a classifier, or its name on a hub (hf://owner/name)."""
    out: Path | None = None
    """Where to write all predictions: .csv, or .jsonl (one line a file)."""
    topk: int = 5
    """Classes to name of each file."""
    workers: int = 0
    """Files read at once; 0: one for each core."""
    device: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("topk", 1), ("workers", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected >= {least}")
        if self.out is not None and self.out.suffix not in (".csv", ".jsonl"):
            raise ConfigError(f"out: found {self.out}, expected a name that ends in .csv or .jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictResult:
    """What was predicted; `failed` says why of each file that could not be read."""

    predicted: int
    out: Path | None
    failed: Mapping[str, str] = field(default_factory=dict)
    predictions: Sequence[Mapping[str, Any]] = ()
    problem: str | None = None

    def shown(self) -> dict[str, Any]:
        """For people: the likeliest class of the first files, when all are in a file."""
        rows = self.predictions if self.out is None else self.predictions[:20]
        table = [
            {"file": one["file"]}
            | {"likeliest": ", ".join(f"{k} {v:.0%}" for k, v in list(one["classes"].items())[:3])}
            for one in rows
        ]
        more = len(rows) < len(self.predictions)
        title = f"the first {len(rows)}; all are in {self.out}" if more else "predictions"
        failed = [{"file": file, "failed": reason} for file, reason in self.failed.items()]
        return {
            "predicted": self.predicted, "out": self.out, "failed": failed, title: table,
        }  # fmt: skip


def run(config: PredictConfig) -> PredictResult:
    """Predict; write `out` if it is given.

    Raises:
        ConfigError: there are no files.
        CheckpointError: there is no classifier.
    """
    files = list(dict.fromkeys(chain.from_iterable(map(_files, config.files))))
    if not files:
        raise ConfigError(f"files: found none in {', '.join(map(str, config.files))}")
    if config.out is not None:  # before there is work that could be lost
        config.out.parent.mkdir(parents=True, exist_ok=True)
    classifier = load_classifier(config.model, config.device)
    predictions, failed = list[dict[str, Any]](), dict[str, str]()
    workers = config.workers or cpus_of_rank()
    with (
        ThreadPoolExecutor(workers) as pool,
        ProgressBar("predict", len(files)) as bar,
    ):
        outcomes = pool.map(partial(_predict, classifier, topk=config.topk), files)
        for number, (file, outcome) in enumerate(zip(files, outcomes, strict=True), start=1):
            if isinstance(outcome, str):
                failed[printable(str(file))] = printable(outcome)
            else:
                predictions.append({"file": printable(str(file)), "classes": outcome})
            bar.update(number, f"{len(failed)} failed")
    if config.out is not None:
        write = _as_csv if config.out.suffix == ".csv" else _as_lines
        write_atomically(config.out, write(predictions, failed))
    problem = None
    if not predictions:
        first = next(iter(failed.values()))
        problem = f"none of {len(files)} files could be read; first: {first}"
    return PredictResult(
        predicted=len(predictions),
        out=config.out,
        failed=failed,
        predictions=predictions,
        problem=problem,
    )


def _files(source: Path) -> list[Path]:
    """A file as it is given; of a folder those that look like media."""
    if not source.is_dir():
        return [source]
    found = (path for path in sorted(source.rglob("*")) if path.is_file() and path.name[0] != ".")
    return [path for path in found if path.suffix.lower() in chain(*SUFFIXES.values())]


def _predict(classifier: ClipClassifier, file: Path, *, topk: int) -> dict[str, float] | str:
    """Name → probability, or why there is none."""
    try:
        (found,) = classifier.predict([file], topk)
    except MediaError as error:
        return str(error)
    return found


def _as_csv(predictions: Sequence[Mapping[str, Any]], failed: Mapping[str, str]) -> str:
    """A row for each file and class, the likeliest first; of failed files one with the error."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["file", "rank", "class", "probability", "error"])
    for one in predictions:
        for rank, (name, share) in enumerate(one["classes"].items(), start=1):
            rows.writerow([one["file"], rank, name, f"{share:.6f}", ""])
    rows.writerows([file, "", "", "", reason] for file, reason in failed.items())
    return text.getvalue()


def _as_lines(predictions: Sequence[Mapping[str, Any]], failed: Mapping[str, str]) -> str:
    errors = [{"file": file, "error": reason} for file, reason in failed.items()]
    lines = (json.dumps(one, ensure_ascii=False) for one in (*predictions, *errors))
    return "".join(f"{line}\n" for line in lines)
