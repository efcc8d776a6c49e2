"""Losses of classifiers (§4.3 Video and Audio fine-tuning): pure functions of tensors.

Each gives the losses of this rank's clips [B]; the loss of a batch is their mean over the clips of
all ranks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def softmax_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each clip [B] where one class is true.

    Args:
        logits: [B, classes].
        targets: float [B, classes], one-hot rows, smoothed or mixed.
    """
    with torch.autocast(logits.device.type, enabled=False):
        return -(targets.float() * logits.float().log_softmax(-1)).sum(-1)


def balanced_sigmoid_cross_entropy(logits: Tensor, targets: Tensor, all_targets: Tensor) -> Tensor:
    """Cross-entropy of each clip [B] where several classes can be true, summed over the classes.

    A clip weighs the mean, over its labels, of 1 / how often the label occurs in the batch: "the
    inverse of the per-batch number of repetitive labels it carries". Of mixed clips all of this is
    of shares of labels, as in the official code. A clip without a label weighs nothing.

    Args:
        logits: [B, classes].
        targets: float [B, classes] in [0, 1]; rows may be mixed.
        all_targets: [G, classes], those of all ranks, `targets` among them; the same when alone.
    """
    with torch.autocast(logits.device.type, enabled=False):
        targets = targets.float()
        losses = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
        return label_balance(targets, all_targets.float()) * losses.sum(-1)


def label_balance(targets: Tensor, all_targets: Tensor) -> Tensor:
    """Weight of each clip [B]: the mean of 1 / occurrences over its labels (shares count as such).

    Args:
        targets: float [B, classes].
        all_targets: float [G, classes], in which labels are counted.
    """
    counts = all_targets.sum(0)
    shares = torch.where(counts > 0, targets / counts, 0.0).sum(-1)
    labels = targets.sum(-1)
    return torch.where(labels > 0, shares / labels, 0.0)
