from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.small import SHARED_MODEL, SMALL_MODEL, SPECTROGRAM_MODEL, some_inputs
from vatt.contracts import ClipSpec
from vatt.errors import CheckpointError, ConfigError
from vatt.models.classifier import Classifier, ClassifierConfig, restore
from vatt.models.variants import as_official
from vatt.models.vatt import Vatt
from vatt.models.weights import load_model, read_settings, save_model

CLIP = ClipSpec(frames=4, fps=8.75, height=12, width=16, sample_rate_hz=800, texts=3, words=6)
MODELS = [SMALL_MODEL, SPECTROGRAM_MODEL, SHARED_MODEL, as_official(SHARED_MODEL)]


def signals() -> dict[Any, Tensor]:
    inputs = some_inputs()
    return {"video": inputs.frames, "audio": inputs.audio}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("modality", ["video", "audio"])
def test_restored_classifier_has_the_features_of_the_pretrained_model(model, modality):
    pretrained = Vatt(model)
    classifier = Classifier(ClassifierConfig(modality=modality, classes=5, model=model))
    before = classifier.linear.weight.clone()
    restore(classifier, pretrained)
    assert torch.equal(classifier.linear.weight, before)
    signal, draw = signals()[modality], some_inputs().draw
    for dropping in (None, draw):
        expected = getattr(pretrained, f"{modality}_features")(signal, dropping)
        assert torch.equal(classifier.features(signal, dropping), expected)


@pytest.mark.parametrize("model", [SMALL_MODEL, SPECTROGRAM_MODEL])
def test_with_a_peak_loudness_says_nothing(model):
    config = ClassifierConfig(modality="audio", classes=5, model=model)
    as_it_is = Classifier(config)
    scaled = Classifier(replace(config, model=replace(model, audio=replace(model.audio, peak=0.5))))
    scaled.load_state_dict(as_it_is.state_dict())
    waveforms = signals()["audio"]
    at_peak = 0.5 * waveforms / waveforms.abs().amax(1, keepdim=True)
    expected = as_it_is.features(at_peak)
    assert torch.allclose(scaled.features(waveforms / 64), expected, atol=1e-5)  # rounding
    assert scaled.features(torch.zeros_like(waveforms)).isfinite().all()
    with pytest.raises(ConfigError, match=r"model\.audio\.peak: found 0"):
        replace(model.audio, peak=0.0)


def test_restored_positions_are_those_that_the_pretrained_model_resamples_itself():
    larger = replace(SMALL_MODEL, video=replace(SMALL_MODEL.video, buckets=(4, 6, 5)))
    pretrained = Vatt(SMALL_MODEL)
    classifier = Classifier(ClassifierConfig(modality="video", classes=5, model=larger))
    restore(classifier, pretrained)
    frames = torch.rand(2, 8, 24, 20, 3)  # a grid of 4 × 6 × 5
    assert torch.allclose(
        classifier.features(frames), pretrained.video_features(frames), atol=1e-5
    )  # the same tables, resampled once or at every call


def test_a_backbone_of_another_size_is_refused_by_name():
    transformer = replace(SMALL_MODEL.video.transformer, mlp_width=40)
    other = replace(SMALL_MODEL, video=replace(SMALL_MODEL.video, transformer=transformer))
    classifier = Classifier(ClassifierConfig(modality="video", classes=5, model=other))
    with pytest.raises(ConfigError, match=r"backbones\.video\.layers\.0\.mlp_in\.weight: found"):
        restore(classifier, Vatt(SMALL_MODEL))


def test_classifiers_start_as_the_official_ones():
    """Section 4.2: all classes of a sound begin at the probability 1 / classes."""
    torch.manual_seed(0)
    audio = Classifier(ClassifierConfig(modality="audio", classes=400, model=SMALL_MODEL))
    assert torch.allclose(audio.linear.bias.sigmoid(), torch.full((400,), 1 / 400))
    limit = (6 / (24 + 400)) ** 0.5
    assert 0.99 * limit < float(audio.linear.weight.detach().abs().max()) <= limit
    video = Classifier(ClassifierConfig(modality="video", classes=400, model=SMALL_MODEL))
    std = (2 / (24 + 400)) ** 0.5
    weight = video.linear.weight.detach()
    assert float(weight.std()) == pytest.approx(std, rel=0.03)
    assert float(weight.abs().max()) <= 2 * std / 0.8796
    assert not video.linear.bias.any()


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_saved_classifier_gives_the_same_logits(tmp_path, modality):
    config = ClassifierConfig(modality=modality, classes=5, dropout=0.3, model=MODELS[3])
    classifier = Classifier(config).eval()
    save_model(tmp_path, classifier, CLIP, {"labels": "abcde"})
    assert read_settings(tmp_path) == (config, CLIP, {"labels": "abcde"})
    loaded, clip = load_model(Classifier, tmp_path)
    assert clip == CLIP
    with torch.no_grad():
        signal = signals()[modality]
        assert torch.equal(loaded(signal), classifier(signal))
    with pytest.raises(
        CheckpointError, match=r"is a classifier of \w+, expected a model with both"
    ):
        load_model(Vatt, tmp_path)


@pytest.mark.parametrize("wrong", [{"classes": 1}, {"classes": 5, "dropout": 1.0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=r"classifier\."):
        ClassifierConfig(**wrong)
