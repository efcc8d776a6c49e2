"""`vatt info`: parameters, tokens, FLOPs and memory of a model; the paper's counts beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from vatt.contracts import ClipSpec
from vatt.costs.flops import (
    HEADS,
    Blueprint,
    Flops,
    blueprint,
    count_parameters,
    count_tokens,
    flops_by_torch,
    forward_flops,
    parts_of,
    run_twice,
)
from vatt.costs.memory import BYTES, TrainingMemory, training_memory
from vatt.costs.paper_tables import PaperRow, paper_rows
from vatt.encoder import model_folder
from vatt.errors import ConfigError
from vatt.losses import SCORES_AT_ONCE
from vatt.models.model_config import ModelConfig
from vatt.models.weights import Settings, read_settings

TITLES = {
    1: ("Table 1: million parameters", 1),
    2: ("Table 2: TFLOPs of 12 views of 32 × 320 × 320", 2),
    13: ("Table 13: GFLOPs by DropToken rate, Medium-Base-Small", 1),
    14: ("Table 14: GFLOPs by DropToken rate, Medium", 1),
}  # and how many decimals the paper prints
GIGA = 1e9
NO_VOCABULARY = (
    "missing (no tokenizer.json beside config.json): word ids can be encoded, strings cannot; "
    "put the vocabulary there that the model was trained with"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoConfig:
    """Say what a model costs, without building its weights.

    The model of a folder, or else of the settings below (`--preset mbs`).
    """

    run: Positional[Path | None] = None
    """Run folder or model folder; left out: the settings below."""
    paper_tables: bool = False
    """Tables 1, 2, 13 and 14 of the paper beside our counts, instead of a model."""
    batch_size: int = 8
    """Clips on one device, for the memory of training; the paper has 2,048 on 256 devices."""
    micro_batch: int | None = None
    """Clips whose intermediate values are in memory at once (`train.micro_batch`); "none": all."""
    micro_batches: tuple[int, ...] = ()
    """Also a table of a training step of `batch_size` clips in micro-batches of each of these."""
    tflops_per_s: float = 400.0
    """At which the time in that table is counted; 400 is 0.4 of the peak of an H100 in bfloat16."""
    clip: ClipSpec = field(default_factory=ClipSpec)
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size: found {self.batch_size}, expected >= 1")
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ConfigError(f"micro_batch: found {self.micro_batch}, expected >= 1")
        if min(self.micro_batches, default=1) < 1 or not self.tflops_per_s > 0:
            raise ConfigError("micro_batches, tflops_per_s: found one that is not > 0")
        of_settings = (self.clip, self.model) != (ClipSpec(), ModelConfig())
        if (self.run is not None) + self.paper_tables + of_settings > 1:
            raise ConfigError(
                "vatt info: found more than one of a folder, --paper_tables and settings of a "
                "model (or a preset); give one"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoResult:
    """A model in numbers; operations are of one forward pass of one clip.

    parts: name → parameters, those trained, GFLOPs and those in training.
    modalities: name → tokens of one input and GFLOPs, also in training, where tokens are dropped;
        gflops_by_torch: as torch's FlopCounterMode counts them, matrix products alone.
    memory: gigabytes that training takes on one device.
    steps: by micro-batch, gigabytes and time of a training step; all of it counted, not measured.
    vocabulary: where the folder's is, or that it is missing; None without a folder.
    """

    folder: Path | None
    vocabulary: str | None
    parts: Mapping[str, Mapping[str, float]]
    modalities: Mapping[str, Mapping[str, float]]
    memory: Mapping[str, float]
    steps: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def shown(self) -> dict[str, Any]:
        """For people: rounded, with thousands separated."""
        given = {"folder": self.folder, "vocabulary": self.vocabulary}
        groups = {"parts": self.parts, "modalities": self.modalities}
        tables: dict[str, Any] = {
            title: {
                name: {key: _rounded(value) for key, value in row.items()}
                for name, row in rows.items()
            }
            for title, rows in groups.items()
        }
        if self.steps:
            tables["training step by micro-batch, counted"] = {
                name: {key: _rounded(value) for key, value in row.items()}
                for name, row in self.steps.items()
            }
        tables["memory of training"] = {key: _rounded(v) for key, v in self.memory.items()}
        return {key: value for key, value in given.items() if value is not None} | tables


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperTables:
    """The paper's counts and ours."""

    rows: list[PaperRow]

    def shown(self) -> dict[str, Any]:
        """For people: a table for each of the paper's, in its decimals, with the difference."""
        tables: dict[str, list[dict[str, str]]] = {}
        for row in self.rows:
            title, decimals = TITLES[row.table]
            tables.setdefault(title, []).append(
                {
                    "": row.row,
                    " ": row.column,
                    "paper": f"{row.paper:.{decimals}f}",
                    "ours, as paper": f"{row.ours:.{decimals}f}",
                    "ours, fully": f"{row.ours_full:.{decimals}f}",
                    "difference": f"{row.ours / row.paper - 1:+.2%}",
                }
            )
        return tables


