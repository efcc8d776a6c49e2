import json
from dataclasses import replace

import pytest
import torch

from tests.models.small import SHARED_MODEL, SMALL_MODEL, some_inputs
from vatt.contracts import ClipSpec
from vatt.errors import CheckpointError, ConfigError
from vatt.models.variants import as_official
from vatt.models.vatt import Vatt
from vatt.models.weights import load_model, read_settings, save_model

CLIP = ClipSpec(frames=4, fps=8.75, height=12, width=16, sample_rate_hz=800, texts=3, words=6)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    save_model(tmp_path, Vatt(SMALL_MODEL), CLIP, {"step": 7})
    return tmp_path


@pytest.mark.parametrize("config", [SMALL_MODEL, SHARED_MODEL, as_official(SHARED_MODEL)])
def test_loaded_model_gives_the_embeddings_of_the_saved_one(tmp_path, config):
    model, inputs = Vatt(config), some_inputs()
    model(inputs)  # moves the running statistics of batch norm
    save_model(tmp_path, model, CLIP, {"step": 7})
    loaded, clip = load_model(Vatt, tmp_path)
    assert read_settings(tmp_path) == (config, CLIP, {"step": 7})
    assert (loaded.config, clip) == (config, CLIP)
    assert not loaded.training
    with torch.no_grad():
        expected, found = model.eval()(inputs), loaded(inputs)
    for name in ("video_va", "audio_va", "video_vt", "text_vt"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


def test_missing_folder_says_what_was_expected(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json: not found; expected a model folder"):
        load_model(Vatt, tmp_path / "none")


def test_cut_weights_are_refused(saved):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read"):
        load_model(Vatt, saved)


def test_missing_weights_are_refused(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read"):
        load_model(Vatt, saved)


@pytest.mark.parametrize("text", ["{", "[]", '{"model": {}}'])
def test_damaged_settings_are_refused(saved, text):
    (saved / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_model(Vatt, saved)


def test_newer_format_is_refused_and_newer_minor_version_is_not(saved):
    path = saved / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"format_version": "1.7"}))
    load_model(Vatt, saved)
    path.write_text(json.dumps(values | {"format_version": "2.0"}))
    with pytest.raises(CheckpointError, match=r"found format version 2\.0, expected 1"):
        load_model(Vatt, saved)


def test_unknown_setting_is_named(saved):
    path = saved / "config.json"
    values = json.loads(path.read_text())
    values["model"]["drop_tokens"] = 0.5
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="drop_token"):
        load_model(Vatt, saved)


def test_weights_of_another_model_are_refused(saved):
    other = replace(SMALL_MODEL, heads=replace(SMALL_MODEL.heads, vt=9))
    path = saved / "config.json"
    config = path.read_text()
    save_model(saved, Vatt(other), CLIP)
    path.write_text(config)
    with pytest.raises(CheckpointError, match=r"found shape \(9, 16\), expected \(8, 16\)"):
        load_model(Vatt, saved)
    save_model(saved, Vatt(SHARED_MODEL), CLIP)
    path.write_text(config)
    with pytest.raises(CheckpointError, match="missing"):
        load_model(Vatt, saved)
