"""Run by test_options.py in every rank, and in one process: steps with what is off by default."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.distributed.objective import CLIP, rows_of_rank, whole
from vatt import distributed
from vatt.config import from_values
from vatt.losses import LossConfig
from vatt.models.heads import BOUNDS
from vatt.models.model_config import ModelConfig
from vatt.models.transformer import layers_of
from vatt.models.vatt import Vatt
from vatt.presets import tiny
from vatt.pretraining import objective
from vatt.tasks.pretrain import PretrainConfig
from vatt.training.loop import TrainConfig, whole_batch
from vatt.training.optim import OptimConfig, Optimiser
from vatt.training.parallel import parallelize

STEPS = 3
CASES = list(product(("replicate", "fsdp"), (None, 3), ("official", "sigmoid")))
OPTIMISERS = {"official": "momentum", "sigmoid": "adam"}


def trained(mode: str, micro_batch: int | None, form: str) -> dict[str, Tensor]:
    """Losses, gradients and statistics of each step; weights and averages after all, whole."""
    values = tiny()["model"]
    for name in ("video", "audio", "text"):
        values[name]["transformer"]["dropout"] = 0.0
    values["heads"]["learned"] = "temperature_and_bias" if form == "sigmoid" else "temperature"
    sizes = from_values(ModelConfig, values, where="tiny")
    torch.manual_seed(0)
    model = Vatt(sizes, sum_over_ranks=distributed.sum_over_ranks)
    model.heads.begin_scores(0.1, -5.0)
    settings = PretrainConfig(
        out=Path("unused"),
        clip=CLIP,
        model=sizes,
        loss=LossConfig(form=form),  # type: ignore[arg-type]
        optim=OptimConfig(
            name=OPTIMISERS[form],  # type: ignore[arg-type]
            learning_rate=0.01,
            warmup_steps=0,
            epsilon=0.01,  # else Adam makes steps of size 1 of gradients that are rounding errors
            clip_norm=1.0,
            weight_decay=0.1,
            average=0.5,
        ),
        train=TrainConfig(autocast="off", micro_batch=micro_batch, parallel=mode),  # type: ignore[arg-type]
    )
    spread = parallelize(model.train(), settings.train, layers_of(model))
    saved = model.state_dict().keys()
    optimiser = Optimiser(
        settings.optim,
        model.named_parameters(),
        steps=STEPS,
        bounds=BOUNDS,
        buffers=[(name, value) for name, value in model.named_buffers() if name in saved],
    )
    mine = rows_of_rank(whole("uneven"), distributed.rank(), distributed.world_size())
    found: dict[str, Tensor] = {}
    for step in range(STEPS):
        batch = replace(mine, draw=mine.draw + step)
        shares = objective(batch, spread, settings)
        torch.autograd.backward(shares["loss"])
        seen: dict[str, Tensor | None] = {**whole_batch(shares), **dict(model.named_buffers())}
        seen |= {f"gradient/{name}": weight.grad for name, weight in model.named_parameters()}
        found |= {f"{step}/{name}": copy(value) for name, value in seen.items()}
        optimiser.clip()
        optimiser.step(step)
    averages = {f"average/{name}": value for name, value in optimiser.averages().items()}
    return found | {name: copy(v) for name, v in {**model.state_dict(), **averages}.items()}


def copy(value: Tensor | None) -> Tensor:
    assert value is not None
    return distributed.whole(value).detach().clone()


def main(out: str) -> None:
    torch.set_num_threads(1)
    with distributed.joined_ranks(torch.device("cpu")):
        for case in CASES:
            save_file(trained(*case), path_of(out, case, distributed.world_size()))


def path_of(
    out: str | Path, case: Sequence[object], world_size: int, rank: int | None = None
) -> Path:
    rank = distributed.rank() if rank is None else rank
    return Path(out) / f"{'-'.join(map(str, (*case, world_size, rank)))}.safetensors"
