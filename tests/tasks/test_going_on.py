"""An official checkpoint is a place to train on from: as if training had never stopped."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.convert.bundle_writer import official_values, write_bundle
from vatt import config as configs
from vatt.cli.main import main
from vatt.convert import names
from vatt.errors import CheckpointError
from vatt.models.vatt import Vatt
from vatt.models.weights import load_model
from vatt.presets import bundle, tiny
from vatt.report.training_curve import read_metrics
from vatt.tasks import pretrain
from vatt.tasks.pretrain import PretrainConfig

STEPS, STOP = 8, 4
SAME = ("loss", "video_audio", "video_text", "learning_rate", "gradient_norm")


def settings(shards: Path, out: Path, **changes) -> PretrainConfig:
    """The tiny preset in the official form."""
    own = {
        "out": str(out),
        "data": {"shards": [str(shards)], "workers": 0},
        "optim": {"warmup_steps": 2},
        "train": {
            "steps": STEPS,
            "save_every": STOP,
            "device": "cpu",
            "threads": 1,
            "autocast": "off",
        },
    }
    values = configs.merge(configs.merge(tiny(), bundle("official", tiny())), own)
    return configs.from_values(PretrainConfig, configs.merge(values, changes), where="test")


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory) -> Path:
    """A run that never stopped."""
    out = tmp_path_factory.mktemp("official") / "whole"
    pretrain.run(settings(tiny.shards, out))
    return out


@pytest.fixture(scope="module")
def as_tensorflow(whole, tmp_path_factory) -> Path:
    """Its checkpoint half way, in TensorFlow's format with Adam's slots, and its word list."""
    prefix = tmp_path_factory.mktemp("tensorflow") / "ckpt-4"
    saved = whole / "checkpoints" / f"step-{STOP:06d}"
    model, _ = load_model(Vatt, saved)
    theirs = names.specific(layers=dict.fromkeys(("video", "audio", "text"), 1), spectrogram=False)
    variables = official_values(model, theirs, model.state_dict())
    memory = load_file(saved / "optimiser.safetensors")
    for what, slot in (("exp_avg", "m"), ("exp_avg_sq", "v")):
        values = {k.removesuffix(f"/{what}"): v for k, v in memory.items() if k.endswith(what)}
        for name, moments in official_values(model, theirs, values).items():
            variables[f"{name}/.OPTIMIZER_SLOT/optimizer/{slot}"] = moments
    variables["optimizer/iter"] = np.array(STOP, np.int64)
    write_bundle(prefix, variables)
    words = json.loads((saved / "tokenizer.json").read_text())["model"]["vocab"]
    prefix.with_name("words.txt").write_text("\n".join(sorted(words, key=words.__getitem__)))
    return prefix


def convert(prefix: Path, out: Path, *options: str) -> int:
    return main(["convert", str(prefix), "--head-width", "16", "--out", str(out), *options])


def test_training_goes_on_from_a_converted_checkpoint_as_if_it_had_never_stopped(
    tiny, whole, as_tensorflow, tmp_path
):
    words = as_tensorflow.with_name("words.txt")
    model = tmp_path / "model"
    assert convert(as_tensorflow, model, "--optimizer", "--vocabulary", str(words)) == 0
    out = tmp_path / "run"
    result = pretrain.run(settings(tiny.shards, out, start_from=str(model)))
    assert result.steps == STEPS
    expected = read_metrics(whole / "metrics.jsonl")[STOP:]
    found = read_metrics(out / "metrics.jsonl")
    assert [record["step"] for record in found] == list(range(STOP + 1, STEPS + 1))
    for mine, theirs in zip(found, expected, strict=True):
        assert {key: mine[key] for key in SAME} == {key: theirs[key] for key in SAME}
    weights = load_file(out / "model" / "model.safetensors")
    for name, weight in load_file(whole / "model" / "model.safetensors").items():
        assert torch.equal(weights[name], weight), name


def test_without_its_optimiser_a_model_is_where_a_new_run_begins(
    tiny, whole, as_tensorflow, tmp_path, capsys
):
    model, words = tmp_path / "model", as_tensorflow.with_name("words.txt")
    assert convert(as_tensorflow, model, "--vocabulary", str(words)) == 0
    assert not (model / "state.json").exists()
    command = ["pretrain", "--preset", str(model), "--bundle", "official", "--out"]
    own = ["--clip.frames", "4", "--clip.height", "24", "--clip.width", "32", "--clip.fps", "5"]
    own += ["--clip.sample_rate_hz", "4000", "--data.shards", str(tiny.shards)]
    own += ["--data.batch_size", "4", "--data.workers", "0", "--train.threads", "1"]
    own += ["--train.steps", "1", "--optim.warmup_steps", "1"]  # its rate is 0
    assert main([*command, str(tmp_path / "run"), *own]) == 0
    capsys.readouterr()
    before = load_file(whole / "checkpoints" / f"step-{STOP:06d}" / "model.safetensors")
    after = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert all(torch.equal(after[k], v) for k, v in before.items() if "running" not in k)


def test_a_model_without_words_is_refused(tiny, as_tensorflow, tmp_path):
    assert convert(as_tensorflow, tmp_path / "model") == 0
    config = settings(tiny.shards, tmp_path / "run", start_from=str(tmp_path / "model"))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not found; .* --vocabulary FILE"):
        pretrain.run(config)


def test_a_model_of_other_sizes_is_refused(tiny, whole, tmp_path):
    config = settings(
        tiny.shards,
        tmp_path / "run",
        start_from=str(whole / "model"),
        model={"heads": {"va": 24}},
    )
    with pytest.raises(CheckpointError, match=r"found shape \(16, 32\), expected \(24, 32\) from"):
        pretrain.run(config)
