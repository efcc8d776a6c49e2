"""A step in micro-batches; run by test_micro_batches.py in every rank, and in one process."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.distributed.objective import CLIP, rows_of_rank, whole
from vatt import distributed
from vatt.config import from_values
from vatt.devices import AutocastSetting
from vatt.losses import LossConfig
from vatt.models.model_config import ModelConfig
from vatt.models.transformer import layers_of
from vatt.models.vatt import Vatt
from vatt.presets import Values, tiny
from vatt.pretraining import objective
from vatt.tasks.pretrain import PretrainConfig
from vatt.training.loop import TrainConfig, whole_batch
from vatt.training.parallel import parallelize


@dataclass(frozen=True)
class Case:
    """A way to make one step. micro_batch 0: undivided."""

    micro_batch: int
    dropout: float
    drop_token: float
    masks: str
    recompute: bool = False
    compiled: bool = False
    divided: bool = False
    together: bool = False  # all clips drop the same tokens

    def __str__(self) -> str:
        rest = ["again"] * self.recompute + ["compiled"] * self.compiled + ["fsdp"] * self.divided
        rest += ["together"] * self.together
        return "-".join(
            [str(self.micro_batch), f"{self.dropout}", f"{self.drop_token}", self.masks, *rest]
        )


def cases() -> Iterator[Case]:
    """Micro-batches of 3 are the whole share of a rank of 4; with 2 its last one has one clip.

    Undivided, ranks draw dropout of their own: there it is off.
    """
    for drop_token, masks in product((0.0, 0.5), ("uneven", "none_in_second_half")):
        yield Case(0, 0.0, drop_token, masks)
    for micro_batch, dropout, drop_token, masks in product(
        (1, 2, 3), (0.0, 0.2), (0.0, 0.5), ("uneven", "none_in_second_half")
    ):
        if micro_batch != 2 or not dropout:  # with dropout the cuts must be the same on all ranks
            yield Case(micro_batch, dropout, drop_token, masks)
    yield Case(3, 0.2, 0.5, "uneven", recompute=True)
    yield Case(0, 0.0, 0.5, "uneven", together=True)
    yield Case(3, 0.0, 0.5, "uneven", together=True)
    for micro_batch, recompute in product((0, 1, 3), (False, True)):
        dropout = 0.2 if micro_batch else 0.0
        yield Case(micro_batch, dropout, 0.5, "uneven", recompute, divided=True)


def step(
    case: Case,
    *,
    sizes: Values | None = None,
    keep_all: bool = False,
    autocast: AutocastSetting = "off",
) -> dict[str, Tensor]:
    """Losses, gradients and statistics of the whole batch.

    keep_all: micro-batches keep all for the backward pass, so that nothing is computed twice.
    """
    config = from_values(ModelConfig, sizes or tiny()["model"], where="tiny")
    towers = {
        name: replace(
            getattr(config, name),
            transformer=replace(getattr(config, name).transformer, dropout=case.dropout),
        )
        for name in ("video", "audio", "text")
    }
    torch.manual_seed(0)
    config = replace(
        config,
        drop_token=case.drop_token,
        drop_token_scope="batch" if case.together else "sample",
        **towers,
    )
    model = Vatt(config, sum_over_ranks=distributed.sum_over_ranks)
    settings = PretrainConfig(
        out=Path("unused"),
        clip=CLIP,
        model=config,
        loss=LossConfig(form="official"),
        train=TrainConfig(
            autocast=autocast,
            micro_batch=case.micro_batch or None,
            recompute=case.recompute,
            compile=case.compiled,
            parallel="fsdp" if case.divided else "replicate",
        ),
    )
    mine = rows_of_rank(whole(case.masks), distributed.rank(), distributed.world_size())
    spread = parallelize(model.train(), settings.train, layers_of(model))
    if keep_all:
        with mock.patch("vatt.models.vatt.checkpoint", lambda part, features, **_: part(features)):
            shares = objective(mine, spread, settings)
    else:
        shares = objective(mine, spread, settings)
    torch.autograd.backward(shares["loss"])
    found = {f"loss/{name}": value for name, value in whole_batch(shares).items()}
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        found[f"gradient/{name}"] = distributed.whole(weight.grad)
    return found | {f"buffer/{name}": value for name, value in model.named_buffers()}


def main(out: str) -> None:
    torch.set_num_threads(1)
    with distributed.joined_ranks(torch.device("cpu")):
        for case in cases():
            save_file(step(case), Path(out) / f"{case}-{distributed.rank()}.safetensors")
