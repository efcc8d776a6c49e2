"""Official models of the recordings, converted by `vatt convert` and opened again."""

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

import vatt
from tests.parity.recordings import FOLDER, arrays
from vatt.contracts import Inputs
from vatt.convert.names import oriented
from vatt.convert.plan import ConversionPlan, plan
from vatt.convert.tensor_bundle import Bundle
from vatt.encoder import ClipClassifier, Encoder
from vatt.models.classifier import Classifier, ClassifierConfig
from vatt.models.model_config import ModelConfig
from vatt.models.vatt import Vatt
from vatt.models.weights import Settings, build
from vatt.tasks.convert import ConvertConfig, head_widths, run

PRETRAINED = {
    "tx_fac": "video=16,audio=16,text=12",
    "ut_fac": "16",
    "tx_fac_spectrogram": "video=16,audio=12,text=8",
}
CLASSIFIERS = {
    "finetune_video": "16",
    "finetune_audio": "16",
    "finetune_audio_spectrogram": "12",
    "finetune_video_from_agnostic": "16",
    "finetune_audio_from_agnostic": "16",
}
HEAD_WIDTHS = PRETRAINED | CLASSIFIERS


def having(file: str, names: Iterable[str]) -> list[str]:
    """Those of the models that have a recorded file; the reduced recordings have not all."""
    return [name for name in names if (FOLDER / name / file).is_file()]


def has_checkpoint(name: str, step: int) -> bool:
    return (FOLDER / name / f"ckpt-{step}.index").is_file()


_kept = tempfile.TemporaryDirectory(prefix="vatt-parity-")  # until the process ends


@cache
def folder(name: str, step: int = 0) -> Path:
    out = Path(_kept.name) / f"{name}-{step}"
    run(ConvertConfig(prefix=FOLDER / name / f"ckpt-{step}", out=out, head_width=HEAD_WIDTHS[name]))
    return out


@cache
def encoder(name: str, step: int = 0) -> Encoder:
    return vatt.load(folder(name, step), "cpu")


@cache
def classifier(name: str, step: int = 0) -> ClipClassifier:
    return vatt.load_classifier(folder(name, step), "cpu")


def found_plan(name: str) -> ConversionPlan:
    return plan(Bundle(FOLDER / name / "ckpt-0"), head_widths(HEAD_WIDTHS[name]))


def without_dropout(settings: Settings) -> Settings:
    """As the recordings were made."""
    if isinstance(settings, ClassifierConfig):
        model = without_dropout(settings.model)
        assert isinstance(model, ModelConfig)
        return replace(settings, dropout=0.0, model=model)

    def silent(part):
        return replace(part, transformer=replace(part.transformer, dropout=0.0))

    return replace(
        settings,
        video=silent(settings.video),
        audio=silent(settings.audio),
        text=silent(settings.text),
    )


def trainable(name: str, step: int = 0) -> Vatt:
    """A fresh copy in training mode, without dropout."""
    copy = build(without_dropout(encoder(name, step).module.config))
    copy.load_state_dict(encoder(name, step).module.state_dict())
    assert isinstance(copy, Vatt)
    return copy.train()


def trainable_classifier(name: str, step: int = 0) -> Classifier:
    copy = build(without_dropout(classifier(name, step).module.config))
    copy.load_state_dict(classifier(name, step).module.state_dict())
    assert isinstance(copy, Classifier)
    return copy.train()


def sounds(recorded: dict[str, Tensor]) -> Tensor:
    """Waveforms [B, S] or spectrograms [B, F, M] (with a leading axis of steps in trajectories)."""
    key = "in/audio" if "in/audio" in recorded else "in/audio_mel"
    return recorded[key][..., 0]


def batch(name: str, step: int = 0, draw: Tensor | None = None) -> Inputs:
    """The batch of one step of the recorded training."""
    recorded = arrays(f"{name}/train_trajectory.npz")
    words = recorded["in/text"][step].long()
    has_text = recorded["in/text_mask"][step] > 0
    return Inputs(
        recorded["in/vision"][step],
        sounds(recorded)[step],
        recorded["in/audio_mask"][step] > 0,
        words,
        has_text[:, None].expand(words.shape[:2]),
        draw,
    )


def joined(values: dict[str, Tensor], sources: tuple[str, ...]) -> Tensor | None:
    """Official arrays by variable as one tensor of ours; None when none of them is there."""
    if not any(source in values for source in sources):
        return None
    parts = [torch.from_numpy(oriented(name, values[name].numpy()).copy()) for name in sources]
    return torch.cat(parts) if len(parts) > 1 else parts[0]
