"""A trained model on disk: a folder that loads alone.

`model.safetensors` holds the weights, `config.json` all that is needed to use them: the settings of
the model or classifier, what a clip is, how frames come to it, and what the caller adds. Text needs
`tokenizer.json` too, which the caller puts beside them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vatt.config import flatten, from_values, to_values
from vatt.contracts import ClipSpec, FramePath
from vatt.errors import CheckpointError
from vatt.models.classifier import Classifier, ClassifierConfig
from vatt.models.model_config import ModelConfig
from vatt.models.vatt import Vatt
from vatt.storage import refuse_newer
from vatt.tensor_files import read_tensors

logger = logging.getLogger(__name__)

FORMAT_VERSION = "1.3"  # 1.1: classifiers; 1.2: the frame path; 1.3: learned temperatures
WEIGHTS, CONFIG = "model.safetensors", "config.json"

Settings = ModelConfig | ClassifierConfig
ModelT = TypeVar("ModelT", Vatt, Classifier)
KINDS: Mapping[str, type[Settings]] = {"model": ModelConfig, "classifier": ClassifierConfig}


def build(settings: Settings) -> Vatt | Classifier:
    """An untrained model of these settings, for one process."""
    return Classifier(settings) if isinstance(settings, ClassifierConfig) else Vatt(settings)


def build_empty(settings: Settings) -> Vatt | Classifier:
    """As `build`, on the meta device: tensors have shapes, and no numbers or memory."""
    with torch.device("meta"), _Undrawn():
        return build(settings)


class _Undrawn(TorchFunctionMode):
    """Draws no numbers: torch would first import seconds' worth of code to draw none of them."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Pass on every call but those that fill a tensor at random."""
        kwargs = kwargs or {}
        if func.__name__ in ("kaiming_uniform_", "uniform_", "normal_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def save_model(
    folder: Path,
    model: Vatt | Classifier,
    clip: ClipSpec,
    extra: Mapping[str, Any] | None = None,
    *,
    frame_path: FramePath | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a model into an existing folder.

    Args:
        folder: where to; a caller who needs all or nothing writes aside and renames.
        model: weights and batch norm statistics, and the settings it was built from.
        clip: what it was trained on.
        extra: JSON values to keep beside them, e.g. the step.
        frame_path: how frames came to it in training; left out where nobody knows.
        weights: its tensors, where they are not whole in the model.
    """
    found = model.state_dict() if weights is None else weights
    tensors = {name: value.contiguous() for name, value in found.items()}
    save_file(tensors, folder / WEIGHTS)
    save_settings(folder, model.config, clip, extra, frame_path=frame_path)


def save_settings(
    folder: Path,
    settings: Settings,
    clip: ClipSpec,
    extra: Mapping[str, Any] | None = None,
    *,
    frame_path: FramePath | None = None,
) -> None:
    """Write config.json alone; the arguments are those of `save_model`."""
    kind = next(key for key, cls in KINDS.items() if isinstance(settings, cls))
    values = {
        "format_version": FORMAT_VERSION,
        "model_type": "vatt" if kind == "model" else "vatt-classifier",  # for transformers
        kind: to_values(settings),
        "clip": to_values(clip),
        **({"frame_path": to_values(frame_path)} if frame_path else {}),
        "extra": dict(extra or {}),
    }
    text = json.dumps(values, indent=2, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def load_model(
    kind: type[ModelT], folder: Path, device: torch.device | str = "cpu"
) -> tuple[ModelT, ClipSpec]:
    """Read a pre-trained model (`Vatt`) or a `Classifier`, in evaluation mode, and what a clip is.

    Raises:
        CheckpointError: a file is missing, damaged, of a newer format, or does not fit the other;
            the model is not of this kind.
    """
    settings, clip, _ = read_settings(folder)
    model = build(settings)
    if not isinstance(model, kind):
        found, advice = "a pre-trained model, expected a classifier", "open it with vatt.load"
        if isinstance(model, Classifier):
            found = (
                f"a classifier of {model.config.modality}, expected a model with both common spaces"
            )
            advice = "open it with vatt.load_classifier"
        raise CheckpointError(f"{folder}: is {found}; {advice}")
    load_weights(model, folder)
    return model.to(device).eval(), clip


def load_weights(model: Vatt | Classifier, folder: Path) -> None:
    """Fill a model with the weights in a model folder.

    Settings that change no size, such as dropout, may differ from those that the weights were
    trained with; each that does is a warning in the log.

    Raises:
        CheckpointError: the weights are missing, damaged, or of a model of other sizes.
    """
    path, expected = folder / WEIGHTS, model.state_dict()
    before, now = flatten(to_values(read_settings(folder)[0])), flatten(to_values(model.config))
    try:
        found = read_tensors(folder, path.stem)
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}; copy it again") from error
    missing = sorted(expected.keys() - found.keys())
    unknown = sorted(found.keys() - expected.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{path}: does not hold the tensors that the model's settings describe: "
            f"{len(missing)} missing {missing[:3]}, {len(unknown)} unknown {unknown[:3]}; do they "
            "belong together?"
        )
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            raise CheckpointError(
                f"{path}: {name}: found shape {tuple(found[name].shape)}, expected "
                f"{tuple(tensor.shape)} from the model's settings; do they belong together?"
            )
    model.load_state_dict(found)
    for key in sorted(before.keys() & now.keys()):
        if before[key] != now[key]:
            logger.warning("%s: model.%s was %r, is %r", folder, key, before[key], now[key])


def read_settings(folder: Path) -> tuple[Settings, ClipSpec, dict[str, Any]]:
    """Settings of a model, what a clip is, and the writer's extras; weights are not read.

    Raises:
        CheckpointError: config.json is missing, damaged or of a newer format.
    """
    values = _read_config(folder / CONFIG)
    where = str(folder / CONFIG)
    kind = next(key for key in KINDS if key in values)
    settings = from_values(KINDS[kind], values[kind], where=f"{where}: {kind}")
    clip = from_values(ClipSpec, values["clip"], where=f"{where}: clip")
    return settings, clip, dict(values.get("extra", {}))


def read_frame_path(folder: Path) -> FramePath | None:
    """How frames came to a model in training; None where the folder is of an older version.

    Raises:
        CheckpointError: as `read_settings`.
    """
    path = folder / CONFIG
    values = _read_config(path).get("frame_path")
    return values and from_values(FramePath, values, where=f"{path}: frame_path")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        known = isinstance(values, dict) and {"format_version", "clip"} <= values.keys()
        if not known or not KINDS.keys() & values.keys():
            raise CheckpointError(
                f"{path}: is not the settings file of a vatt model; expected the keys "
                "format_version, clip, and model or classifier"
            )
        refuse_newer(path, values["format_version"], FORMAT_VERSION, CheckpointError)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: not found; expected a model folder with {CONFIG} and {WEIGHTS}, "
            "such as the model/ folder of a run"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    return dict(values)
