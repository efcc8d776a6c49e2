"""A learner without modalities: a small network with dropout on batches made from the step."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_model
from torch import Tensor, nn

from vatt.tensor_files import read_tensors
from vatt.training.loop import Learner
from vatt.training.optim import OptimConfig, Optimiser


@dataclass(frozen=True)
class Pairs:
    keys: tuple[str, ...]
    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)


def pairs(step: int) -> Pairs:
    rng = torch.Generator().manual_seed(step)
    x = torch.randn(8, 4, generator=rng)
    return Pairs(tuple(f"{step}/{i}" for i in range(8)), x, x.sum(1, keepdim=True))


def batches(start: int, end: int):
    for step in range(start, end):
        yield pairs(step)


class Toy:
    """Model, optimiser and learner, fresh from a seed."""

    def __init__(self, *, steps: int, seed: int = 0, **optim):
        torch.manual_seed(1)
        self.model = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Dropout(0.3), nn.Linear(16, 1))
        settings = {"learning_rate": 0.01, "warmup_steps": 2} | optim
        self.optimiser = Optimiser(
            OptimConfig(**settings), self.model.named_parameters(), steps=steps
        )
        self.losses: list[float] = []
        self.learner = Learner(
            model=self.model,
            objective=self.objective,
            optimiser=self.optimiser,
            write_model=self.write_model,
            facts=lambda: {"seen": len(self.losses)},
            seed=seed,
        )

    def objective(self, batch: Pairs) -> dict[str, Tensor]:
        loss = (self.model(batch.x) - batch.y).square().mean()
        self.losses.append(loss.item())
        return {"loss": loss}

    def write_model(self, folder: Path | None, /, *, weights: bool = True) -> None:
        if folder is not None and weights:
            save_model(self.model, str(folder / "model.safetensors"))

    def load(self, folder: Path) -> None:
        self.model.load_state_dict(read_tensors(folder, "model"))

    def weights(self) -> Tensor:
        return nn.utils.parameters_to_vector(self.model.parameters()).detach().clone()
