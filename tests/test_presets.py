import dataclasses

import pytest
import tomli_w

from vatt import config as configs
from vatt.models.vatt import Vatt
from vatt.models.weights import build_empty
from vatt.presets import PRESETS
from vatt.tasks.pretrain import PretrainConfig


def built(name: str) -> PretrainConfig:
    values = configs.merge(PRESETS[name](), {"out": "run", "data": {"shards": ["shards"]}})
    return configs.from_values(PretrainConfig, values, where=name)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_a_valid_configuration_that_survives_a_file(name, tmp_path):
    config = built(name)
    (tmp_path / "config.toml").write_text(tomli_w.dumps(configs.to_values(config)))
    again = configs.read_toml(tmp_path / "config.toml")
    assert configs.from_values(PretrainConfig, again, where=name) == config


@pytest.mark.parametrize("name", ["bbs", "mbs", "lbs", "ma-medium"])
def test_paper_presets_train_as_the_paper_says(name):
    config = built(name)
    assert (config.clip.frames, config.clip.fps, config.clip.height) == (32, 10, 224)
    assert (config.clip.samples, config.clip.texts, config.clip.words) == (153_600, 5, 16)
    assert config.model.drop_token == 0.5
    assert config.data.batch_size == 2048
    assert (config.loss.temperature, config.loss.text_weight, config.loss.form) == (
        0.07,
        1,
        "paper",
    )
    optim, train = config.optim, config.train
    assert (optim.learning_rate, optim.final_learning_rate) == (1e-4, 5e-5)
    assert (optim.schedule, optim.warmup_steps, train.steps) == ("quarter_cosine", 10_000, 500_000)
    assert (config.model.heads.va, config.model.heads.vt) == (512, 256)


@pytest.mark.parametrize(
    ("name", "layers", "widths"),
    [
        ("bbs", (12, 12, 6), (768, 768, 512)),
        ("mbs", (12, 12, 6), (1024, 768, 512)),
        ("lbs", (24, 12, 6), (1024, 768, 512)),
        ("ma-medium", (12, 12, 12), (1024, 1024, 1024)),
    ],
)
def test_paper_presets_have_the_backbones_of_table_1(name, layers, widths):
    config = built(name)
    model = build_empty(config.model)
    assert isinstance(model, Vatt)
    for modality, count, width in zip(("video", "audio", "text"), layers, widths, strict=True):
        backbone = model.backbone(modality)  # type: ignore[arg-type]
        names = {key.split(".")[1] for key in backbone.state_dict() if key.startswith("layers.")}
        assert len(names) == count
        assert getattr(config.model, modality).transformer.width == width
    shared = {id(model.backbone(modality)) for modality in ("video", "audio", "text")}
    assert len(shared) == (1 if name == "ma-medium" else 3)


def test_demo_presets_differ_only_in_the_model():
    demo = built("demo")
    for name in ("demo-shared", "demo-spectrogram"):
        assert dataclasses.replace(built(name), model=demo.model) == demo
        assert built(name).model != demo.model


def test_demo_covers_its_inputs_with_whole_patches():
    config = built("demo")
    video, audio = config.model.video, config.model.audio
    patches = [
        size / patch
        for size, patch in zip(
            (config.clip.frames, config.clip.height, config.clip.width), video.patch, strict=True
        )
    ]
    assert patches == list(video.buckets)
    assert audio.buckets == -(-config.clip.samples // audio.patch)
