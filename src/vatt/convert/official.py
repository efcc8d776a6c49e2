"""What an official checkpoint holds: its kind, its sizes, and the place of every variable."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from vatt.contracts import ClipSpec
from vatt.convert import names
from vatt.convert.bundle import Bundle
from vatt.convert.sizes import Kind, Variables
from vatt.errors import ConfigError
from vatt.models.official import as_official
from vatt.models.settings import ModelConfig
from vatt.models.vatt import Vatt

_NOT_WEIGHTS = re.compile(r"/\.OPTIMIZER_SLOT/|^optimizer/|^save_counter$|^_CHECKPOINTABLE_")


@dataclass(frozen=True, slots=True)
class Plan:
    """How to make a model of a checkpoint.

    kind: what it is; model, clip: its settings; shapes: of our tensors, by name; names: official
    variables that make each of them; skipped: variables that are no weights.
    """

    kind: Kind
    model: ModelConfig
    clip: ClipSpec
    shapes: Mapping[str, tuple[int, ...]]
    names: Mapping[str, tuple[str, ...]]
    skipped: tuple[str, ...]


def plan(bundle: Bundle, head_widths: Mapping[str, int] | None = None) -> Plan:
    """Recognise a checkpoint and find the place of every variable.

    Args:
        bundle: the checkpoint.
        head_widths: width of an attention head in the "video", "audio" and "text" backbone, which
            the variables do not tell; 64 where nothing is said.

    Raises:
        ConversionError: it is nothing known, or a variable is missing, unknown or misshapen.
    """
    skipped = tuple(name for name in bundle.entries if _NOT_WEIGHTS.search(name))
    found = Variables(bundle, frozenset(skipped), head_widths or {})
    kind = found.kind()
    try:
        model = found.agnostic() if kind == "modality-agnostic" else found.specific()
        model, clip = as_published(model), _clip(model)
        with torch.device("meta"):  # no memory: shapes alone
            tensors = Vatt(model).state_dict()
    except ConfigError as error:
        raise found.error(f"its sizes make no model: {error}") from error
    theirs = _names(model, kind)
    assert theirs.keys() == tensors.keys(), sorted(theirs.keys() ^ tensors.keys())
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    found.check(theirs, shapes)
    return Plan(kind, model, clip, shapes, theirs, skipped)


def tensor(bundle: Bundle, sources: tuple[str, ...]) -> NDArray[np.float32]:
    """One of our tensors, made of official variables.

    Raises:
        ConversionError: the data is damaged.
    """
    parts = [names.oriented(name, bundle.read(name)) for name in sources]
    return np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts))


def as_published(model: ModelConfig) -> ModelConfig:
    """The official form of a model, with the sizes of words and post projection it came with."""
    official = as_official(model)
    return replace(
        official,
        text=replace(official.text, word_width=model.text.word_width),
        post_projection=model.post_projection,
    )


def _names(model: ModelConfig, kind: Kind) -> names.Names:
    if kind == "modality-agnostic":
        return names.agnostic(layers=model.video.transformer.layers)
    layers = {
        "video": model.video.transformer.layers,
        "audio": model.audio.transformer.layers,
        "text": model.text.transformer.layers,
    }
    return names.specific(layers=layers, spectrogram=kind == "modality-specific, spectrogram")


def _clip(model: ModelConfig) -> ClipSpec:
    """The clip that fills the position tables; rates are the paper's, no variable tells them."""
    (t, h, w), (frames, height, width) = model.video.patch, model.video.buckets
    return ClipSpec(
        frames=frames * t,
        height=height * h,
        width=width * w,
        words=model.text.buckets,
    )
