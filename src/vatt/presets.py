"""The paper as data, and what fits a laptop: named settings for `vatt pretrain --preset NAME`.

A preset says only what differs from the defaults, which are the paper's pre-training (§4.3). A
bundle then sets all options in which paper and official code differ to one side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from vatt.config import from_values, to_values
from vatt.contracts import ClipSpec
from vatt.data.augment import AugmentConfig
from vatt.errors import ConfigError
from vatt.losses import LossConfig
from vatt.models.heads import HeadsConfig
from vatt.models.model_config import AudioConfig, ModelConfig, TextConfig, VideoConfig
from vatt.models.spectrogram import SpectrogramConfig
from vatt.models.transformer import BASE, LARGE, MEDIUM, SMALL, TransformerConfig
from vatt.models.variants import as_official, as_paper
from vatt.models.weights import read_settings
from vatt.training.optim import OptimConfig

Values = dict[str, Any]


def _specific(video: TransformerConfig) -> ModelConfig:
    """Backbones of their own: Base for audio, Small for text (§4.3 Network setup)."""
    return ModelConfig(
        video=VideoConfig(transformer=video),
        audio=AudioConfig(transformer=BASE),
        text=TextConfig(transformer=SMALL),
    )


def bbs() -> Values:
    """VATT-BBS: Base, Base, Small (§4.3)."""
    return {"model": to_values(_specific(BASE))}


def mbs() -> Values:
    """VATT-MBS: Medium, Base, Small (§4.3)."""
    return {"model": to_values(_specific(MEDIUM))}


def lbs() -> Values:
    """VATT-LBS: Large, Base, Small (§4.3)."""
    return {"model": to_values(_specific(LARGE))}


def ma_medium() -> Values:
    """VATT-MA-Medium: one Medium backbone for the three modalities (§4.3)."""
    return {"model": to_values(_agnostic(_specific(MEDIUM)))}


def _agnostic(model: ModelConfig) -> ModelConfig:
    backbone = model.video.transformer
    return replace(
        model,
        shared=True,
        audio=replace(model.audio, transformer=backbone),
        text=replace(model.text, transformer=backbone),
    )


DEMO_BACKBONE = TransformerConfig(layers=4, width=192, heads=4, mlp_width=768, dropout=0.0)

DEMO_MODEL = ModelConfig(
    video=VideoConfig(transformer=DEMO_BACKBONE, buckets=(4, 3, 4)),
    # 256 samples (23 ms): better than 128 in the same time, which is a third more steps.
    audio=AudioConfig(transformer=DEMO_BACKBONE, patch=256, buckets=79),
    text=TextConfig(transformer=replace(DEMO_BACKBONE, layers=2), vocabulary=1024),
    heads=HeadsConfig(va=256, vt=128),
)

DEMO_RATE_HZ = 11_025


def demo() -> Values:
    """Some five minutes on two CPU cores: a small network for small frames."""
    return {
        "clip": to_values(
            ClipSpec(frames=16, fps=8.75, height=48, width=64, sample_rate_hz=DEMO_RATE_HZ, texts=3)
        ),
        "data": {
            "batch_size": 128,
            "decode": "rgb",
            "decode_size": [48, 64],
            "cache": "disk",
            "workers": 0,
        },
        # Actions differ by left and right, and small frames are needed whole: no flip, no crop.
        "augment": to_values(
            AugmentConfig(
                crop_area=(1.0, 1.0),
                flip=False,
                saturation=0.0,
                hue=0.0,
                gain=0.5,
                audio_noise=0.0,
            )
        ),
        "model": to_values(DEMO_MODEL),
        "standardise": "measured",  # its frames are dark
        "loss": to_values(LossConfig(form="official")),
        "optim": to_values(
            OptimConfig(
                learning_rate=1e-3,
                final_learning_rate=0.0,
                schedule="half_cosine",
                warmup_steps=38,
                beta2=0.98,
                clip_norm=1.0,
            )
        ),
        "train": {"steps": 480, "save_every": 120, "keep": 1, "log_every": 10},
    }


def demo_shared() -> Values:
    """The demo with one backbone for the three modalities."""
    return demo() | {"model": to_values(_agnostic(DEMO_MODEL))}


def demo_spectrogram() -> Values:
    """The demo with a spectrogram of 64 bands instead of the waveform."""
    spectrogram = SpectrogramConfig(
        window_s=256.5 / DEMO_RATE_HZ,
        step_s=128.5 / DEMO_RATE_HZ,
        bands=64,
        highest_hz=5500.0,
        patch=(8, 16),
        buckets=(20, 4),
    )
    audio = replace(
        DEMO_MODEL.audio,
        kind="spectrogram",
        sample_rate_hz=DEMO_RATE_HZ,
        spectrogram=spectrogram,
    )
    return demo() | {"model": to_values(replace(DEMO_MODEL, audio=audio))}


def tiny() -> Values:
    """Seconds on anything: tests and first steps, no results to speak of."""
    backbone = TransformerConfig(layers=1, width=32, heads=2, mlp_width=64)
    model = ModelConfig(
        video=VideoConfig(transformer=backbone, patch=(2, 8, 8), buckets=(2, 3, 4)),
        audio=AudioConfig(transformer=backbone, buckets=32),
        text=TextConfig(transformer=backbone, vocabulary=256),
        heads=HeadsConfig(va=16, vt=16),
    )
    return {
        "clip": to_values(
            ClipSpec(frames=4, fps=5.0, height=24, width=32, sample_rate_hz=4000, texts=2, words=8)
        ),
        "data": {"batch_size": 4, "decode": "rgb", "decode_size": [24, 32]},
        "model": to_values(model),
        "optim": {"learning_rate": 1e-3, "warmup_steps": 2, "clip_norm": 1.0},
        "train": {"steps": 12, "save_every": 4, "log_every": 1},
    }


PRESETS: dict[str, Callable[[], Values]] = {
    "bbs": bbs,
    "mbs": mbs,
    "lbs": lbs,
    "ma-medium": ma_medium,
    "demo": demo,
    "demo-shared": demo_shared,
    "demo-spectrogram": demo_spectrogram,
    "tiny": tiny,
}


def starting_values(preset: str | None, bundle_name: str | None) -> list[tuple[str, Values]]:
    """What `--preset` and `--bundle` ask for: a name for messages, and the values.

    Args:
        preset: a name of `PRESETS`, or a folder with a model.
        bundle_name: one of `BUNDLES`; its values are laid over those of the preset.

    Raises:
        ConfigError: there is no preset or bundle of that name.
    """
    found: list[tuple[str, Values]] = []
    if preset in PRESETS:
        found.append((f"preset {preset}", PRESETS[preset]()))
    elif preset is not None and (Path(preset) / "config.json").is_file():
        found.append((f"preset {preset}", of_folder(Path(preset))))
    elif preset is not None:
        raise ConfigError(
            f"--preset: found {preset!r}; expected a model folder (with config.json), or one of: "
            f"{', '.join(PRESETS)}"
        )
    if bundle_name is not None:
        if bundle_name not in BUNDLES:
            raise ConfigError(f"--bundle: found {bundle_name!r}; expected paper or official")
        so_far = found[0][1] if found else {}
        found.append((f"bundle {bundle_name}", bundle(bundle_name, so_far)))
    return found


def of_folder(folder: Path) -> Values:
    """Model, clip and weights of a run, a checkpoint or a converted model, to train on from.

    Raises:
        CheckpointError: there is no model in the folder.
        ConfigError: it is a classifier.
    """
    settings, clip, _ = read_settings(folder)
    if not isinstance(settings, ModelConfig):
        raise ConfigError(
            f"--preset {folder}: is a classifier, expected a model with both common spaces"
        )
    return {"model": to_values(settings), "clip": to_values(clip), "start_from": str(folder)}


PAPER: Values = {
    "loss": {
        "form": "paper",
        "total": "sum",
        "mask_normaliser": "global",
        "duplicates": "negatives",
    },
    "optim": {
        "warmup_steps": 10_000,
        "schedule": "quarter_cosine",
        "epsilon_form": "hat",
        "decay_form": "scaled",
    },
    "data": {
        "frame_step": "time",
        "few_captions": "mask",
        "positives": "nearest",
        "max_caption_gap_s": "none",
        "unknown_words": 0.0,
    },
    "augment": {
        "crop_style": "area",
        "antialias": True,
        "colour_probability": 0.8,
        "audio_noise": 0.01,
    },
    "standardise": "unit",
}
OFFICIAL: Values = {
    "loss": {
        "form": "official",
        "total": "mean",
        "mask_normaliser": "local",
        "duplicates": "negatives",
    },
    "optim": {
        "warmup_steps": 5000,
        "schedule": "half_cosine",
        "epsilon_form": "hat",
        "decay_form": "plain",
    },
    "data": {
        "frame_step": "stride",
        "few_captions": "repeat",
        "positives": "nearest",
        "max_caption_gap_s": "none",
        "unknown_words": 0.0,
    },
    "augment": {
        "crop_style": "smaller_side",
        "antialias": False,
        "colour_probability": 0.8,
        "audio_noise": 0.01,
    },
    "standardise": "unit",
}


def bundle(name: str, values: Values) -> Values:
    """One side of every difference between paper and official code (docs/paper-vs-code.md).

    Args:
        name: "paper" or "official".
        values: settings so far; those of the model say which differences there are.
    """
    form, rest = BUNDLES[name]
    model = from_values(ModelConfig, values.get("model", {}), where="model")
    return {"model": to_values(form(model))} | rest


BUNDLES = {"paper": (as_paper, PAPER), "official": (as_official, OFFICIAL)}
