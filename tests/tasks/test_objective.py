"""The objective away from the CPU, tried on tensors that hold no numbers.

Reading a number of a `meta` tensor, or mixing it with one of the host, is an error. So a step on a
GPU, which has the same calls, waits for nothing and puts everything where it belongs. What needs a
real GPU is in tests/gpu.
"""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.data.test_planes import CROP, SPEC, clip_of
from tests.distributed.objective import CLIP, whole
from vatt.config import from_values
from vatt.contracts import Augmentation, Batch, PlaneLayout
from vatt.data.augment import apply
from vatt.losses import LossConfig
from vatt.models.classifier import ClassifierConfig
from vatt.models.model_config import ModelConfig
from vatt.models.variants import as_official
from vatt.models.weights import build_empty
from vatt.presets import tiny
from vatt.pretraining import objective
from vatt.tasks import finetune
from vatt.tasks.pretrain import PretrainConfig
from vatt.training.loop import TrainConfig
from vatt.training.optim import OptimConfig, Optimiser

AWAY = torch.device("meta")


class NoCopiesThatWait(TorchDispatchMode):
    """Refuses copies between the host and another device that the host waits for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        to = kwargs.get("device")
        if func is torch.ops.aten._to_copy.default and to not in (None, args[0].device):
            assert kwargs.get("non_blocking"), f"a copy from {args[0].device} to {to} that waits"
        return func(*args, **kwargs)


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch):
    """The meta device has none."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)


@pytest.mark.parametrize("sizes", ["paper", "official", "spectrogram"])
@pytest.mark.parametrize("chunk", [None, 5])
def test_a_step_reads_nothing_from_the_device_and_mixes_none(sizes, chunk):
    model_config = from_values(ModelConfig, tiny()["model"], where="tiny")
    if sizes == "official":
        model_config = as_official(model_config)
    if sizes == "spectrogram":
        audio = replace(model_config.audio, kind=sizes, sample_rate_hz=CLIP.sample_rate_hz)
        model_config = replace(model_config, audio=audio)
    config = PretrainConfig(
        out=Path("unused"), clip=CLIP, loss=LossConfig(form="official", chunk=chunk)
    )
    model, batch = build_empty(model_config).train(), whole("uneven")
    objective(batch.to(AWAY), model, config)  # makes the tables that are kept
    with NoCopiesThatWait():
        shares = objective(batch.to(AWAY), model, config)
        torch.autograd.backward(shares["loss"])
    assert {value.device for value in shares.values()} == {AWAY}
    for name, weight in model.named_parameters():
        assert not weight.requires_grad or weight.grad is not None, name


@pytest.mark.parametrize("labels", ["one", "several"])
@pytest.mark.parametrize("kind", ["video", "audio"])
def test_a_step_of_fine_tuning_reads_nothing_from_the_device_and_mixes_none(kind, labels):
    sizes = from_values(ModelConfig, tiny()["model"], where="tiny")
    model = build_empty(ClassifierConfig(modality=kind, classes=2, labels=labels, model=sizes))
    config = finetune.FinetuneConfig(
        out=Path("unused"),
        src=(Path("unused"),),
        scratch=True,
        kind=kind,
        targets=finetune.TargetConfig(labels=labels, smoothing=0.1, mixup=5.0),
        train=TrainConfig(micro_batch=5),
    )
    clips = whole("uneven")
    named = tuple({"label": (("a", "b")[number % 2],)} for number in range(len(clips)))
    batch = replace(clips, labels=named, positions=tuple(range(len(clips))))
    finetune.objective(batch.to(AWAY), model.train(), config, CLIP, ("a", "b"))  # makes tables, too
    with NoCopiesThatWait():
        shares = finetune.objective(batch.to(AWAY), model.train(), config, CLIP, ("a", "b"))
        torch.autograd.backward(shares["loss"])
    assert shares["loss"].device == AWAY
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name


@pytest.mark.parametrize("antialias", [True, False])
def test_planes_are_resized_and_coloured_without_reading_them(antialias):
    coloured = Augmentation(CROP, True, 0.1, 1.3, 0.7, 0.1, 0.5)
    layouts = [PlaneLayout(48, 64, True, False), PlaneLayout(30, 90, False, True)]
    clips = [clip_of(layout, coloured, seed) for seed, layout in enumerate(layouts)]
    batch = Batch.collate(clips)
    with NoCopiesThatWait():
        inputs = apply(batch.to(AWAY), SPEC, antialias=antialias)
    assert inputs.frames.device == inputs.audio.device == AWAY
    assert inputs.frames.shape == (2, SPEC.frames, SPEC.height, SPEC.width, 3)


@pytest.mark.parametrize("skip", [False, True])
def test_an_update_reads_nothing_from_the_device(skip):
    with torch.no_grad(), FakeTensorMode():  # torch updates no weights on meta
        weights = [torch.nn.Parameter(torch.empty(3, 2, device="cuda")) for _ in range(2)]
        for weight in weights:
            weight.grad = torch.empty_like(weight)
        config = OptimConfig(weight_decay=0.1, clip_norm=1.0, warmup_steps=0)
        optimiser = Optimiser(config, [(str(i), w) for i, w in enumerate(weights)], steps=9)
        with NoCopiesThatWait():
            norm = optimiser.clip()
            optimiser.step(0, skip=torch.zeros((), device="cuda") if skip else None)
        assert norm.device.type == "cuda"


def test_reading_mixing_and_waiting_are_found():
    there = torch.ones(3, device=AWAY)
    with pytest.raises(RuntimeError, match="item"):
        there.sum().item()
    with pytest.raises(RuntimeError, match="not on the expected device"):
        there + torch.ones(3)
    with pytest.raises(AssertionError, match="waits"), NoCopiesThatWait():
        torch.ones(3).to(AWAY)
