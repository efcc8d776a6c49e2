"""`vatt finetune` repeats the recorded official training: its start, its objective, its loop."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.parity.converted import (
    CLASSIFIERS,
    classifier,
    encoder,
    folder,
    having,
    trainable_classifier,
)
from tests.parity.recordings import FOLDER, Recording, arrays, assert_near
from tests.parity.test_official_classifiers import CLIPPED_AT, GradientNorms, signal
from vatt.checkpoints.checkpoint import TrainingState
from vatt.contracts import ClipSpec
from vatt.data.data_config import DataConfig
from vatt.errors import ConfigError
from vatt.models.classifier import Classifier, restore
from vatt.report.training_curve import read_metrics
from vatt.tasks.convert import ConvertConfig
from vatt.tasks.convert import run as convert
from vatt.tasks.finetune import (
    BackboneChanges,
    ClipChanges,
    FinetuneConfig,
    TargetConfig,
    class_losses,
    clip_spec,
    model_at,
    resumed,
    starting_settings,
)
from vatt.training.loop import Learner, TrainConfig, train
from vatt.training.optim import OptimConfig, Optimiser


@dataclass(frozen=True)
class Step:
    """A recorded batch."""

    signal: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.signal)


def settings(name: str, out: Path) -> FinetuneConfig:
    facts = json.loads((FOLDER / name / "config.json").read_text())
    optim = facts["optim"]
    return FinetuneConfig(
        out=out,
        src=(out,),
        start_from=folder(name, 0),
        kind="video" if "video" in name else "audio",
        model=BackboneChanges(dropout=0.0),
        targets=TargetConfig(labels="one" if "video" in name else "several"),
        optim=OptimConfig(
            name="momentum",
            learning_rate=optim["learning_rate_base"],
            final_learning_rate=0.0,
            schedule="half_cosine",
            warmup_steps=optim["warmup_steps"],
            momentum=optim["momentum"],
            clip_norm=facts["gradient_clip_norm"],
            clip_scope="backbone",
        ),
        train=TrainConfig(
            steps=optim["total_steps"], save_every=1, keep=9, log_every=1, autocast="off",
            device="cpu",
        ),
    )  # fmt: skip


def started(config: FinetuneConfig, recorded: Recording) -> tuple[Classifier, ClipSpec]:
    """As the command makes it, of the classes 0, 1 …"""
    sizes, clip = starting_settings(config)
    spec = clip_spec(config, sizes, clip)
    names = [f"{number:02}" for number in range(recorded["in/label"].shape[-1])]
    return model_at(TrainingState(), config, sizes, spec, names), spec


def batches(recorded: Recording, steps: int) -> Iterator[Step]:
    for step in range(steps):
        yield Step(signal(recorded)[step], recorded["in/label"][step].float())


class OfficialClipping(Optimiser):
    """Clips by the official norm, which counts a position's gradient once for each token."""

    norms: GradientNorms

    def clip(self) -> Tensor:
        found = self.norms.as_official()
        torch.nn.utils.clip_grads_with_norm_(self.norms.weights, CLIPPED_AT, found)
        return found


@pytest.mark.parametrize("clipping", ["ours", "official"])
@pytest.mark.parametrize("name", having("ckpt-4.index", CLASSIFIERS))
def test_the_loop_takes_the_official_course_to_the_official_weights(name, clipping, tmp_path):
    recorded = arrays(f"{name}/train_trajectory.npz")
    config = settings(name, tmp_path)
    model, _ = started(config, recorded)
    before = trainable_classifier(name).state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    kind = Optimiser if clipping == "ours" else OfficialClipping
    optimiser = kind(config.optim, model.named_parameters(), steps=config.train.steps)
    if isinstance(optimiser, OfficialClipping):
        optimiser.norms = GradientNorms(model)
    learner: Learner[Step] = Learner(
        model=model,
        objective=lambda batch: class_losses(model.train(), batch.signal, batch.targets, config),
        optimiser=optimiser,
        write_model=lambda where, /, weights=True: None,
        facts=dict,
        seed=0,
    )
    steps = batches(recorded, config.train.steps)
    train(config.train, learner, steps, folder=tmp_path, start_step=0)
    log = read_metrics(tmp_path / "metrics.jsonl")
    for step, entry in enumerate(log):
        expected = float(recorded["step/model_loss"][step])
        assert entry["loss"] == pytest.approx(expected, rel=1e-4 if step == 0 else 1e-3)
        expected = float(recorded["lr_used"][step])
        assert entry["learning_rate"] == pytest.approx(expected, rel=1e-6, abs=1e-10)
    # Ours clips by the norm of the dense gradient, 0.2 % less: rates of at most 0.05 × 0.75 a step.
    atol = 2e-4 if clipping == "official" else 5e-4
    for key, value in trainable_classifier(name, 4).state_dict().items():
        assert_near(model.state_dict()[key], value, key, atol=atol, rtol=0)
    saved = load_file(tmp_path / "checkpoints" / "step-000004" / "optimiser.safetensors")
    assert saved.keys() == {f"{key}/momentum_buffer" for key, _ in model.named_parameters()}


@pytest.mark.parametrize("name", having("restore_position_buckets.npz", CLASSIFIERS))
def test_it_starts_from_the_pretrained_model_as_the_official_code_does(name, tmp_path):
    """The backbone is the model's own or the shared one, of waveforms or spectrograms."""
    facts = json.loads((FOLDER / name / "config.json").read_text())
    source, step = facts["restore_from"].split("/ckpt-")
    official = trainable_classifier(name)
    spec = ClipChanges(**{
        one: getattr(classifier(name, 0).spec, one)
        for one in ("frames", "fps", "height", "width", "sample_rate_hz")
    })  # fmt: skip
    config = settings(name, tmp_path)
    config = replace(config, start_from=folder(source, int(step)), clip=spec)
    ours, _ = started(config, arrays(f"{name}/train_trajectory.npz"))
    expected = Classifier(official.config)
    restore(expected, encoder(source, int(step)).module)
    found = ours.state_dict()
    other_bands = "tokens.positions.tables.1" if "spectrogram" in name else ""  # no setting here
    for key, value in expected.state_dict().items():
        if not key.startswith("linear.") and key != other_bands:
            assert torch.equal(found[key], value), key


@pytest.mark.parametrize("name", having("ckpt-4.index", CLASSIFIERS)[:1])
def test_a_converted_classifier_with_the_state_of_its_optimiser_goes_on(name, tiny, tmp_path):
    out = tmp_path / "converted"
    prefix, width = FOLDER / name / "ckpt-4", CLASSIFIERS[name]
    convert(ConvertConfig(prefix=prefix, out=out, head_width=width, optimizer=True))
    config = replace(settings(name, tmp_path / "run"), start_from=out)
    data = DataConfig(shards=(tiny.shards,))
    names = [f"{n:02}" for n in range(trainable_classifier(name).config.classes)]
    state = resumed(config, data, names, steps=9)
    assert (state.step, state.of_this_run) == (4, False)
    model, _ = started(config, arrays(f"{name}/train_trajectory.npz"))
    Optimiser(config.optim, model.named_parameters(), steps=9).load_state(state.optimiser)
    assert len(state.optimiser) == len(list(model.parameters()))
    assert resumed(config, data, names[1:], steps=9).step == 0  # other classes: from the start
    with pytest.raises(ConfigError, match=r"train\.steps: found 4, expected more than 4"):
        resumed(config, data, names, steps=4)
