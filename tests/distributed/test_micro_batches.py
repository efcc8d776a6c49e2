"""A step in micro-batches is the step of the whole batch: loss, gradients, batch norm."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.distributed.in_memory import InMemory
from tests.distributed.micro_batches import Case, cases, step
from tests.distributed.objective import CLIP, whole
from tests.distributed.ranks import run_ranks
from vatt.config import from_values
from vatt.data import augment
from vatt.models.model_config import ModelConfig
from vatt.models.transformer import layers_of
from vatt.models.vatt import Vatt
from vatt.presets import tiny
from vatt.pretraining import objective
from vatt.tasks.pretrain import PretrainConfig
from vatt.training.loop import TrainConfig
from vatt.training.parallel import parallelize

BY_ONE = [c for c in cases() if c.micro_batch and not c.divided]


def some(dropout):
    """The cases that have it all, and the others as slow ones."""
    found = []
    for case in BY_ONE:
        if bool(case.dropout) == dropout:
            hard = case.drop_token and case.masks == "uneven"
            found.append(pytest.param(case, id=str(case), marks=[] if hard else [pytest.mark.slow]))
    return found


def assert_equal(found, expected):
    """To 1e-5 of the largest value of each tensor, float32 sums being in another order.

    Of a tensor that is smaller than a hundredth of the largest one, to 1e-5 of that hundredth:
    gradients of what batch norm takes away again are rounding errors alone.
    """
    assert found.keys() == expected.keys()
    largest = {name: value.abs().max().item() for name, value in expected.items()}
    least = max(largest.values()) / 100
    for name, value in expected.items():
        atol = 1e-5 * max(largest[name], least)
        assert_close({name: found[name]}, {name: value}, rtol=0, atol=atol)  # says the name


@pytest.mark.parametrize("case", some(dropout=False))
def test_micro_batches_equal_the_undivided_batch(case):
    assert_equal(step(case), step(replace(case, micro_batch=0)))


@pytest.mark.parametrize("case", some(dropout=True))
def test_dropout_is_the_same_when_a_micro_batch_is_computed_again(case):
    found, expected = step(case), step(replace(case, recompute=False), keep_all=True)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_dropout_matters_and_differs_between_micro_batches():
    case = Case(3, 0.2, 0.0, "uneven")
    losses = [
        step(one)["loss/loss"].item()
        for one in (case, replace(case, dropout=0.0), replace(case, micro_batch=1))
    ]
    assert len(set(losses)) == 3


@pytest.mark.parametrize("size", [1, 3])
def test_in_bfloat16_micro_batches_change_gradients_by_a_tenth_of_what_bfloat16_does(size):
    case = Case(0, 0.0, 0.5, "uneven")
    exact, whole = flat_gradient(step(case)), flat_gradient(step(case, autocast="bfloat16"))
    found = flat_gradient(step(replace(case, micro_batch=size), autocast="bfloat16"))
    by_parts, by_numbers = (found - whole).norm(), (whole - exact).norm()  # 0.2 and 3 %
    assert by_parts < 0.1 * by_numbers
    assert by_numbers < 0.05 * exact.norm()


def flat_gradient(found):
    return torch.cat([v.flatten() for k, v in found.items() if k.startswith("gradient/")])


def parts_of_a_step(size, monkeypatch):
    """First clip of each micro-batch that the backbones run on, in turn; one is kept at a time."""
    model = Vatt(from_values(ModelConfig, tiny()["model"], where="tiny")).train()
    kept, apply = InMemory(model), augment.apply
    parts: list[int] = []

    def noted(batch, *, clips, **how):
        assert kept.nothing(), f"{parts} when {clips} come"
        parts.append(clips.start)
        inputs = apply(batch, clips=clips, **how)
        kept.note(inputs.frames)
        return inputs

    monkeypatch.setattr(augment, "apply", noted)
    train = TrainConfig(autocast="off", micro_batch=size)
    settings = PretrainConfig(out=Path("unused"), clip=CLIP, train=train)
    loss = objective(whole("uneven"), model, settings)["loss"]
    assert not kept.nothing()  # of the last one
    torch.autograd.backward(loss)
    assert kept.nothing()
    return parts


@pytest.mark.parametrize("size", [1, 5, 12])
def test_all_micro_batches_but_the_last_run_twice_and_one_is_in_memory_at_a_time(size, monkeypatch):
    found = parts_of_a_step(size, monkeypatch)
    *others, last = range(0, 12, size)
    assert found == [*others, last, *reversed(others)]


def test_micro_batches_that_are_kept_are_seen(monkeypatch):
    monkeypatch.setattr("vatt.models.vatt.checkpoint", lambda part, features, **_: part(features))
    with pytest.raises(AssertionError, match=r"\[0\] when slice\(5, 10"):
        parts_of_a_step(5, monkeypatch)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_layers_stay_compiled_with_more_shapes_than_torch_takes_unless_told(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    values = tiny()["model"]
    for name in ("video", "audio", "text"):
        values[name]["transformer"]["layers"] = 3
    model = Vatt(from_values(ModelConfig, values, where="tiny"))
    train = TrainConfig(autocast="off", compile=True, micro_batch=5)  # 5, 5 and 2 clips
    settings = PretrainConfig(out=Path("unused"), clip=CLIP, train=train)
    torch._dynamo.reset()
    spread = parallelize(model.train(), train, layers_of(model))
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        torch.autograd.backward(objective(whole("uneven"), spread, settings)["loss"])  # or raises
    assert all(one.grad is not None for one in model.parameters() if one.requires_grad)


@pytest.mark.slow  # processes
@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_in_micro_batches_equal_one_process(tmp_path, world_size):
    run_ranks("tests.distributed.micro_batches", str(tmp_path), world_size=world_size)
    for case in cases():
        alone = step(case)
        for rank in range(world_size):
            assert_equal(load_file(tmp_path / f"{case}-{rank}.safetensors"), alone)
