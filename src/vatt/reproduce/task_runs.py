"""One task of a table, by the commands that users have; what is done is kept."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vatt.config import flatten, from_values, merge, to_values
from vatt.errors import DataError
from vatt.evaluation.results import ids_hash
from vatt.presets import FINETUNE_PRESETS
from vatt.reproduce.table_data import TaskData
from vatt.storage import write_atomically
from vatt.tasks import evaluate, finetune, linear_eval, zero_shot
from vatt.tasks.evaluate import EvaluateConfig
from vatt.tasks.finetune import FinetuneConfig
from vatt.tasks.linear_eval import LinearEvalConfig
from vatt.tasks.zero_shot import ZeroShotConfig

logger = logging.getLogger(__name__)

PLACES = ("dataset_dir", "out", "run", "start_from", "device")  # do not change what is measured
Recipe = Mapping[str, Mapping[str, Any]]  # command → settings that are laid over the paper's


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A model that a table judges: a run of ours, or an encoder of somebody else.

    model: run or model folder; encoder: `package.module:factory`; one of them.
    hash: of the weights.
    out: where everything goes.
    """

    model: Path | None
    encoder: str | None
    hash: str
    out: Path
    device: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRun:
    """What a task measured, the mean over its splits.

    rows: row of ours ("" where there is one) → measures by our names.
    n_evaluated, n_expected: of `units` of the task.
    differs: settings that are not the paper's, each a sentence.
    """

    rows: Mapping[str, Mapping[str, float]]
    n_evaluated: int
    n_expected: int
    differs: Sequence[str]


def settings_of(data: TaskData, judged: Judged, recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Command → the settings that it is given, of the commands that the task needs."""
    common = {"dataset": data.task.dataset, "dataset_dir": str(data.folder)}
    if (kind := data.task.kind) != "finetune" or judged.encoder is not None:
        own = {"device": judged.device, "out": str(folder_of(data, judged))}
        own |= {"run": None if judged.model is None else str(judged.model)}
        name = "linear-eval" if kind == "finetune" else kind
        protocol = "paper" if kind == "finetune" else data.task.recipe
        given = {**common, **own, "encoder": judged.encoder, "protocol": protocol}
        return {name: merge(given, recipe.get(name, {}))}
    out = str(folder_of(data, judged))
    views = {"clips": 1, "crops": 1} if data.public.kind == "image" else {}
    return {
        "finetune": merge(
            merge(FINETUNE_PRESETS[data.task.recipe](), {**data.task.changes, **common}),
            {"out": out, "start_from": str(judged.model), **recipe.get("finetune", {})},
        ),
        "evaluate": merge(
            {**common, "run": out, "device": judged.device, **views}, recipe.get("evaluate", {})
        ),
    }


def folder_of(data: TaskData, judged: Judged) -> Path:
    """Where a task's shards, features, run and results go."""
    return judged.out / f"{data.task.dataset}{'-scratch' if data.scratch else ''}"


def finetune_config(settings: Mapping[str, Mapping[str, Any]]) -> FinetuneConfig:
    """Of `vatt finetune`, checked."""
    return from_values(FinetuneConfig, settings["finetune"], where="reproduce: finetune")


def evaluate_config(settings: Mapping[str, Mapping[str, Any]]) -> EvaluateConfig:
    """Of `vatt evaluate`, checked."""
    return from_values(EvaluateConfig, settings["evaluate"], where="reproduce: evaluate")


def commands(data: TaskData, judged: Judged, recipe: Recipe) -> list[str]:
    """The task as command lines."""
    found = []
    for command, settings in settings_of(data, judged, recipe).items():
        preset = f" --preset {data.task.recipe}" if command == "finetune" else ""
        before = flatten(FINETUNE_PRESETS[data.task.recipe]()) if preset else {}
        given = {
            key: value
            for key, value in flatten(settings).items()
            if value is not None and before.get(key) != value
        }
        run = given.pop("run", None)
        words = [shlex.quote(str(run))] * (run is not None)
        for key, value in given.items():
            words += [f"--{key}"] if value is True else [f"--{key}", shlex.quote(str(value))]
        found.append(" ".join((f"vatt {command}{preset}", *words)))
    return found


def changed(data: TaskData, recipe: Recipe, commands: Iterable[str]) -> list[str]:
    """What a recipe file changes of what these commands are given, each a sentence."""
    paper = dict[str, Any]()
    if "finetune" in commands:
        own = {"out": ".", "start_from": ".", "src": ["."]}
        values = merge(FINETUNE_PRESETS[data.task.recipe](), own)
        paper = flatten(to_values(from_values(FinetuneConfig, values, where="preset")))
    said = []
    for command in commands:
        for key, value in flatten(recipe.get(command, {})).items():
            before = paper.get(key) if command == "finetune" else None
            if value != before:
                beside = "" if before is None else f", by the paper's recipe {before}"
                said.append(f"{command}: {key} = {value}{beside}")
    return said


def run_task(data: TaskData, judged: Judged, recipe: Recipe, *, table: int) -> TaskRun:
    """Measure, or take what was measured before with the same model, files and settings.

    Raises:
        VattError: whatever the commands raise.
    """
    assert data.found is not None
    settings = settings_of(data, judged, recipe)
    files = (one.path for one in data.found.matches if one is not None)
    how = {key: value for key, value in flatten(settings).items()
           if key.rpartition(".")[2] not in PLACES}  # fmt: skip
    identity = ids_hash([judged.hash, json.dumps(how, sort_keys=True, default=str), *files])
    path = judged.out / f"table{table}" / f"{folder_of(data, judged).name}.json"
    before = _read(path)
    if before.get("identity") == identity:
        logger.info("%s: done before (%s)", data.task.dataset, path)
        return TaskRun(**before["run"])
    measured = RUNNERS[next(iter(settings))](data, settings, recipe)
    found = {name: getattr(measured, name) for name in TaskRun.__dataclass_fields__}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({"identity": identity, "run": found}, indent=1))
    return measured


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _finetuned(data: TaskData, settings: Mapping[str, dict[str, Any]], recipe: Recipe) -> TaskRun:
    """`vatt finetune` and `vatt evaluate`; an interrupted fine-tuning continues."""
    config = finetune_config(settings)
    finetune.run(config)
    result = evaluate.run(evaluate_config(settings))
    differs = changed(data, recipe, settings)
    if result.skipped_in_preparation:
        differs.append(f"files that could not be prepared: {result.skipped_in_preparation:,}")
    listed, _ = data.count(result.split)
    return TaskRun(
        rows={"": {name: float(result.measures[name]) for name in data.task.measures.values()
                   if name in result.measures}},
        n_evaluated=result.n_evaluated,
        n_expected=max(listed, result.n_expected),
        differs=differs,
    )  # fmt: skip


