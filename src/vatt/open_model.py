"""Any model by its path: a run or model folder, exported files, or a name on a hub.

What is imported depends on what is opened: exported files need no PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from vatt.devices import AutocastSetting
from vatt.errors import ConfigError
from vatt.export.onnx_encoder import is_onnx, open_onnx, open_onnx_classifier

if TYPE_CHECKING:
    import os

    import torch

    from vatt.encoder import ClipClassifier, Encoder


def load(
    path: str | os.PathLike[str],
    device: str | torch.device | None = None,
    *,
    autocast: AutocastSetting | None = None,
) -> Encoder:
    """Load a model: a pre-trained one, or the classifier that is there instead.

    Its type is what a pre-trained model has; of a classifier it is that of `load_classifier`.

    Args:
        path: a run folder, a model folder, a folder or file of `vatt export` (the result is then an
            `OnnxEncoder`, which has the same three methods and gives NumPy arrays), or a name on a
            hub, `hf://owner/name@revision`.
        device: where to compute; a CUDA device when there is one, else the CPU.
        autocast: "off" computes in float32, "bfloat16" as far as it is exact enough, "auto" where
            the device is faster so; as in training if not given. Exported files have numbers of
            their own.

    Raises:
        CheckpointError: there is no model, it is damaged, or of a newer format.
        MissingExtraError: opening it needs an extra.
    """
    if is_onnx(path):
        _no_autocast(autocast)
        return cast("Encoder", open_onnx(path, _name(device)))
    from vatt import encoder
    from vatt.models.classifier import ClassifierConfig
    from vatt.models.weights import read_settings

    folder = encoder.model_folder(path)
    if isinstance(read_settings(folder)[0], ClassifierConfig):
        return cast("Encoder", encoder.load_classifier(folder, device, autocast=autocast))
    return encoder.load(folder, device, autocast=autocast)


def load_classifier(
    path: str | os.PathLike[str],
    device: str | torch.device | None = None,
    *,
    autocast: AutocastSetting | None = None,
) -> ClipClassifier:
    """Load a classifier; the arguments are those of `load`.

    Raises:
        CheckpointError: there is no model, it is no classifier, damaged, or of a newer format.
        MissingExtraError: opening it needs an extra.
    """
    if is_onnx(path):
        _no_autocast(autocast)
        return cast("ClipClassifier", open_onnx_classifier(path, _name(device)))
    from vatt import encoder

    return encoder.load_classifier(path, device, autocast=autocast)


def _name(device: str | torch.device | None) -> str | None:
    return None if device is None else str(device)


def _no_autocast(autocast: AutocastSetting | None) -> None:
    if autocast not in (None, "off"):
        raise ConfigError(
            f"autocast: found {autocast!r}, but an exported model computes in the numbers it was "
            "exported in; leave it out"
        )
