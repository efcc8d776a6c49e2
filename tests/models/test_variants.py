"""The official code's form has exactly as many weights as the official code."""

from dataclasses import replace

import pytest
from torch import nn

from vatt.models.model_config import AudioConfig, ModelConfig, TextConfig, VideoConfig
from vatt.models.spectrogram import SpectrogramConfig
from vatt.models.transformer import BASE, LARGE, MEDIUM, TransformerConfig
from vatt.models.variants import as_official
from vatt.models.vatt import Vatt
from vatt.models.weights import build_empty


def build(config: ModelConfig) -> Vatt:
    model = build_empty(as_official(config))
    assert isinstance(model, Vatt)
    return model


def count(*modules: nn.Module | None) -> int:
    """Weights, and the running statistics that the official code counts among them."""
    present = [module for module in modules if module is not None]
    weights = sum(p.numel() for module in present for p in module.parameters())
    running = [name_value for module in present for name_value in module.named_buffers()]
    return weights + sum(value.numel() for name, value in running if "running" in name)


def trained(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("size", "expected"), [(BASE, 87_446_016), (MEDIUM, 154_343_424), (LARGE, 305_498_112)]
)
def test_video_backbones(size: TransformerConfig, expected: int):
    model = build(ModelConfig(video=VideoConfig(transformer=size)))
    assert count(model.video_tokens, model.backbone("video")) == expected


@pytest.mark.parametrize(
    ("size", "expected"), [(BASE, 86_078_976), (MEDIUM, 152_520_704), (LARGE, 303_675_392)]
)
def test_waveform_backbones(size: TransformerConfig, expected: int):
    model = build(ModelConfig(audio=AudioConfig(transformer=size)))
    assert count(model.audio_tokens, model.backbone("audio")) == expected


@pytest.mark.parametrize(("size", "expected"), [(BASE, 85_056_768), (MEDIUM, 151_157_760)])
def test_spectrogram_backbones(size: TransformerConfig, expected: int):
    spectrogram = SpectrogramConfig(buckets=(9, 16))
    audio = AudioConfig(kind="spectrogram", transformer=size, spectrogram=spectrogram)
    model = build(ModelConfig(audio=audio))
    assert count(model.audio_tokens, model.backbone("audio")) == expected


def test_text_backbone_and_medium_base_small():
    model = build(ModelConfig())
    text = count(model.text_tokens, model.relative_bias, model.backbone("text"))
    assert text == 38_699_052
    assert count(model) == 280_569_132
    assert trained(model) == 260_905_772


def test_modality_agnostic_medium():
    model = build(
        ModelConfig(
            shared=True,
            audio=AudioConfig(transformer=MEDIUM),
            text=TextConfig(transformer=MEDIUM),
        )
    )
    assert count(model) == 182_653_696
    assert trained(model) == 162_990_336


def test_official_form_of_the_official_form_is_itself():
    once = as_official(replace(ModelConfig(), drop_token=0.25))
    assert as_official(once) == once
    assert once.drop_token == 0.25
