"""What the losses of a batch take at their real size, on random embeddings: memory and time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from vatt.contracts import Embeddings
from vatt.devices import peak_use
from vatt.losses import SCORES_AT_ONCE, Identity, LossConfig, contrast
from vatt.models.heads import HeadsConfig


@dataclass(frozen=True, slots=True)
class LossCost:
    """Of the forward and backward pass of both losses, for one process.

    bytes: in use at most beyond the embeddings: scores, what is made of them, gradients; where the
        system does not say, the scores of a chunk as counted.
    """

    bytes: int
    seconds: float


def cost_of_losses(
    config: LossConfig, heads: HeadsConfig, rows: int, columns: int, texts: int,
    device: torch.device, *, most_scores: int | None = None,
) -> LossCost:  # fmt: skip
    """Contrast so many clips of a process with those of a whole batch, all different.

    Args:
        config: form and chunk.
        heads: how wide the spaces are.
        rows: clips of the process.
        columns: of all processes.
        texts: of a clip.
        device: where.
        most_scores: fewer columns are enough to make so many; the time is extrapolated from them.
    """
    used = columns if most_scores is None else min(columns, max(1, most_scores // (rows * texts)))
    drawn = torch.Generator(device).manual_seed(0)

    def unit(*shape: int) -> Tensor:
        noise = torch.randn(shape, device=device, generator=drawn)
        return F.normalize(noise, dim=-1).requires_grad_()

    def embeddings(clips: int) -> Embeddings:
        return Embeddings(
            video_va=unit(clips, heads.va),
            audio_va=unit(clips, heads.va),
            video_vt=unit(clips, heads.vt),
            text_vt=unit(clips, texts, heads.vt),
            has_audio=torch.ones(clips, dtype=torch.bool, device=device),
            text_mask=torch.ones(clips, texts, dtype=torch.bool, device=device),
        )

    def identity(clips: int) -> Identity:
        number = torch.arange(clips, device=device)
        return Identity(number, number, torch.arange(clips * texts, device=device).view(clips, -1))

    def work(rows: int, columns: int, config: LossConfig) -> Callable[[], None]:
        mine, all_ranks = embeddings(rows), embeddings(columns)
        known = identity(rows), identity(columns)

        def run() -> None:
            total = contrast(mine, all_ranks, config, known).total
            torch.autograd.backward(total)
            total.item()  # waits for the device

        return run

    work(2, 2, replace(config, chunk=1))()  # else modules that are imported now would count
    run = work(rows, used, config)
    with peak_use(device) as peak:
        started = time.perf_counter()
        run()
        seconds = time.perf_counter() - started
    return LossCost(_or_counted(peak.bytes, config, rows, used * texts), seconds * columns / used)


def _or_counted(found: int | None, config: LossConfig, rows: int, columns: int) -> int:
    scores = rows * (config.chunk or SCORES_AT_ONCE // rows)
    return min(scores, rows * columns) * 4 if found is None else found
