"""Ranks on NCCL: a world of one, which goes through the same collectives as a larger one."""

import pytest
import torch

from tests.distributed.world_of_one import check_collectives, joined

pytestmark = pytest.mark.gpu


def test_a_world_of_one_gathers_sums_and_trains_as_a_process_alone(cuda, tmp_path):
    with joined("nccl", tmp_path):
        check_collectives(cuda)


def test_collectives_do_not_wait_for_the_gpu(cuda, no_waiting, tmp_path):
    from vatt import distributed

    with joined("nccl", tmp_path):
        rows = torch.ones(3, 2, device=cuda, requires_grad=True)
        distributed.sum_over_ranks(distributed.gather(rows)).sum().backward()  # connects
        no_waiting()  # from here on waiting is an error
        distributed.sum_over_ranks(distributed.gather(rows)).sum().backward()
        torch.cuda.set_sync_debug_mode("default")
        assert rows.grad is not None
        assert torch.equal(rows.grad, torch.full_like(rows, 2.0))  # of both backward passes
