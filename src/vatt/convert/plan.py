"""What becomes of every variable of an official checkpoint: kind, sizes and names together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vatt.contracts import ClipSpec
from vatt.convert import names
from vatt.convert.sizes import Kind, Variables
from vatt.convert.tensor_bundle import Bundle
from vatt.errors import ConfigError
from vatt.models.classifier import ClassifierConfig
from vatt.models.variants import as_official
from vatt.models.weights import Settings, build_empty

_NOT_WEIGHTS = re.compile(r"/\.OPTIMIZER_SLOT/|^optimizer/|^save_counter$|^_CHECKPOINTABLE_")
PRETRAINING_HZ, FINE_TUNING_HZ = 48_000, 24_000  # §4.3
FINE_TUNING_FPS = 12.5  # every second of 25 (§4.3)


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    """How to make a model of a checkpoint.

    settings, clip: of the model.
    shapes: of our tensors, by name.
    trained: names of our tensors that training changes.
    names: official variables that make each of our tensors.
    skipped: variables that are no weights.
    unknown: variables that make none of our tensors.
    missing: variables that our tensors need and the checkpoint lacks.
    """

    kind: Kind
    settings: Settings
    clip: ClipSpec
    shapes: Mapping[str, tuple[int, ...]]
    trained: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]]
    skipped: tuple[str, ...]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def problem(self) -> str | None:
        """Why no model can be made, with every unknown or missing variable; None if one can."""
        found = {"missing": self.missing, "unknown": self.unknown}
        said = [f"{len(v)} variables are {what}: {', '.join(v)}" for what, v in found.items() if v]
        return "; ".join(said) or None


def plan(bundle: Bundle, head_widths: Mapping[str, int] | None = None) -> ConversionPlan:
    """Recognise a checkpoint and find what becomes of every variable.

    Args:
        bundle: the checkpoint.
        head_widths: width of an attention head in the "video", "audio" and "text" backbone, which
            the variables do not show; 64 if not given.

    Raises:
        ConversionError: it is nothing known, or a variable that tells a size is missing, or one
            is misshapen.
    """
    skipped = tuple(name for name in bundle.entries if _NOT_WEIGHTS.search(name))
    found = Variables(bundle, frozenset(skipped), head_widths or {})
    kind = found.kind()
    try:
        settings: Settings
        if kind.endswith("classifier"):
            classifier = found.classifier()
            settings = replace(classifier, model=as_official(classifier.model))
        else:
            sizes = found.agnostic() if kind == "modality-agnostic" else found.specific()
            settings = as_official(sizes)
        clip = _clip(settings)
        model = build_empty(settings)
    except ConfigError as error:
        raise found.error(f"its sizes make no model: {error}") from error
    theirs, tensors = _names(settings), model.state_dict()
    assert theirs.keys() == tensors.keys(), sorted(theirs.keys() ^ tensors.keys())
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    found.check_shapes(theirs, shapes)
    used = {source for sources in theirs.values() for source in sources}
    return ConversionPlan(
        kind=kind,
        settings=settings,
        clip=clip,
        shapes=shapes,
        trained=tuple(name for name, w in model.named_parameters() if w.requires_grad),
        names=theirs,
        skipped=skipped,
        unknown=tuple(sorted(found.entries.keys() - used)),
        missing=tuple(sorted(used - found.entries.keys())),
    )


def tensor(bundle: Bundle, sources: Sequence[str], *, slot: str = "") -> NDArray[np.float32]:
    """One of our tensors, made of official variables, or of their optimiser slots of that name.

    Raises:
        ConversionError: the data is damaged, or there is no such slot.
    """
    after = names.SLOT + slot if slot else ""
    parts = [names.oriented(name, bundle.read(name + after)) for name in sources]
    return np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts))


def _names(settings: Settings) -> names.Names:
    if isinstance(settings, ClassifierConfig):
        model = settings.model
        signal = model.video if settings.modality == "video" else model.audio
        return names.classifier(
            kind="video" if settings.modality == "video" else model.audio.kind,
            layers=signal.transformer.layers,
            pre_projection=model.pre_projection,
            post_projection=model.post_projection is not None,
        )
    if settings.shared:
        return names.agnostic(layers=settings.video.transformer.layers)
    layers = {
        "video": settings.video.transformer.layers,
        "audio": settings.audio.transformer.layers,
        "text": settings.text.transformer.layers,
    }
    return names.specific(layers=layers, spectrogram=settings.audio.kind == "spectrogram")


def _clip(settings: Settings) -> ClipSpec:
    """The clip that fills the position tables; rates are the paper's: no variable shows them."""
    model = settings.model if isinstance(settings, ClassifierConfig) else settings
    (t, h, w), (frames, height, width) = model.video.patch, model.video.buckets
    clip = ClipSpec(
        frames=frames * t,
        height=height * h,
        width=width * w,
        sample_rate_hz=PRETRAINING_HZ,
        words=model.text.buckets,
    )
    if not isinstance(settings, ClassifierConfig):
        return clip
    if settings.modality == "video":
        return replace(clip, fps=FINE_TUNING_FPS)
    if model.audio.kind == "waveform":
        rate, samples = FINE_TUNING_HZ, model.audio.buckets * model.audio.patch
        return replace(clip, sample_rate_hz=rate, fps=clip.frames * rate / samples)
    sizes = model.audio.spectrogram
    seconds = sizes.buckets[0] * sizes.patch[0] * sizes.step_s
    return replace(clip, fps=clip.frames / seconds)
