"""Converted classifiers repeat the official ones: layers, logits, losses, gradients, training.

So does one that is restored from the pre-trained model as the official code restores it.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.data.small_shards import Video, write_shards
from tests.parity.converted import (
    CLASSIFIERS,
    classifier,
    encoder,
    folder,
    found_plan,
    has_checkpoint,
    having,
    joined,
    sounds,
    trainable_classifier,
)
from tests.parity.layers import signal_taps, spline_tolerance
from tests.parity.recordings import FOLDER, Recording, arrays, assert_near
from vatt.contracts import Clip
from vatt.convert.plan import tensor
from vatt.convert.tensor_bundle import Bundle
from vatt.data.clip_reader import ClipReader
from vatt.evaluation.metrics import top_k_accuracy
from vatt.evaluation.score_files import ScoreFile
from vatt.evaluation.views import mean_over_views
from vatt.losses import balanced_sigmoid_cross_entropy, softmax_cross_entropy
from vatt.models.classifier import Classifier, restore
from vatt.models.tokens import AxisPositions
from vatt.tasks import evaluate
from vatt.tasks.evaluate import EvaluateConfig
from vatt.training.optim import OptimConfig, Optimiser

CLIPPED_AT = 0.75


def signal(recorded: Recording) -> Tensor:
    """Frames, waveforms or spectrograms (with a leading axis of steps in trajectories)."""
    if "in/vision" in recorded:
        return recorded["in/vision"]
    return recorded["in/audio"] if "in/audio" in recorded else sounds(recorded)


def logits_of(name: str, step: int, values: Tensor) -> Tensor:
    model = classifier(name, step)
    return model.classify(values, sample_rate_hz=model.spec.sample_rate_hz).logits


def probabilities(name: str, logits: Tensor) -> Tensor:
    return logits.softmax(-1) if "video" in name else logits.sigmoid()


@pytest.mark.parametrize(
    ("name", "step"),
    [
        (name, step)
        for step in (0, 4)
        for name in having(f"forward_eval_ckpt{step}.npz", CLASSIFIERS)
        if has_checkpoint(name, step)
    ],
)
def test_public_calls_give_the_official_logits(name, step):
    inputs = arrays(f"{name}/forward_eval_ckpt0.npz")
    recorded = arrays(f"{name}/forward_eval_ckpt{step}.npz")
    logits = logits_of(name, step, signal(inputs))
    assert_near(logits, recorded["out/logits"], "out/logits", atol=1e-5, rtol=1e-5)
    shares, key = probabilities(name, logits), "out/probabilities"
    assert_near(shares, recorded[key], key, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", having("forward_multiview_ckpt0.npz", CLASSIFIERS))
def test_mean_logits_of_several_views(name):
    recorded = arrays(f"{name}/forward_multiview_ckpt0.npz")
    each = logits_of(name, 0, signal(recorded))
    logits = mean_over_views(each, int(recorded["num_views"]))
    assert_near(logits, recorded["out/logits"], "out/logits", atol=1e-5, rtol=1e-5)
    shares, key = probabilities(name, logits), "out/probabilities"
    assert_near(shares, recorded[key], key, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "name",
    [n for n in having("forward_multiview_ckpt0.npz", CLASSIFIERS) if "spectrogram" not in n],
)
def test_the_evaluate_command_gives_the_official_logits_of_several_views(
    name, tmp_path, monkeypatch
):
    """All of the command but decoding: what is read of each video are the recorded views.

    They are real numbers, where videos hold bytes: so the reader is replaced, and all after it is
    the command's. Recorded log-mel spectrograms are no waveforms, which is what the command reads.
    """
    recorded = arrays(f"{name}/forward_multiview_ckpt0.npz")
    views, number = signal(recorded).numpy(), int(recorded["num_views"])
    best = recorded["out/logits"].argmax(1).tolist()
    names = [f"class {n:02d}" for n in range(recorded["out/logits"].shape[1])]
    (tmp_path / "names.txt").write_text("\n".join(names))
    videos = [
        Video(labels=({"start_s": 0.0, "end_s": 4.0, "kind": names[n]},), split="test")
        for n in (best if "video" in name else range(len(best)))
    ]
    data = write_shards(tmp_path / "shards", videos)
    run = shutil.copytree(folder(name, 0), tmp_path / "run")

    def recorded_views(reader, row, starts_s, end_s, augmentation):
        assert len(set(starts_s)) == number
        mine = np.concatenate(views[row * number : (row + 1) * number])
        is_video = "in/vision" in recorded
        frames: Any = (mine + 1) * 127.5 if is_video else np.zeros((1, 2, 2, 3))
        return Clip(
            key=f"v{row}",
            start_s=starts_s[0],
            frames=frames,
            waveform=np.zeros(1, np.int16) if is_video else mine * 2**15,
            has_audio=True,
            word_ids=np.zeros((1, 1), np.int64),
            text_mask=np.zeros(1, np.bool_),
            augmentation=augmentation,
            draw=0,
        )

    monkeypatch.setattr(ClipReader, "read_several", recorded_views)
    given = EvaluateConfig(
        run=run, shards=(data.folder,), label="kind", classes=tmp_path / "names.txt",
        clips=number, crops=1, save_scores=tmp_path / "scores.npz", device="cpu",
    )  # fmt: skip
    result = evaluate.run(given)
    found = ScoreFile.load(tmp_path / "scores.npz")
    logits = torch.from_numpy(found.scores)
    assert_near(logits, recorded["out/logits"], "out/logits", atol=1e-5, rtol=1e-5)
    assert (result.n_evaluated, result.n_expected) == (len(best), len(best))
    assert found.scores.argmax(1).tolist() == best
    if "video" in name:
        assert result.measures["top1"] == 1
    shares = evaluate.run(replace(given, average="probabilities"))
    assert shares.measures.keys() == result.measures.keys()


@pytest.mark.parametrize("name", having("forward_eval_ckpt0.npz", CLASSIFIERS))
def test_every_recorded_depth(name):
    recorded = arrays(f"{name}/forward_eval_ckpt0.npz")
    model = trainable_classifier(name).eval()
    with torch.no_grad():
        taps = signal_taps(signal(recorded), model.tokens, model.backbone, model.post_projection)
    assert {f"taps/{key}" for key in taps} == {key for key in recorded if key.startswith("taps/")}
    for key, value in taps.items():
        assert_near(value, recorded[f"taps/{key}"], f"taps/{key}", atol=1e-5, rtol=1e-5)


def losses(name: str, logits: Tensor, labels: Tensor) -> Tensor:
    if "video" in name:
        return softmax_cross_entropy(logits, labels)
    return balanced_sigmoid_cross_entropy(logits, labels, labels)


@pytest.mark.parametrize("name", having("forward_train_ckpt0.npz", CLASSIFIERS))
def test_a_training_step_has_the_official_logits_loss_and_gradients(name):
    recorded = arrays(f"{name}/forward_train_ckpt0.npz")
    steps = arrays(f"{name}/train_trajectory.npz")
    model, official = trainable_classifier(name), found_plan(name).names
    norms = GradientNorms(model)
    logits = model(signal(steps)[0])
    loss = losses(name, logits, steps["in/label"][0].float()).mean()
    loss.backward()
    for key in ("loss/model_loss", "loss/total_loss"):
        assert_near(loss.detach(), recorded[key].float(), key, atol=1e-5, rtol=1e-5)
    assert recorded["loss/regularization_loss"] == 0
    assert_near(logits.detach(), recorded["out/logits"], "out/logits", atol=1e-5, rtol=1e-5)
    shares, key = probabilities(name, logits.detach()), "out/probabilities"
    assert_near(shares, recorded[key], key, atol=1e-5, rtol=1e-5)
    assert_gradients(model, official, recorded)
    assert recorded.texts("clip/sparse_grad_names") == [
        name
        for ours, names in official.items()
        for name in names
        if ours.startswith("tokens.positions.tables.")
    ]
    for key, norm in {
        "clip/global_norm_of_dense_grads": norms.dense(),
        "clip/global_norm_as_official": norms.as_official(),
    }.items():
        assert_near(norm, recorded[key].float(), key, atol=0, rtol=1e-4)


def assert_gradients(
    model: Classifier, official: Mapping[str, tuple[str, ...]], recorded: Recording
) -> None:
    keys = {key for key in recorded if key.startswith("grad/")}
    compared = set()
    for name, weight in model.named_parameters():
        sources = [f"grad/{source}" for source in official[name]]
        compared |= set(sources)
        expected = joined({k[5:]: recorded[k] for k in sources}, official[name])
        assert expected is not None
        assert weight.grad is not None
        largest = float(expected.abs().max())
        assert_near(weight.grad, expected, f"grad/{name}", atol=1e-4 * largest, rtol=0)
    assert compared == keys


class GradientNorms:
    """Norm of all gradients but the classifier's, as the fine-tuning clips them.

    The official code counts the gradient of a position table once for each token that reads a
    row, where the others count the sum over the tokens.
    """

    def __init__(self, model: Classifier) -> None:
        self.model = model
        self.weights = [w for n, w in model.named_parameters() if not n.startswith("linear.")]
        norm = model.tokens.positions.norm
        assert norm is not None
        norm.register_forward_pre_hook(self._keep)

    def _keep(self, _: object, args: tuple[Tensor, ...]) -> None:
        (self.rows,) = args
        self.rows.retain_grad()

    def dense(self) -> Tensor:
        return torch.nn.utils.get_total_norm([w.grad for w in self.weights if w.grad is not None])

    def as_official(self) -> Tensor:
        tables = list(self.model.tokens.positions.tables)
        assert self.rows.grad is not None
        summed = sum(float(t.grad.square().sum()) for t in tables if t.grad is not None)
        by_token = len(tables) * self.rows.grad.square().sum()
        return (self.dense().square() - summed + by_token).sqrt()


@pytest.mark.parametrize("name", having("ckpt-4.index", CLASSIFIERS))
def test_training_takes_the_official_course_to_the_official_weights(name):
    facts = json.loads((FOLDER / name / "config.json").read_text())["optim"]
    recorded = arrays(f"{name}/train_trajectory.npz")
    config = OptimConfig(
        name="momentum",
        learning_rate=facts["learning_rate_base"],
        final_learning_rate=0.0,
        schedule="half_cosine",
        warmup_steps=facts["warmup_steps"],
        momentum=facts["momentum"],
    )
    model = trainable_classifier(name)
    norms = GradientNorms(model)
    optimiser = Optimiser(config, model.named_parameters(), steps=facts["total_steps"])
    for step in range(facts["total_steps"]):
        labels = recorded["in/label"][step].float()
        logits = model(signal(recorded)[step])
        loss = losses(name, logits, labels).mean()
        loss.backward()
        assert_step(name, recorded, step, logits.detach(), loss.detach(), labels)
        torch.nn.utils.clip_grads_with_norm_(norms.weights, CLIPPED_AT, norms.as_official())
        rate = optimiser.step(step)
        assert rate == pytest.approx(float(recorded["lr_used"][step]), rel=1e-6, abs=1e-10)
    assert (recorded["step/regularization_loss"] == 0).all()
    after = recorded["step/learning_rate"]  # noted after the update: that of the next one
    assert_near(after[:-1].float(), recorded["lr_used"][1:].float(), "rate", atol=1e-7, rtol=1e-6)
    assert_same_training(name, model, optimiser.state())


def assert_step(
    name: str, recorded: Recording, step: int, logits: Tensor, loss: Tensor, labels: Tensor
) -> None:
    for key in ("step/model_loss", "step/total_loss"):
        expected = recorded[key][step].float()
        assert_near(loss, expected, f"{key} {step}", atol=0, rtol=1e-4 if step == 0 else 1e-3)
    if "video" in name:
        expected = recorded["step/categorical_cross_entropy"][step].float()
        assert_near(loss, expected, f"cross-entropy {step}", atol=0, rtol=1e-3)
        true = labels.argmax(-1).numpy()
        for k in (1, 5):
            found = top_k_accuracy(logits.numpy(), true, k)
            assert found == pytest.approx(float(recorded[f"step/top_{k}_accuracy"][step]))
    else:
        mean = F.binary_cross_entropy_with_logits(logits, labels)
        expected = recorded["step/binary_cross_entropy"][step].float()
        assert_near(mean, expected, f"step/binary_cross_entropy {step}", atol=0, rtol=1e-3)


def assert_same_training(name: str, model: Classifier, velocities: dict[str, Tensor]) -> None:
    """Weights and velocities of the checkpoint after training."""
    final, official = trainable_classifier(name, 4).state_dict(), found_plan(name).names
    bundle = Bundle(FOLDER / name / "ckpt-4")
    assert velocities.keys() == {f"{key}/momentum_buffer" for key in final}
    for key, expected in final.items():
        assert_near(model.state_dict()[key], expected, key, atol=2e-4, rtol=0)
        slot = -torch.from_numpy(tensor(bundle, official[key], slot="momentum"))
        assert_near(velocities[f"{key}/momentum_buffer"], slot, f"{key} slot", atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", having("restore_position_buckets.npz", CLASSIFIERS))
def test_restored_as_the_official_code_restores(name):
    facts = json.loads((FOLDER / name / "config.json").read_text())
    source, step = facts["restore_from"].split("/ckpt-")
    recorded = arrays(f"{name}/restore_position_buckets.npz")
    official = trainable_classifier(name)
    started = Classifier(official.config)
    before = started.linear.weight.clone()
    restore(started, encoder(source, int(step)).module)
    assert torch.equal(started.linear.weight, before)  # what the official code skips too
    assert all("classification" in skipped for skipped in facts["skipped_on_restore"])
    assert_tables(encoder(source, int(step)).module, source, started, recorded)
    expected = official.state_dict()
    for key, value in started.state_dict().items():
        if not key.startswith(("linear.", "tokens.positions.tables.")):
            assert torch.equal(value, expected[key]), key


def assert_tables(
    pretrained: torch.nn.Module, source: str, started: Classifier, recorded: Recording
) -> None:
    theirs = {key: names[0] for key, names in found_plan(source).names.items()}
    modality = started.config.modality
    for axis, table in enumerate(started.tokens.positions.tables):
        key = theirs[f"{modality}_tokens.positions.tables.{axis}"]
        positions = getattr(pretrained, f"{modality}_tokens").positions
        assert isinstance(positions, AxisPositions)
        before = positions.tables[axis].detach()
        assert torch.equal(before, recorded[f"source/{key}"])
        after, tolerance = recorded[f"restored/{key}"], spline_tolerance(len(before))
        assert_near(table.detach(), after, f"restored/{key}", atol=tolerance, rtol=0)
