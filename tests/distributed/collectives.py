"""Run by test_distributed.py in every rank: gather and sum with gradients."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from vatt import distributed
from vatt.training.loop import TrainConfig
from vatt.training.parallel import parallelize


def rows(rank: int) -> torch.Tensor:
    return torch.randn(3, 2, generator=torch.Generator().manual_seed(rank))


def gradients_of_each_step(rank: int) -> torch.Tensor:
    """The same step twice, [2, weights]; DDP orders its buckets anew after the first."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 50), nn.GELU(), nn.Linear(50, 30), nn.GELU())
    spread = parallelize(model, TrainConfig())
    found = []
    for _ in range(2):
        model.zero_grad()
        torch.autograd.backward(spread(rows(rank)).square().sum())
        found.append(
            torch.cat([w.grad.flatten() for w in model.parameters() if w.grad is not None])
        )
    return torch.stack(found)


def main(out: str) -> None:
    with distributed.joined_ranks(torch.device("cpu")):
        rank, world = distributed.rank(), distributed.world_size()
        mine = rows(rank).requires_grad_()
        everything = distributed.gather(mine)
        flags = distributed.gather(torch.tensor([rank == 0, True]))
        # each rank's share looks at all rows, its own way
        torch.autograd.backward(everything.square().sum() * (rank + 1))
        gathered_gradient = mine.grad
        assert gathered_gradient is not None

        mine = rows(rank).requires_grad_()
        total = distributed.sum_over_ranks(mine)
        torch.autograd.backward(total.square().sum() * (rank + 1))
        assert mine.grad is not None
        told = distributed.gather_json({"rank": rank, "seen": ["ä"] * rank})
        assert told == [{"rank": r, "seen": ["ä"] * r} for r in range(world)]
        assert distributed.from_main({"of": ["ä"] * (rank + 1)}) == {"of": ["ä"]}
        to_main = list(distributed.each_to_main(["ä"] * rank))
        assert to_main == ([["ä"] * r for r in range(world)] if rank == 0 else [])
        save_file(
            {
                "everything": everything.detach(),
                "flags": flags,
                "gathered_gradient": gathered_gradient,
                "total": total.detach(),
                "summed_gradient": mine.grad,
                "steps": gradients_of_each_step(rank),
                "who": torch.tensor([rank, world, distributed.is_main()]),
            },
            Path(out) / f"{rank}.safetensors",
        )
