"""A step in micro-batches is the step of the whole batch: loss, gradients, batch norm."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.distributed.micro_batches import Case, cases, step
from tests.distributed.objective import CLIP, whole
from tests.distributed.ranks import run_ranks
from vatt.config import from_values
from vatt.models.model_config import ModelConfig
from vatt.models.transformer import layers_of
from vatt.models.vatt import Vatt
from vatt.presets import tiny
from vatt.pretraining import objective
from vatt.tasks.pretrain import PretrainConfig
from vatt.training.loop import TrainConfig
from vatt.training.parallel import parallelize

BY_ONE = [c for c in cases() if c.micro_batch and not (c.compiled or c.divided)]


def some(dropout):
    """The cases that have it all, and the others as slow ones."""
    found = []
    for case in BY_ONE:
        if bool(case.dropout) == dropout:
            hard = case.drop_token and case.masks == "uneven"
            found.append(pytest.param(case, id=str(case), marks=[] if hard else [pytest.mark.slow]))
    return found


def assert_equal(found, expected):
    """float32 sums in another order, through batch norm and a temperature of 0.07."""
    assert found.keys() == expected.keys()
    largest = max(value.abs().max().item() for value in expected.values())
    assert_close(found, expected, rtol=1e-4, atol=1e-5 * largest)


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


@pytest.mark.slow  # compiles; torch warns of its own parts meanwhile
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", [case for case in cases() if case.compiled], ids=str)
def test_compiled_layers_draw_the_same_dropout_again(case):
    torch._dynamo.reset()
    found = step(case)
    assert_equal(found, step(replace(case, recompute=False), keep_all=True))
    if not case.dropout:  # whose compiled draws are others
        assert_equal(found, step(Case(0, 0.0, case.drop_token, case.masks)))


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


@pytest.mark.slow  # processes, each of which compiles
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_with_compiled_layers_in_micro_batches_equal_one_process(tmp_path, world_size):
    run_ranks("tests.distributed.micro_batches", str(tmp_path), "compiled", world_size=world_size)
    for case in (case for case in cases() if case.compiled):
        torch._dynamo.reset()
        alone = step(case)
        for rank in range(world_size):
            assert_equal(load_file(tmp_path / f"{case}-{rank}.safetensors"), alone)


@pytest.mark.slow  # processes
@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_in_micro_batches_equal_one_process(tmp_path, world_size):
    run_ranks("tests.distributed.micro_batches", str(tmp_path), world_size=world_size)
    for case in cases():
        if case.compiled:
            continue
        alone = step(case)
        for rank in range(world_size):
            assert_equal(load_file(tmp_path / f"{case}-{rank}.safetensors"), alone)
