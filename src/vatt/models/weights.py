"""A trained model on disk: a folder that loads alone.

`model.safetensors` holds the weights, `config.json` all that is needed to use them: the model's
settings, what a clip is, and what the caller adds. Text needs `tokenizer.json` too, which the
caller puts beside them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vatt.config import from_values, to_values
from vatt.contracts import ClipSpec
from vatt.errors import CheckpointError
from vatt.models.heads import SumOverRanks, alone
from vatt.models.settings import ModelConfig
from vatt.models.vatt import Vatt

FORMAT_VERSION = "1.0"
WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save_model(
    folder: Path,
    model: Vatt,
    model_config: ModelConfig,
    clip: ClipSpec,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a model into an existing folder.

    Args:
        folder: where to; a caller who needs all or nothing writes aside and renames.
        model: weights and batch norm statistics.
        model_config: what `model` was built from.
        clip: what it was trained on.
        extra: JSON values to keep beside them, e.g. the step.
    """
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    save_settings(folder, model_config, clip, extra)


def save_settings(
    folder: Path,
    model_config: ModelConfig,
    clip: ClipSpec,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write config.json alone; the arguments are those of `save_model`."""
    values = {
        "format_version": FORMAT_VERSION,
        "model": to_values(model_config),
        "clip": to_values(clip),
        "extra": dict(extra or {}),
    }
    text = json.dumps(values, indent=2, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def load_model(
    folder: Path, device: torch.device | str = "cpu", *, sum_over_ranks: SumOverRanks = alone
) -> tuple[Vatt, ModelConfig, ClipSpec, dict[str, Any]]:
    """Read a model in evaluation mode, its settings, what a clip is, and the writer's extras.

    Raises:
        CheckpointError: a file is missing, damaged, of a newer format, or does not fit the other.
    """
    config, clip, extra = read_settings(folder)
    model = Vatt(config, sum_over_ranks=sum_over_ranks)
    tensors = _read_weights(folder / WEIGHTS)
    _check_same_tensors(tensors, model.state_dict(), folder / WEIGHTS)
    model.load_state_dict(tensors)
    return model.to(device).eval(), config, clip, extra


def read_settings(folder: Path) -> tuple[ModelConfig, ClipSpec, dict[str, Any]]:
    """What `load_model` says of a model beside its weights, which are not read.

    Raises:
        CheckpointError: config.json is missing, damaged or of a newer format.
    """
    values = _read_config(folder / CONFIG)
    where = str(folder / CONFIG)
    config = from_values(ModelConfig, values["model"], where=f"{where}: model")
    clip = from_values(ClipSpec, values["clip"], where=f"{where}: clip")
    return config, clip, dict(values.get("extra", {}))


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: not found; expected a model folder with {CONFIG} and {WEIGHTS}, "
            "such as the model/ folder of a run"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    if not isinstance(values, dict) or not {"format_version", "model", "clip"} <= values.keys():
        raise CheckpointError(
            f"{path}: is not the settings file of a vatt model; expected the keys format_version, "
            "model and clip"
        )
    version = str(values["format_version"])
    if version.split(".")[0] != FORMAT_VERSION.split(".")[0]:
        raise CheckpointError(
            f"{path}: found format version {version}, expected {FORMAT_VERSION}; "
            "load it with the version of vatt that wrote it"
        )
    return values


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}; copy it again") from error


def _check_same_tensors(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path
) -> None:
    missing = sorted(expected.keys() - found.keys())
    unknown = sorted(found.keys() - expected.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{path}: does not hold the tensors that {CONFIG} describes: {len(missing)} missing "
            f"{missing[:3]}, {len(unknown)} unknown {unknown[:3]}; do the files belong together?"
        )
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            raise CheckpointError(
                f"{path}: {name}: found shape {tuple(found[name].shape)}, expected "
                f"{tuple(tensor.shape)} from {CONFIG}; do the files belong together?"
            )
