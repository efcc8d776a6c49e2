"""Learned temperature, sigmoid loss and moving averages, on any ranks as in one process."""

import math

import pytest
import torch
from safetensors.torch import load_file

from tests.distributed.options import CASES, path_of, trained
from tests.distributed.ranks import run_ranks
from tests.distributed.test_micro_batches import assert_equal
from tests.distributed.world_of_one import joined

WORLDS = (2, 3, 4)


@pytest.fixture(scope="module")
def on_ranks(tmp_path_factory):
    out = tmp_path_factory.mktemp("options")
    run_ranks("tests.distributed.options", str(out), world_size=WORLDS)
    return out


@pytest.mark.slow  # processes
@pytest.mark.distributed
@pytest.mark.parametrize("case", CASES, ids=str)
def test_three_steps_on_ranks_are_those_of_one_process(on_ranks, case):
    """Losses, gradients, batch norm, weights and averages."""
    alone = trained("replicate", *case[1:])
    for world_size in WORLDS:
        for rank in range(world_size):
            assert_equal(load_file(path_of(on_ranks, case, world_size, rank)), alone)


@pytest.mark.distributed
def test_a_model_that_is_divided_among_one_rank_is_that_of_one_process(tmp_path):
    alone = trained("replicate", 3, "sigmoid")
    with joined("gloo", tmp_path):
        assert_equal(trained("fsdp", 3, "sigmoid"), alone)


def test_micro_batches_make_the_steps_of_the_whole_batch_and_what_is_learned_moves():
    whole, parts = (trained("replicate", size, "sigmoid") for size in (None, 3))
    assert_equal(parts, whole)
    for name, start in {"heads.log_scales": math.log(10), "heads.biases": -5.0}.items():
        moved = (whole[name] - start).abs()
        assert (moved > 1e-4).all()
        average = (whole[f"average/{name}"] - start).abs()
        assert torch.all((average > 0) & (average < moved))
