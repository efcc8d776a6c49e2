"""`vatt demo`: every step on recorded clips, from an empty folder to a report, in minutes.

record → prepare → pretrain → zero-shot → linear-eval → finetune → evaluate → report → embed: the
commands a user would type. A stage that is done is not done again: the same command continues an
interrupted demo.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sysconfig
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from vatt.config import from_values, merge, to_values
from vatt.devices import num_cpus
from vatt.errors import ConfigError, DataError
from vatt.evaluation.classifiers import LowRankConfig
from vatt.evaluation.results import read_result, versions
from vatt.library.index_place import IndexPlace
from vatt.presets import FINETUNE_PRESETS, PRESETS, Values
from vatt.storage import write_atomically
from vatt.tasks import embed, evaluate, finetune, linear_eval, prepare, pretrain, report, zero_shot
from vatt_demo import recorder

logger = logging.getLogger(__name__)

EVALUATION = ("zero-shot", "linear-eval", "evaluate", "report")
FINETUNED = "finetuned"  # in the run folder: the run of the fine-tuned classifier
LIBRARY = "library.index"  # in the run folder: the index of the test recordings
WINDOW_EVERY_S = 1.8  # about a clip (1.83 s): half as many windows as usual, in half the time
STAGES = "stages.json"  # in the run folder: the demo's settings and what is done
SETUP_SECONDS = "VATT_SETUP_SECONDS"  # what `make` took to set up


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """How much is recorded and trained.

    hours, val_hours, test_hours: to record for each split. training: share of the preset's steps;
    finetuning: the same of fine-tuning, in proportion to the labels. classifier_steps: of the
    low-rank classifier; the paper takes 50,000 (§4.3).
    """

    hours: float
    val_hours: float
    test_hours: float
    training: float
    finetuning: float
    classifier_steps: int


LENGTHS = {
    "quick": Length(
        hours=0.1, val_hours=0.05, test_hours=0.1,
        training=0.05, finetuning=0.04, classifier_steps=200,
    ),
    "normal": Length(
        hours=2.5, val_hours=0.25, test_hours=1.0,
        training=1.0, finetuning=1.0, classifier_steps=2000,
    ),
    "long": Length(
        hours=7.5, val_hours=0.25, test_hours=1.0,
        training=5.0, finetuning=3.0, classifier_steps=2000,
    ),
}  # fmt: skip


TITLE = "vatt demo: what a small network learned from watching, listening and reading along"
NOTES = (
    "The clips are rendered play: ViZDoom walking through the free maps of Freedoom. Nothing here "
    "was measured on videos from a camera.",
    "Most captions are our sentences about the simulator's state (what the player does, holds and "
    "sees); about one in five is a message of the game. So the action is weakly supervised by "
    "text: the sentences name it. The ceiling of text retrieval is what someone would reach who "
    "knows that state exactly, for several clips fit the same sentence.",
    "Maps for training, choosing and testing are different maps of one world, with the same "
    "textures, monsters and sounds. This tests new places, not a new world.",
    "The same few sounds repeat exactly. With all labels even a network that has learned nothing "
    "tells them apart well; that is why the table shows ten labels of each class.",
    "Sound says nothing about walking and turning: there are no footsteps.",
    "Fine-tuning uses every label of the training maps. With so many the same network gets as far "
    "from scratch within twice the steps: the number says more about fine-tuning than about what "
    "was learned before.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """Record clips, prepare them, pre-train on them, and show what was learned.

    The clips are a simulated player walking through the maps of a free game, with sound and timed
    captions; maps for training, for choosing and for testing are different ones.
    """

    out: Path = Path("runs/demo")
    """Run folder; clips/ and shards/ in it hold the recordings."""
    length: Literal["quick", "normal", "long"] = "normal"
    """quick: two minutes, to see that it works; normal: eleven; long: three times the training
    videos, five times the steps."""
    preset: str = "demo"
    """Preset of `vatt pretrain`: demo, demo-shared (one backbone for all), demo-spectrogram."""
    clips: Path | None = None
    """Recordings to use or to continue, e.g. those of another demo; OUT/clips when left out."""
    hours: float | None = None
    """Hours of play to record for training; as `length` says when left out."""
    steps: int | None = None
    """Training steps; as `length` says when left out."""
    seed: int = 0
    workers: int = 0
    """Processes that record and prepare; 0 is one for each core."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ConfigError(f"workers: found {self.workers}, expected >= 0")
        if self.preset not in PRESETS:
            raise ConfigError(f"preset: found {self.preset!r}; expected one of {list(PRESETS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """One measure on the test maps, beside what no learning gives and what nothing can beat."""

    measure: str
    chance: float
    random_init: float | None
    this_run: float
    ceiling: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What was learned and where to read on.

    search_page: the command that opens a page to search the test recordings with, and to watch
        what is found; none where there is no index of them.
    """

    on_the_test_maps: list[Headline]
    seconds: dict[str, float]
    result: Path
    report: Path
    search_page: str | None


@dataclass(frozen=True, slots=True)
class Stage:
    """One command and its settings."""

    name: str
    config: Any
    run: Callable[[Any], Any]


def run(config: DemoConfig) -> DemoResult:
    """Run what is not done yet, then sum up.

    Raises:
        VattError: whatever stopped a stage; the same command continues there.
    """
    done = _claim(config)
    todo = stages(config)
    for number, stage in enumerate(todo, start=1):
        title = f"{number}/{len(todo)} {stage.name}"
        if stage.name in done:
            logger.info("%s: done before", title)
            continue
        logger.info("%s", title)
        started = time.perf_counter()
        result = stage.run(stage.config)
        if problem := getattr(result, "problem", None):
            raise DataError(f"{stage.name}: {problem}")
        done[stage.name] = round(time.perf_counter() - started, 1)
        logger.info("%s: done in %.0f s", title, done[stage.name])
        _write_json(config.out / STAGES, {"settings": _settings(config), "done": done})
    if not _can_index():
        logger.warning(
            "the test recordings are not indexed for search: that needs "
            'pip install "vatt[search,serve]"; the same command then does it'
        )
    seconds = total_seconds(done)
    path = config.out / "result.json"
    summary = summarise(config, seconds)
    _write_json(path, summary)
    index = config.out / LIBRARY
    return DemoResult(
        on_the_test_maps=headlines(summary),
        seconds=seconds,
        result=path,
        report=config.out / "report.html",
        search_page=f"{_our_command()} serve {index}" if summary["library"] else None,
    )


def stages(config: DemoConfig) -> list[Stage]:
    """The commands in their order, each with its settings.

    The index of the test recordings is left out where LanceDB is not installed.
    """
    length = LENGTHS[config.length]
    workers = config.workers or num_cpus()
    clips = config.clips or config.out / "clips"
    shards = config.out / "shards"
    record = recorder.RecordConfig(
        out=clips,
        hours=length.hours if config.hours is None else config.hours,
        val_hours=length.val_hours,
        test_hours=length.test_hours,
        seed=config.seed,
        workers=workers,
    )
    to_shards = prepare.PrepareConfig(
        src=(clips,),
        out=shards,
        manifest=clips / "labels.csv",
        fps="source",
        copy=True,
        workers=workers,
    )
    linear = linear_eval.LinearEvalConfig(
        run=config.out, low_rank=LowRankConfig(steps=length.classifier_steps)
    )
    classifier = config.out / FINETUNED
    page = report.ReportConfig(run=config.out, classifiers=(classifier,), title=TITLE, notes=NOTES)
    library = embed.EmbedConfig(
        library=(clips / "test",),
        model=config.out,
        out=str(config.out / LIBRARY),
        every=WINDOW_EVERY_S,
        workers=workers,
    )
    todo = [
        Stage("record", record, recorder.run),
        Stage("prepare", to_shards, prepare.run),
        Stage("pretrain", pretrain_config(config, shards), pretrain.run),
        Stage(
            "zero-shot",
            zero_shot.ZeroShotConfig(run=config.out, prompts=clips / "prompts.json"),
            zero_shot.run,
        ),
        Stage("linear-eval", linear, linear_eval.run),
        Stage("finetune", finetune_config(config, shards), finetune.run),
        Stage(  # on the clips that the linear classifiers are tested on
            "evaluate", evaluate.EvaluateConfig(run=classifier, clips=1, crops=1), evaluate.run
        ),
        Stage("report", page, report.run),
    ]
    return [*todo, Stage("embed", library, embed.run)] if _can_index() else todo


def pretrain_config(config: DemoConfig, shards: Path) -> pretrain.PretrainConfig:
    """The preset for this many steps."""
    values = shortened(
        PRESETS[config.preset](), LENGTHS[config.length].training, steps=config.steps
    )
    changes = {
        "out": str(config.out),
        "seed": config.seed,
        "data": {"shards": [str(shards)]},
    }
    where = f"preset {config.preset}"
    return from_values(pretrain.PretrainConfig, merge(values, changes), where=where)


def finetune_config(config: DemoConfig, shards: Path) -> finetune.FinetuneConfig:
    """A classifier of actions, from the model that was pre-trained."""
    preset = "finetune-demo"
    changes = {
        "out": str(config.out / FINETUNED),
        "start_from": str(config.out),
        "label": "action",
        "seed": config.seed,
        "data": {"shards": [str(shards)]},
    }
    values = shortened(FINETUNE_PRESETS[preset](), LENGTHS[config.length].finetuning)
    return from_values(finetune.FinetuneConfig, merge(values, changes), where=f"preset {preset}")


def shortened(values: Values, share: float, *, steps: int | None = None) -> Values:
    """A preset for a share of its steps, or for so many; warm-up keeps its share of them."""
    usual = values["train"]["steps"]
    steps = steps or max(1, round(usual * share))
    warmup = round(values["optim"]["warmup_steps"] * steps / usual)
    return merge(values, {"optim": {"warmup_steps": warmup}, "train": {"steps": steps}})


def total_seconds(stage_seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each part of the demo, set-up included, as long as it took when it was done."""
    seconds = {
        "setup": float(os.environ.get(SETUP_SECONDS, 0)),
        **{name: stage_seconds[name] for name in ("record", "prepare", "pretrain", "finetune")},
        "evaluate": round(sum(stage_seconds[name] for name in EVALUATION), 1),
        **{name: stage_seconds[name] for name in ("embed",) if name in stage_seconds},
    }
    return seconds | {"total": round(sum(seconds.values()), 1)}


def summarise(config: DemoConfig, seconds: Mapping[str, float]) -> dict[str, Any]:
    """What result.json holds: the measures, what took how long, and what it was made with."""

    def measures(task: str) -> dict[str, Any]:
        return {
            name: value
            for name, value in (read_result(config.out, task) or {}).items()
            if isinstance(value, Mapping) and name not in ("versions", "left_out")
        }

    return {
        "zero_shot": measures("zero-shot"),
        "linear_eval": measures("linear-eval"),
        "finetune": finetuned(config),
        "library": indexed(config, seconds),
        "seconds": dict(seconds),
        "seed": config.seed,
        "preset": config.preset,
        "length": config.length,
        "versions": versions(),
    }


def finetuned(config: DemoConfig) -> dict[str, Any]:
    """What fine-tuning reached, beside the linear classifier on frozen features; both balanced."""
    judged = read_result(config.out / FINETUNED, "evaluate")
    probe = (read_result(config.out, "linear-eval") or {}).get("video_action")
    if judged is None or probe is None:
        return {}
    return {
        "video_action": {
            "pretrained": mean(judged["measures"]["per_class"].values()),
            "probe": probe["pretrained"]["svm"],
            "chance": probe["chance"],
            "n": judged["n_evaluated"],
            "n_expected": judged["n_expected"],
            "classes": judged["classes"],
        }
    }


def indexed(config: DemoConfig, seconds: Mapping[str, float]) -> dict[str, Any]:
    """What the index of the test recordings holds, empty where there is none."""
    manifest = IndexPlace(config.out / LIBRARY).manifest()
    if manifest is None or "embed" not in seconds:
        return {}
    return {"files": manifest.files, "windows": manifest.windows, "seconds": seconds["embed"]}


def headlines(summary: Mapping[str, Any]) -> list[Headline]:
    """The rows to look at first; measures that could not be taken are left out."""
    zero_shot, linear = summary["zero_shot"], summary["linear_eval"]
    tuned = summary["finetune"]
    rows = []
    for way in ("text_to_video", "audio_to_video"):
        if found := zero_shot.get(way):
            rows += [
                Headline(
                    measure=f"{way.replace('_to_', ' → ')}: {unit}",
                    chance=found[f"chance_{number}"],
                    random_init=found[f"random_init_{number}"],
                    this_run=found[number],
                    ceiling=found.get(f"ceiling_{number}"),
                )
                for number, unit in (("R@10", "R@10, per cent"), ("MedR", "median rank"))
            ]
    for found, title in (
        (linear.get("video_action"), "action, linear on frozen video features"),
        (tuned.get("video_action"), "action, all of the video backbone fine-tuned"),
        (zero_shot.get("action_from_text"), "action, zero-shot from text"),
        (linear.get("sound_event_10"), "sound event, 10 labels per class"),
    ):
        if found:
            trained, untrained = found["pretrained"], found.get("random_init")
            if isinstance(trained, Mapping):  # several classifiers: the linear SVM is the headline
                trained, untrained = trained["svm"], untrained["svm"]
            rows.append(
                Headline(
                    measure=title,
                    chance=found["chance"],
                    random_init=untrained,
                    this_run=trained,
                )
            )
    return rows


def _can_index() -> bool:
    return find_spec("lancedb") is not None


def _our_command() -> str:
    """How this vatt is called from here: by its name where that finds it, else by its path."""
    ours = Path(sysconfig.get_path("scripts")) / "vatt"
    if not ours.exists() or shutil.which("vatt") == str(ours):
        return "vatt"
    here = Path.cwd()
    return str(ours.relative_to(here) if ours.is_relative_to(here) else ours)


def _claim(config: DemoConfig) -> dict[str, float]:
    """The stages already done in the folder, and the seconds each took.

    Raises:
        ConfigError: it holds a demo of other settings.
    """
    config.out.mkdir(parents=True, exist_ok=True)
    path = config.out / STAGES
    if not path.exists():
        _write_json(path, {"settings": _settings(config), "done": {}})
    found = json.loads(path.read_text(encoding="utf-8"))
    mine = _settings(config)
    for name, theirs in found["settings"].items():
        if mine[name] != theirs:
            raise ConfigError(
                f"{config.out}: holds a demo with {name} = {theirs!r}, this one has "
                f"{mine[name]!r}; choose another folder with --out (--clips "
                f"{config.out / 'clips'} uses its recordings), or remove this one"
            )
    done: dict[str, float] = found["done"]
    return done


def _settings(config: DemoConfig) -> dict[str, Any]:
    """What the results depend on."""
    return {
        name: value for name, value in to_values(config).items() if name not in ("out", "workers")
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=1, allow_nan=False))
