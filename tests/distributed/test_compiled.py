"""A step with compiled layers is the step without them, however it is divided."""

from dataclasses import replace

import pytest

from tests.distributed.compiled import SIZES, WORLDS, cases, results
from tests.distributed.micro_batches import step
from tests.distributed.ranks import run_ranks
from tests.distributed.test_micro_batches import assert_equal

pytestmark = [pytest.mark.slow, pytest.mark.distributed, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("compiled")
    run_ranks("tests.distributed.compiled", str(out), world_size=WORLDS)
    return str(out)


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_compiled_layers_on_any_ranks_give_the_gradients_of_the_undivided_batch(found, case):
    """With dropout, those of one process that computes nothing twice: it draws other masks."""
    by_whom = results(found, case)
    assert len(by_whom) == 1 + bool(case.micro_batch) + sum(WORLDS)
    undivided = replace(case, micro_batch=0, compiled=False)
    expected = by_whom["1-kept"] if case.dropout else step(undivided, sizes=SIZES)
    for one in by_whom.values():
        assert_equal(one, expected)
