"""The paper as data, and what fits a laptop: named settings for `--preset NAME`.

A preset says only what differs from the defaults, which are the paper's pre-training (§4.3). A
bundle then sets all options in which paper and official code differ to one side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from vatt.config import from_values, merge, to_values
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


def finetune_video() -> Values:
    """Action recognition (§4.3 Video fine-tuning setup); evaluation: 4 clips × 3 crops."""
    return {
        "kind": "video",
        "source": {"fps": 25.0, "short_side": 320},  # "sampled at 25 fps", crops of 320 × 320
        "clip": {"frames": 32, "fps": 12.5, "height": 320, "width": 320},  # every 2nd frame: 2.56 s
        "data": {"batch_size": 64},
        # "similar video augmentation during pre-training": the defaults, but no noise, no audio.
        "model": {"drop_token": 0.0},  # "we do not drop any tokens"
        "targets": {"labels": "one", "smoothing": 0.1},
        "optim": _sgd(learning_rate=0.005, warmup_steps=2500),
        "train": {"steps": 100_000, "save_every": 5000},  # official: every 5,000 steps
        "eval_every": 5000,
    }


def finetune_audio() -> Values:
    """Audio event classification (§4.3 Audio fine-tuning setup)."""
    return {
        "kind": "audio",
        # 6.4 s at 24 kHz: 153,600 samples. Of the video one frame is read, and not used.
        "clip": {"frames": 1, "fps": 1 / 6.4, "sample_rate_hz": 24_000},
        "source": {"fps": 1.0, "short_side": 32},
        "data": {"batch_size": 1024},
        "augment": {"audio_noise": 0.0},  # official: none in fine-tuning
        "model": {"drop_token": 0.0},
        "targets": {"labels": "several", "smoothing": 0.0, "mixup": 5.0},  # Beta(5, 5)
        "optim": _sgd(learning_rate=0.2, warmup_steps=5000),
        "train": {"steps": 50_000, "save_every": 5000},
        "eval_every": 5000,
    }


def finetune_image() -> Values:
    """Image classification (§4.3 Image fine-tuning setup, §4.4.3)."""
    return {
        "kind": "image",
        "source": {"short_side": 384},
        "clip": {"height": 384, "width": 384},  # frames: the image, 4 times, for one patch in time
        "data": {"batch_size": 512},
        "model": {"drop_token": 0.0},
        "targets": {"labels": "one", "smoothing": 0.1},
        # "cosine learning rate decay": half-period as for video, without warm-up; no weight decay.
        "optim": _sgd(learning_rate=8e-2, warmup_steps=0),
        "epochs": 50.0,
        "eval_every": 5000,
    }


def _sgd(*, learning_rate: float, warmup_steps: int) -> Values:
    return to_values(
        OptimConfig(
            name="momentum",
            momentum=0.9,
            learning_rate=learning_rate,
            final_learning_rate=0.0,  # "to anneal the learning rate to 0"
            schedule="half_cosine",
            warmup_steps=warmup_steps,
        )
    )


def _finetune_small(kind: str) -> Values:
    """Minutes on two CPU cores with a model of the demo's size; ours, not the paper's."""
    adam = OptimConfig(
        learning_rate=5e-4,
        final_learning_rate=0.0,
        schedule="half_cosine",
        warmup_steps=20,
        beta2=0.98,
        weight_decay=0.05,
        clip_norm=1.0,
    )
    augmentation = AugmentConfig(
        crop_area=(0.6, 1.0),
        crop_aspect=(0.8, 1.25),
        flip=False,  # classes may differ by left and right
        saturation=0.2,
        contrast=0.2,
        hue=0.05,
    )
    return {
        "kind": kind,
        # Audio and images are small: they are decoded once.
        "data": {"batch_size": 32, "workers": 0, "cache": "none" if kind == "video" else "disk"},
        "augment": to_values(augmentation),
        "targets": {"labels": "one", "smoothing": 0.1},
        "optim": to_values(adam),
        "train": {"steps": 300, "save_every": 100, "keep": 1, "log_every": 10},
        "eval_every": 50,
        "keep": "best",
    }


def finetune_small_audio() -> Values:
    """What gave the most in validation on kits of drums (benchmarks/downstream.py audio)."""
    changes: Values = {
        "clip": {"short_audio": "silence"},
        "model": {"audio_peak": 0.5, "linear_first": 0.03, "drop_token": 0.5},
    }
    return merge(_finetune_small("audio"), changes)


def finetune_demo() -> Values:
    """The demo's actions, from its own model: small frames, decoded once and needed whole."""
    changes = {
        "label": "action",
        "data": {"batch_size": 64, "decode": "rgb", "decode_size": [48, 64], "cache": "disk"},
        "augment": demo()["augment"],
        "train": {"steps": 250},
    }
    return merge(_finetune_small("video"), changes)


def finetune_few_video() -> Values:
    """Of `--few` labels a class; ours, chosen on the demo's validation maps (docs/finetune.md)."""
    augmentation = AugmentConfig(
        crop_area=(1.0, 1.0), flip=False, saturation=0.0, contrast=0.4, hue=0.0
    )
    few: Values = {
        "augment": to_values(augmentation),
        "model": {"linear_first": 0.05, "drop_token": 0.5},
        "train": {"steps": 200},
    }
    return merge(_finetune_small("video"), few)


FINETUNE_PRESETS: dict[str, Callable[[], Values]] = {
    "finetune-video": finetune_video,
    "finetune-audio": finetune_audio,
    "finetune-image": finetune_image,
    "finetune-demo": finetune_demo,
    "finetune-few-video": finetune_few_video,
    "finetune-small-video": partial(_finetune_small, "video"),
    "finetune-small-audio": finetune_small_audio,
    "finetune-small-image": partial(_finetune_small, "image"),
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


def starting_values(
    preset: str | None,
    bundle_name: str | None,
    table: Mapping[str, Callable[[], Values]] = PRESETS,
) -> list[tuple[str, Values]]:
    """What `--preset` and `--bundle` ask for: a name for messages, and the values.

    Args:
        preset: a name in the table, or, of pre-training, a folder with a model.
        bundle_name: one of `BUNDLES`; its values are laid over those of the preset.
        table: the presets of the command.

    Raises:
        ConfigError: there is no preset or bundle of that name.
    """
    found: list[tuple[str, Values]] = []
    folders = table is PRESETS
    if preset is not None and preset in table:
        found.append((f"preset {preset}", table[preset]()))
    elif preset is not None and folders and (Path(preset) / "config.json").is_file():
        found.append((f"preset {preset}", of_folder(Path(preset))))
    elif preset is not None:
        expected = "a model folder (with config.json), or one of" if folders else "one of"
        raise ConfigError(f"--preset: found {preset!r}; expected {expected}: {', '.join(table)}")
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
