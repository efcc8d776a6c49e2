"""Run by test_objective.py in every rank, and in one process: losses and gradients of a batch."""

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from vatt import distributed
from vatt.config import from_values
from vatt.contracts import Batch, ClipSpec
from vatt.losses import LossConfig
from vatt.models.model_config import ModelConfig
from vatt.models.vatt import Vatt
from vatt.presets import tiny
from vatt.pretraining import objective
from vatt.tasks.pretrain import PretrainConfig
from vatt.training.loop import TrainConfig, whole_batch
from vatt.training.parallel import parallelize

CLIP = from_values(ClipSpec, tiny()["clip"], where="tiny")
G = 12
FORMS = ("paper", "official", "symmetric")
MASKS = ("uneven", "none_in_second_half", "none")


def whole(masks: str) -> Batch:
    """G clips; sounds and texts are missing here and there, more in the second half."""
    rng = torch.Generator().manual_seed(0)
    texts = torch.rand(G, CLIP.texts, generator=rng) < torch.linspace(0.9, 0.3, G)[:, None]
    if masks != "uneven":
        texts[G // 2 if masks == "none_in_second_half" else 0 :] = False
    sounds = torch.rand(G, generator=rng) < torch.linspace(0.9, 0.4, G)
    words = torch.randint(1, 256, (G, CLIP.texts, CLIP.words), generator=rng)
    words[8, 0], words[3] = (
        words[1, 1],
        words[2, 0],
    )  # texts of other clips, on the same rank and not
    return Batch(
        keys=tuple(map(str, range(G))),
        starts_s=(0.0, 5.0) * (G // 2),
        videos=(*range(G - 3), 0, 0, 1),  # the last two are the first two clips again
        frames=torch.randint(
            0, 256, (G, CLIP.frames, CLIP.height, CLIP.width, 3), generator=rng, dtype=torch.uint8
        ),
        layout=torch.zeros(G, 5, dtype=torch.int64),
        waveform=torch.randint(-9000, 9000, (G, CLIP.samples), generator=rng, dtype=torch.int16),
        has_audio=sounds,
        word_ids=words * texts[..., None],
        text_mask=texts,
        draw=torch.randint(0, 2**62, (G,), generator=rng),
        positions=tuple(range(G)),
        crop=torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(G, 1),
        flip=torch.zeros(G, dtype=torch.bool),
        colour=torch.tensor([[0.0, 1.0, 1.0, 0.0]]).repeat(G, 1),
        gain=torch.ones(G),
    )


def rows_of_rank(batch: Batch, rank: int, world_size: int) -> Batch:
    share = G // world_size
    part = slice(rank * share, (rank + 1) * share)
    return replace(
        batch, **{field.name: getattr(batch, field.name)[part] for field in fields(batch)}
    )


def cases() -> Iterator[tuple[str, str, str]]:
    for shared in ("specific", "shared"):
        for form in FORMS if shared == "specific" else FORMS[:1]:
            for masks in MASKS:
                yield shared, form, masks


def losses_and_gradients(shared: str, form: str, masks: str) -> dict[str, Tensor]:
    """Of the whole batch, summed over ranks; dropout off, DropToken on."""
    config = from_values(ModelConfig, tiny()["model"], where="tiny")
    towers = {
        name: replace(
            getattr(config, name),
            transformer=replace(getattr(config, name).transformer, dropout=0.0),
        )
        for name in ("video", "audio", "text")
    }
    torch.manual_seed(0)
    model = Vatt(
        replace(config, shared=shared == "shared", **towers),
        sum_over_ranks=distributed.sum_over_ranks,
    )
    settings = PretrainConfig(
        out=Path("unused"),
        clip=CLIP,
        loss=LossConfig(form=form),  # type: ignore[arg-type]
        train=TrainConfig(autocast="off"),
    )
    mine = rows_of_rank(whole(masks), distributed.rank(), distributed.world_size())
    spread = parallelize(model, settings.train)  # lives until the gradients are there
    shares = objective(mine, spread, settings)
    torch.autograd.backward(shares["loss"])
    found = {f"loss/{name}": v for name, v in whole_batch(shares).items()}
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        found[f"gradient/{name}"] = weight.grad
    return found | {f"buffer/{name}": value for name, value in model.named_buffers()}


def main(out: str) -> None:
    torch.set_num_threads(1)
    with distributed.joined_ranks(torch.device("cpu")):
        for case in cases():
            found = losses_and_gradients(*case)
            save_file(found, Path(out) / f"{'-'.join(case)}-{distributed.rank()}.safetensors")