def run(config: InfoConfig) -> InfoResult | PaperTables:
    """Count a model's parameters, tokens, operations and memory, or those of the paper's tables.

    Raises:
        CheckpointError: there is no model in the folder.
    """
    if config.paper_tables:
        return PaperTables(rows=paper_rows())
    folder, vocabulary = None, None
    model: Settings = config.model
    clip = config.clip
    if config.run is not None:
        folder = model_folder(config.run)
        model, clip, _ = read_settings(folder)
        if isinstance(model, ModelConfig):
            words = folder / "tokenizer.json"
            vocabulary = str(words) if words.is_file() else NO_VOCABULARY
    plan = blueprint(model)
    flops = [forward_flops(plan, clip, training=training) for training in (False, True)]
    memory = training_memory(plan, clip)
    at_once = min(config.batch_size, config.micro_batch or config.batch_size)
    return InfoResult(
        folder=folder,
        vocabulary=vocabulary,
        parts=_parts(plan, *flops),
        modalities=_modalities(plan, clip, *flops),
        memory={
            "weights_gb": memory.weights / GIGA,
            "gradients_gb": memory.gradients / GIGA,
            "adam_gb": memory.optimiser / GIGA,
            "activations_of_a_clip_gb": memory.activations / GIGA,
            "attention_weights_of_a_clip_gb": memory.attention / GIGA,
            "batch_size": config.batch_size,
            "micro_batch": at_once,
            "total_gb": memory.total(at_once) / GIGA,
        },
        steps=_steps(config, plan, clip, memory),
    )


def _steps(
    config: InfoConfig, plan: Blueprint, clip: ClipSpec, memory: TrainingMemory
) -> dict[str, dict[str, float]]:
    """A step: a backward pass costs two forward passes; some clips' forward passes run twice."""
    training = forward_flops(plan, clip, training=True).values()
    forward = sum(_gflops(by_part.values()) for by_part in training) * config.batch_size / 1e6
    scores = config.batch_size**2 * max(1, clip.texts) * BYTES
    loss = min(scores, SCORES_AT_ONCE * BYTES) / GIGA
    rows = {}
    for size in config.micro_batches:
        passes = 3 + run_twice(config.batch_size, size) / config.batch_size
        activations = min(size, config.batch_size) * memory.activations / GIGA
        rows[f"{size} clips"] = {
            "weights_gradients_adam_gb": memory.total(0) / GIGA,
            "activations_gb": activations,
            "loss_gb": loss,
            "total_gb": memory.total(0) / GIGA + activations + loss,
            "pflop": passes * forward,
            "seconds": passes * forward * 1e3 / config.tflops_per_s,
        }
    return rows


Counted = Mapping[str, Mapping[str, Flops]]


def _parts(plan: Blueprint, evaluation: Counted, training: Counted) -> dict[str, dict[str, float]]:
    modules = parts_of(plan.model)
    rows: dict[str, dict[str, float]] = {}
    for name, module in modules.items():
        parameters = count_parameters(module)
        rows[name] = {
            "parameters": parameters.all,
            "trainable": parameters.trainable,
            "gflops": _gflops(by_part.get(name) for by_part in evaluation.values()),
            "gflops_in_training": _gflops(by_part.get(name) for by_part in training.values()),
        }
    together = count_parameters(*modules.values())
    total = {key: sum(row[key] for row in rows.values()) for key in rows[HEADS]}
    rows["total"] = total | {"parameters": together.all, "trainable": together.trainable}
    return rows


def _modalities(
    plan: Blueprint, clip: ClipSpec, evaluation: Counted, training: Counted
) -> dict[str, dict[str, float]]:
    tokens = count_tokens(plan, clip, training=False)
    kept = count_tokens(plan, clip, training=True)
    by_torch = flops_by_torch(plan, clip)
    return {
        modality: {
            "tokens": tokens[modality],
            "tokens_in_training": kept[modality],
            "inputs_of_a_clip": clip.texts if modality == "text" else 1,
            "gflops": _gflops(evaluation[modality].values()),
            "gflops_in_training": _gflops(training[modality].values()),
            "gflops_by_torch": by_torch[modality] / GIGA,
        }
        for modality in tokens
    }


def _gflops(counts: Any) -> float:
    return float(sum(count.full for count in counts if count is not None) / GIGA)


def _rounded(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.3f}" if value >= 1 else f"{value:.3g}"
