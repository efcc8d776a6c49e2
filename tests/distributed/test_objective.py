import pytest
from safetensors.torch import load_file

from tests.distributed.objective import cases, losses_and_gradients
from tests.distributed.ranks import run_ranks
from tests.distributed.test_micro_batches import assert_equal

pytestmark = pytest.mark.slow  # two processes for all cases, and one for each


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory):
    out = tmp_path_factory.mktemp("objective")
    run_ranks("tests.distributed.objective", str(out), world_size=2)
    return out


@pytest.mark.distributed
@pytest.mark.parametrize("case", list(cases()), ids="-".join)
def test_two_ranks_equal_one_process_on_the_joined_batch(on_two_ranks, case):
    alone = losses_and_gradients(*case)
    for rank in range(2):
        assert_equal(load_file(on_two_ranks / f"{'-'.join(case)}-{rank}.safetensors"), alone)


@pytest.mark.distributed
def test_the_comparison_sees_gradients_that_matter():
    alone = losses_and_gradients("specific", "paper", "uneven")
    largest = max(v.abs().max().item() for k, v in alone.items() if k.startswith("gradient/"))
    assert largest > 0.05
    assert alone["loss/video_text"] > 0.5
    assert losses_and_gradients("specific", "paper", "none")["loss/video_text"] == 0
