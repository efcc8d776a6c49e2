"""`vatt reproduce`: a table of the paper run on the data sets in a folder, its rows beside ours."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from vatt.any_encoder import open_encoder
from vatt.config import CONFIG_FILE, flatten, read_toml, to_values
from vatt.encoder import model_folder
from vatt.errors import ConfigError, VattError
from vatt.evaluation.results import write_result
from vatt.models.model_config import ModelConfig
from vatt.models.transformer import BASE
from vatt.models.weights import read_settings
from vatt.reproduce.estimates import BASIS, Needs, needs_of, rounded, task_flops
from vatt.reproduce.published_results import FROZEN, SHARES, TABLES, PaperResults
from vatt.reproduce.table_data import TaskData, find_data
from vatt.reproduce.task_runs import Judged, Recipe, TaskRun, commands, run_task
from vatt.tasks.finetune import SIZES

logger = logging.getLogger(__name__)

OURS = "ours"
PRETRAINING = {"train.steps": 500_000, "data.batch_size": 2048}  # §4.3


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproduceConfig:
    """Run a table of the paper on the data sets that are there; the same command continues."""

    table: Positional[str]
    """table2 … table8."""
    model: Path | None = None
    """Run folder or model folder that is judged."""
    encoder: str | None = None
    """In its place an encoder of somebody else, `package.module:factory`; it is not fine-tuned:
    where the paper does that, a linear classifier is fitted on its features."""
    dataset_dir: Path
    """Has a sub-folder for each data set, named as `vatt datasets list` names it."""
    out: Path | None = None
    """For fine-tuned runs, features and results; reproduce/ in the model's folder when left out."""
    recipe: Path | None = None
    """TOML with tables finetune, evaluate, linear-eval, zero-shot: settings laid over the paper's;
    the result says which."""
    dry_run: bool = False
    """Only say what is needed: files, disk, hours, and the commands."""
    tflops: float = 100.0
    """TFLOP/s that the device keeps up: what hours are estimated with."""
    device: str | None = None

    def __post_init__(self) -> None:
        names = [f"table{number}" for number in TABLES]
        if self.table not in names:
            raise ConfigError(
                f"table: found {self.table!r}, expected one of {', '.join(names)}; for the "
                "ablations, tables 9 to 14, see docs/protocols.md"
            )
        if (self.model is None) == (self.encoder is None):
            raise ConfigError("model: expected --model RUN or --encoder package.module:factory")
        if self.encoder is not None and self.out is None:
            raise ConfigError("out: found none, expected a folder for the results of the encoder")
        if self.tflops <= 0:
            raise ConfigError(f"tflops: found {self.tflops}, expected > 0")

    @property
    def paper(self) -> PaperResults:
        """The table."""
        return TABLES[int(self.table.removeprefix("table"))]

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return self.out or (self.model or Path()) / "reproduce"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOutcome:
    """What became of one data set of the table.

    state: "done", "not there", or "failed", and why.
    units: what is counted.
    """

    dataset: str
    state: str
    units: str = "files"
    n_evaluated: int = 0
    n_expected: int = 0
    differs: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproduceResult:
    """The table: rows of the paper, then ours; None where there is no number."""

    table: str
    title: str
    path: Path
    rows: Mapping[str, Mapping[str, float | None]]
    data: Sequence[TaskOutcome]
    differs: Sequence[str]

    @property
    def problem(self) -> str | None:
        """Why the exit code is 1."""
        failed = [f"{one.dataset}: {one.state}" for one in self.data if one.state[:4] != "done"]
        return (
            f"{self.table}: not all rows could be filled: {'; '.join(failed)}" if failed else None
        )

    def shown(self) -> dict[str, Any]:
        """For people."""
        return {
            "table": f"{self.table.removeprefix('table')}: {self.title}",
            "path": self.path,
            "rows": [
                {"": name, **{key: None if v is None else f"{v:.4g}" for key, v in row.items()}}
                for name, row in self.rows.items()
            ],
            "data": [
                {
                    "data set": one.dataset,
                    "n evaluated": f"{one.n_evaluated:,} of {one.n_expected:,} {one.units}",
                    "state": one.state,
                }
                for one in self.data
            ],
            "what differs from the paper": _numbered(
                [*self.differs, *(f"{one.dataset}: {said}" for one in self.data
                                  for said in one.differs)]
            ),
            "how the paper is read": _numbered(
                dict.fromkeys(said for one in self.data for said in one.notes)
            ),
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproducePlan:
    """What a table needs; nothing was made."""

    table: str
    title: str
    needs: Mapping[str, Needs]
    missing: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()
    basis: Sequence[str] = ()

    def shown(self) -> dict[str, Any]:
        """For people."""
        needs = [{"": name, **rounded(one)} for name, one in self.needs.items()]
        return {
            "table": f"{self.table.removeprefix('table')}: {self.title}",
            "needs": needs,
            "not there": [{"": name, "why": said} for name, said in self.missing.items()],
            "estimates rest on": _numbered(self.basis),
            "commands": [{"": "", "command": one} for one in self.commands],
        }


def _numbered(texts: Any) -> list[dict[str, Any]]:
    return [{"": number, "said": text} for number, text in enumerate(texts, start=1)]


def run(config: ReproduceConfig) -> ReproduceResult | ReproducePlan:
    """Find the data sets, run what is not done, write results/reproduce-tableN.json.

    Raises:
        ConfigError: settings do not fit; or several ranks: see the page.
        CheckpointError: there is no model.
        DataError: the folder of the data sets is none.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "vatt reproduce: found several ranks; give the commands that --dry_run prints to "
            "torchrun, then this one without it: it takes what they have made"
        )
    recipe = read_recipe(config.recipe)
    judged = opened(config)
    found = [find_data(task, config.dataset_dir) for task in config.paper.tasks]
    if config.dry_run:
        return plan(config, judged, found, recipe)
    done = [run_of(data, judged, recipe, config.paper.number) for data in found]
    outcomes = [outcome_of(data, *one) for data, one in zip(found, done, strict=True)]
    rows = {name: dict(zip(config.paper.columns, values, strict=True))
            for name, values in config.paper.rows.items()}  # fmt: skip
    for name, key in ours_of(config).items():
        rows[name] = {
            column: value
            for data, (one, _) in zip(found, done, strict=True)
            for column, value in values_of(data, one, key).items()
        }
    content: dict[str, Any] = {
        "table": config.table,
        "title": f"{config.paper.title} ({config.paper.section})",
        "rows": rows,
        "data": outcomes,
        "differs": model_differences(config.model),
    }
    about = {"model_hash": judged.hash, "encoder": config.encoder}
    where = config.out or config.model
    assert where is not None
    plain = {**content, "data": [to_values(one) for one in outcomes], **about}
    path = write_result(where, f"reproduce-{config.table}", plain)
    return ReproduceResult(path=path, **content)


def opened(config: ReproduceConfig) -> Judged:
    """What is judged, with the hash of its weights.

    Raises:
        CheckpointError, ConfigError: there is no such model.
    """
    one = open_encoder(config.model, config.encoder, config.device)
    return Judged(
        model=config.model,
        encoder=config.encoder,
        hash=one.hash,
        out=config.folder,
        device=config.device,
    )


def run_of(
    data: TaskData, judged: Judged, recipe: Recipe, table: int
) -> tuple[TaskRun | None, str]:
    """The task, and what became of it; an error leaves the other data sets to be run."""
    if data.found is None:
        return None, f"not there: {data.reason}"
    try:
        return run_task(data, judged, recipe, table=table), "done"
    except VattError as error:
        logger.warning("%s: %s", data.task.dataset, error)
        return None, f"failed: {error}"


def values_of(data: TaskData, run: TaskRun | None, key: str) -> dict[str, float | None]:
    """Column → our number, in the units of the paper; None where there is none."""
    numbers = {} if run is None else run.rows.get(key, {})
    return {
        column: numbers[measure] * (100 if measure in SHARES else 1) if measure in numbers else None
        for column, measure in zip(data.task.columns, data.task.measures.values(), strict=True)
    }


def outcome_of(data: TaskData, run: TaskRun | None, state: str) -> TaskOutcome:
    """What became of a data set."""
    scratch = " from scratch" if data.scratch else ""
    differs = data.differences()
    if run is not None:
        differs += run.differs
        pool, n = data.task.pool, run.n_evaluated
        if pool is not None and abs(n - pool) > 0.02 * pool:
            differs.append(
                f"pool: {n:,} {data.task.units}, in the paper about {pool:,}: a recall falls as "
                "its pool grows"
            )
    return TaskOutcome(
        dataset=f"{data.task.dataset}{scratch}",
        state=state,
        units=data.task.units,
        n_evaluated=0 if run is None else run.n_evaluated,
        n_expected=0 if run is None else run.n_expected,
        differs=list(dict.fromkeys(differs)),
        notes=data.task.said,
    )


def ours_of(config: ReproduceConfig) -> dict[str, str]:
    """Our rows: name → which of a task's."""
    who = OURS if config.encoder is None else config.encoder
    if config.paper.classifiers:
        return {f"{who} + {one.upper()}": one for one in config.paper.classifiers}
    if config.encoder is not None and config.paper.tasks[0].kind == "finetune":
        return {f"{who}, frozen + {one.upper()}": one for one in FROZEN}
    return {who: ""}


def model_differences(run: Path | None) -> list[str]:
    """What of the model and its pre-training is not the paper's, each a sentence."""
    if run is None:
        return []
    settings, *_ = read_settings(model_folder(run))
    said = []
    if isinstance(settings, ModelConfig):
        for name in ("video", "audio", "text"):
            size = getattr(settings, name).transformer
            if replace(size, dropout=BASE.dropout) not in SIZES.values():
                of = f"{size.layers} layers × {size.width}"
                said.append(f"model: the {name} backbone has {of}, which is none of Table 1")
    path = run / CONFIG_FILE
    given = flatten(read_toml(path)) if path.is_file() else {}
    for key, paper in PRETRAINING.items():
        if key in given and given[key] != paper:
            said.append(f"pre-training: {key} = {given[key]:,}, in the paper {paper:,}")
    return said


def read_recipe(path: Path | None) -> Recipe:
    """The tables of a recipe file.

    Raises:
        ConfigError: it cannot be read, or has another table.
    """
    tables = {} if path is None else read_toml(path)
    known = ("finetune", "evaluate", "linear-eval", "zero-shot")
    for name, settings in tables.items():
        if name not in known or not isinstance(settings, dict):
            raise ConfigError(f"{path}: found {name!r}, expected tables {', '.join(known)}")
    return tables


def plan(
    config: ReproduceConfig, judged: Judged, found: Sequence[TaskData], recipe: Recipe
) -> ReproducePlan:
    """What is needed, and the commands; nothing is made."""
    needs = {}
    for data in found:
        flops = None if data.found is None else task_flops(data, judged, recipe)
        name = " ".join((data.task.dataset, *(["from scratch"] if data.scratch else [])))
        needs[name] = needs_of(data, flops, config.tflops)
    return ReproducePlan(
        table=config.table,
        title=config.paper.title,
        needs=needs,
        missing={one.task.dataset: one.reason for one in found if one.found is None},
        commands=[line for one in found if one.found for line in commands(one, judged, recipe)],
        basis=[*BASIS, f"hours: at {config.tflops:g} TFLOP/s (--tflops)"],
    )