def _retrieved(data: TaskData, settings: Mapping[str, dict[str, Any]], recipe: Recipe) -> TaskRun:
    """`vatt zero-shot --protocol …`."""
    config = from_values(ZeroShotConfig, settings["zero-shot"], where="reproduce: zero-shot")
    result = zero_shot.run(config)
    numbers = result.measures["text_to_video"]
    return TaskRun(
        rows={"": {name: float(numbers[name]) for name in data.task.measures.values()}},
        n_evaluated=numbers["captions"],
        n_expected=data.captions(result.split)[0],
        differs=[*changed(data, recipe, settings), *result.differs],
    )


def _linear(data: TaskData, settings: Mapping[str, dict[str, Any]], recipe: Recipe) -> TaskRun:
    """`vatt linear-eval --protocol …`."""
    config = from_values(LinearEvalConfig, settings["linear-eval"], where="reproduce: linear-eval")
    result = linear_eval.run(config)
    for reason in result.left_out.values():
        raise DataError(reason)
    (numbers,) = result.measures.values()
    splits = numbers["splits"].values()
    differs = changed(data, recipe, settings)
    if len(splits) < len(data.task.splits):
        differs.append(f"splits judged: {len(splits)} of {len(data.task.splits)}")
    clip = json.loads(result.path.read_text(encoding="utf-8"))["clip"]
    if data.public.kind == "video" and not _as_paper(clip):
        differs.append(
            f"clip: {clip['frames']} frames at {clip['fps']:g} fps, {clip['height']} × "
            f"{clip['width']}, as the encoder was trained; §4.3: 32 at 12.5 fps, 320 × 320"
        )
    if data.task.kind == "finetune":
        differs.append("the encoder is frozen, a linear classifier is fitted; the paper fine-tunes")
    return TaskRun(
        rows={kind: {"top1": of["top1"]} for kind, of in numbers["mean"].items()},
        n_evaluated=sum(one["n_test"] for one in splits),
        n_expected=sum(one["n_test_expected"] for one in splits),
        differs=differs,
    )


def _as_paper(clip: Mapping[str, Any]) -> bool:
    """Whether a clip is that of evaluation on video (§4.3)."""
    names = ("frames", "fps", "height", "width")
    return tuple(clip[name] for name in names) == (32, 12.5, 320, 320)


RUNNERS: Mapping[str, Callable[[TaskData, Mapping[str, dict[str, Any]], Recipe], TaskRun]] = {
    "finetune": _finetuned,
    "zero-shot": _retrieved,
    "linear-eval": _linear,
}
