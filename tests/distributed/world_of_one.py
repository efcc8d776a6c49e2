"""A process group of this process alone: the collectives run, on any backend."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from vatt import distributed
from vatt.training.loop import TrainConfig
from vatt.training.parallel import parallelize


@contextmanager
def joined(backend: str, folder: Path) -> Iterator[None]:
    dist.init_process_group(backend, init_method=f"file://{folder}/meet", rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def check_collectives(device: torch.device) -> None:
    rows = torch.randn(3, 2, device=device, requires_grad=True)
    gathered = distributed.gather(rows)
    assert gathered is not rows
    assert torch.equal(gathered, rows)
    assert distributed.gather(torch.tensor([True, False], device=device)).tolist() == [True, False]
    assert torch.equal(distributed.sum_over_ranks(rows), rows)
    (gradient,) = torch.autograd.grad(distributed.sum_over_ranks(gathered).square().sum(), rows)
    assert_close(gradient, 2 * rows)
    assert distributed.gather_json({"ä": [1, None]}) == [{"ä": [1, None]}]
    assert distributed.from_main({"ä": [1, None]}) == {"ä": [1, None]}
    distributed.barrier()

    module = nn.Linear(2, 2).to(device)
    spread = parallelize(module, TrainConfig())
    assert isinstance(spread, DistributedDataParallel)
    spread(rows.detach()).square().sum().backward()
    expected = torch.autograd.grad(module(rows.detach()).square().sum(), list(module.parameters()))
    for weight, own in zip(module.parameters(), expected, strict=True):
        assert_close(weight.grad, own)
