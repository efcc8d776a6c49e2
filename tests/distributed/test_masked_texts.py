"""What a step asks of the device: no text that is masked, where they are many, and no answer."""

import traceback
from contextlib import nullcontext
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tests.distributed.micro_batches import Case, step
from tests.distributed.objective import CLIP, whole
from tests.distributed.test_micro_batches import assert_equal
from vatt.config import from_values
from vatt.data.augment import rows_with_text
from vatt.losses import LossConfig
from vatt.models.model_config import ModelConfig
from vatt.models.vatt import Vatt
from vatt.presets import tiny
from vatt.pretraining import objective
from vatt.tasks.pretrain import PretrainConfig


@pytest.mark.parametrize("masks", ["none_in_second_half", "none"])
@pytest.mark.parametrize("micro_batch", [0, 3])
def test_texts_that_are_not_looked_at_change_nothing(masks, micro_batch):
    case = Case(micro_batch, 0.0, 0.5, masks)
    looked_at = []
    text_features = Vatt.text_features

    def counted(model: Vatt, word_ids: Tensor) -> Tensor:
        looked_at.append(len(word_ids))
        return text_features(model, word_ids)

    with mock.patch.object(Vatt, "text_features", counted):
        found, few = step(case), list(looked_at)
        looked_at.clear()
        with mock.patch("vatt.data.augment.rows_with_text", return_value=None):
            assert_equal(found, step(case))
    assert sum(few) < 0.7 * sum(looked_at)


def test_as_many_texts_are_looked_at_as_one_of_eight_shapes_has():
    rng, shapes = torch.Generator().manual_seed(0), set()
    for share in torch.linspace(0, 1, 40).tolist():
        mask = torch.rand(12, 5, generator=rng) < share
        rows = rows_with_text(mask)
        rows = torch.arange(60) if rows is None else rows
        shapes.add(len(rows))
        assert set(mask.flatten().nonzero().flatten().tolist()) <= set(rows.tolist())
        assert len(set(rows.tolist())) == len(rows)
    assert len(shapes) <= 8


class Waiting(TorchFunctionMode):
    """Finds what would wait for an accelerator: copies that are not asynchronous.

    The meta device answers no question at all: `item`, `tolist` and the like raise there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name, where = getattr(func, "__name__", str(func)), str(kwargs.get("device", ""))
        if name in ("tensor", "as_tensor", "scalar_tensor") and where == "meta":
            self.found.append(f"{name} on the device")
        out = func(*args, **kwargs)
        copies = name == "to" and args[0].device.type == "cpu" and out.device.type == "meta"
        if copies and not kwargs.get("non_blocking"):
            self.found.append("to: " + "".join(traceback.format_stack(limit=2)[:1]))
        return out


@pytest.mark.parametrize("form", ["official", "sigmoid"])
def test_a_step_waits_for_nothing_of_the_device(form, monkeypatch):
    device = torch.device("meta")
    model = Vatt(from_values(ModelConfig, tiny()["model"], where="tiny")).to(device)
    settings = PretrainConfig(
        out="unused",  # type: ignore[arg-type]
        clip=CLIP,
        loss=LossConfig(form=form),
    )
    batch = whole("uneven")
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # meta has none
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    monkeypatch.setattr("vatt.pretraining.autocast", lambda *_: nullcontext())
    objective(batch.to(device), model.train(), settings)  # makes tables that are then kept
    with Waiting() as waiting:
        losses = objective(batch.to(device), model.train(), settings)
        torch.autograd.backward(losses["loss"])
    assert waiting.found == []
