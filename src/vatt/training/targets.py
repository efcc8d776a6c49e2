"""Targets of fine-tuning: k-hot classes, label smoothing (§4.3 Video), mixup (§4.3 Audio).

Everything random is drawn before (`draw_mixup`); the rest are functions of the batch alone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vatt.contracts import draw_bits
from vatt.errors import DataError


@dataclass(frozen=True, slots=True)
class Mixup:
    """What each clip is mixed with.

    partner: int64 [B], the row of the other clip; share: float32 [B], how much stays of its own.
    """

    partner: Tensor
    share: Tensor


def k_hot(classes: Sequence[Collection[int]], num_classes: int) -> Tensor:
    """Targets float32 [B, classes] with a 1 at each class of a clip; one-hot where it has one.

    Raises:
        DataError: a class is not in [0, num_classes).
    """
    targets = torch.zeros(len(classes), num_classes)
    for row, found in enumerate(classes):
        if wrong := [number for number in found if not 0 <= number < num_classes]:
            raise DataError(
                f"labels: clip {row} of the batch has class {wrong[0]}, expected 0 to "
                f"{num_classes - 1}; the classifier has too few classes or the labels are of "
                "another data set"
            )
        targets[row, list(found)] = 1.0
    return targets


def smooth(targets: Tensor, alpha: float) -> Tensor:
    """Label smoothing: (1 − α) y + α / classes, of targets [B, classes]."""
    return (1.0 - alpha) * targets + alpha / targets.shape[1]


def draw_mixup(num_clips: int, alpha: float, *seeds: int) -> Mixup:
    """Draw partners and shares for a batch: a function of the seeds.

    Args:
        num_clips: B.
        alpha: > 0; shares are from Beta(alpha, alpha), 5 in the paper.
        seeds: whatever the draw depends on, such as seed, step and rank.

    Returns:
        One permutation of the batch; a share of its own for each clip.
    """
    rng = np.random.default_rng(draw_bits(*seeds))
    partner = torch.from_numpy(rng.permutation(num_clips))
    return Mixup(partner, torch.from_numpy(rng.beta(alpha, alpha, num_clips)).float())


def mix(rows: Tensor, mixup: Mixup) -> Tensor:
    """Each clip's row, share × its own + (1 − share) × its partner's; inputs and targets alike.

    Args:
        rows: float [B, …], on any device.
        mixup: of the same B.
    """
    share = mixup.share.to(rows.device, non_blocking=True).view(-1, *[1] * (rows.ndim - 1))
    others = rows[mixup.partner.to(rows.device, non_blocking=True)]
    return share * rows + (1.0 - share) * others
