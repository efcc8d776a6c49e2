import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.testing import assert_close

from tests.distributed.collectives import rows
from tests.distributed.ranks import run_ranks
from tests.distributed.world_of_one import check_collectives, joined
from vatt import distributed
from vatt.training.loop import TrainConfig
from vatt.training.parallel import parallelize

WORLD = 3


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("collectives")
    run_ranks("tests.distributed.collectives", str(out), world_size=WORLD)
    return [load_file(out / f"{rank}.safetensors") for rank in range(WORLD)]


@pytest.mark.distributed
def test_gather_gives_every_rank_all_rows_in_rank_order(found):
    expected = torch.cat([rows(rank) for rank in range(WORLD)])
    for rank, result in enumerate(found):
        assert torch.equal(result["everything"], expected)
        assert result["flags"].tolist() == [True, True, False, True, False, True]
        assert result["who"].tolist() == [rank, WORLD, rank == 0]


@pytest.mark.distributed
def test_gradient_of_gathered_rows_comes_from_the_losses_of_all_ranks(found):
    weight = sum(range(1, WORLD + 1))  # rank r multiplied its loss by r + 1
    for rank, result in enumerate(found):
        assert_close(result["gathered_gradient"], weight * 2 * rows(rank))


@pytest.mark.distributed
def test_sum_and_its_gradient_are_of_all_ranks(found):
    total = torch.stack([rows(rank) for rank in range(WORLD)]).sum(0)
    for result in found:
        assert_close(result["total"], total)
        assert_close(result["summed_gradient"], 6 * 2 * total)


@pytest.mark.distributed
def test_a_step_has_the_same_gradients_bit_for_bit_when_it_is_the_first_and_later(found):
    """Else a run on three or more ranks would not go on as if it had never stopped."""
    for result in found:
        assert torch.equal(*result["steps"])
        assert torch.equal(result["steps"], found[0]["steps"])


@pytest.mark.slow
@pytest.mark.distributed
def test_the_others_wait_for_the_main_rank_beyond_the_time_out(tmp_path):
    run_ranks("tests.distributed.waiting", str(tmp_path), world_size=2)  # each asserts it
    assert (tmp_path / "done").is_file()


@pytest.mark.distributed
def test_a_world_of_one_gathers_sums_and_trains_as_a_process_alone(tmp_path):
    with joined("gloo", tmp_path):
        check_collectives(torch.device("cpu"))


def test_all_ranks_of_a_start_and_of_no_other_have_one_name_in_the_store():
    """torchrun keeps its store; here the ranks are threads, and the last one comes late."""
    store, names = torch._C._distributed_c10d.HashStore(), []

    def begin(rank: int) -> str:
        time.sleep(0.05 * (rank == 2))
        return distributed.name_of_start(store, rank, 3)

    for _ in range(3):
        with ThreadPoolExecutor(3) as pool:
            names.append(set(pool.map(begin, range(3))))
    assert [len(of_start) for of_start in names] == [1, 1, 1]
    assert len(set.union(*names)) == 3


def test_one_process_needs_no_process_group():
    mine = torch.randn(2, 3)
    module = nn.Linear(2, 2)
    with distributed.joined_ranks(torch.device("cpu")):
        assert not torch.distributed.is_initialized()
        assert distributed.gather(mine) is mine
        assert distributed.sum_over_ranks(mine) is mine
        assert distributed.gather_json({"a": 1}) == [{"a": 1}]
        assert parallelize(module, TrainConfig()) is module
        assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
