"""Learned temperature, the sigmoid loss and moving averages: on two ranks as in one process."""

import math

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.distributed.options import CASES, trained
from tests.distributed.ranks import run_ranks


@pytest.mark.slow  # processes
@pytest.mark.distributed
def test_weights_and_averages_on_two_ranks_are_those_of_one_process(tmp_path):
    run_ranks("tests.distributed.options", str(tmp_path), world_size=2)
    for case in CASES:
        alone = trained("replicate", *case[1:])
        for rank in range(2):
            found = load_file(tmp_path / f"{'-'.join(map(str, case))}-{rank}")
            assert found.keys() == alone.keys()
            # float32 sums in another order, through batch norm and a scale of 10
            assert_close(found, alone, rtol=1e-3, atol=1e-5)


def test_micro_batches_make_the_steps_of_the_whole_batch_and_what_is_learned_moves():
    whole, parts = (trained("replicate", size, "sigmoid") for size in (None, 3))
    assert_close(parts, whole, rtol=1e-3, atol=1e-5)
    for name, start in {"heads.log_scales": math.log(10), "heads.biases": -5.0}.items():
        moved = (whole[name] - start).abs()
        assert (moved > 1e-4).all()
        average = (whole[f"average/{name}"] - start).abs()
        assert torch.all((average > 0) & (average < moved))
