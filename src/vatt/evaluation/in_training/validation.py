"""Validation while a classifier is trained: its measures for the log, the best model so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits

from vatt import distributed
from vatt.contracts import ClipSpec, FramePath
from vatt.data.data_config import DataConfig
from vatt.evaluation.examples import (
    ExampleClips,
    LabelledSpan,
    k_hot_of,
    refuse_other_classes,
    refuse_several,
)
from vatt.evaluation.protocols.multi_view import judge, score
from vatt.losses import softmax_cross_entropy
from vatt.models.classifier import Classifier
from vatt.shards.read import ShardFolder

Found = Sequence[tuple[ShardFolder, Sequence[LabelledSpan]]]


class Validation:
    """Judges a classifier after so many steps, by one central view of each example.

    All ranks call it together; each scores its share of the examples.

    best: measure, value and step of the best so far; empty before the first.
    latest: the measures of the last validation.
    """

    def __init__(
        self,
        model: Classifier,
        found: Found,
        data: DataConfig,
        spec: ClipSpec,
        path: FramePath,
        *,
        best: Mapping[str, Any],
        keep: Callable[[Mapping[str, Any]], None] | None,
    ) -> None:
        """Set up.

        Args:
            model: is put back into training mode after each validation.
            found: examples by shard folder.
            data: how clips are read.
            spec: what a clip holds.
            path: how frames come to the model.
            best: of the run so far.
            keep: writes a model that is better than those before; called on every rank.

        Raises:
            DataError: the examples name classes that the model has not.
        """
        self.best, self.latest = dict(best), dict[str, float]()
        self._model, self._path, self._keep = model, path, keep
        examples = [one for _, part in found for one in part]
        names = model.config.names
        labelled = sorted({name for one in examples for name in one.labels})
        refuse_other_classes(names, labelled, "validation")
        if not model.config.several:
            refuse_several(examples)
        ranks, rank = distributed.world_size(), distributed.rank()
        self._sources = [
            (len(part), ExampleClips(folder, part[rank::ranks], spec, data, clips=1))
            for folder, part in found
        ]
        self._true = k_hot_of(examples, names)

    def __call__(self, step: int) -> dict[str, float]:
        """Measures of the model after so many steps, for the log."""
        self._model.eval()
        logits = np.concatenate([self._logits(*source) for source in self._sources])
        self._model.train()
        read = ~np.isnan(logits).any(1)
        several = self._model.config.several
        measures = judge(logits[read], self._true[read], self._model.config.names, several=several)
        numbers = {name: value for name, value in measures.items() if isinstance(value, float)}
        found, targets = torch.from_numpy(logits[read]), torch.from_numpy(self._true[read]).float()
        losses = softmax_cross_entropy(found, targets)
        if several:
            losses = binary_cross_entropy_with_logits(found, targets, reduction="none").sum(-1)
        self.latest = {**numbers, "loss": losses.mean().item(), "examples": int(read.sum())}
        measure, value = next(iter(numbers.items()))  # top1, or mean_ap
        if not self.best or value > self.best["value"]:
            self.best = {"measure": measure, "value": value, "step": step}
            if self._keep is not None:
                self._keep(self.best)
        return {f"val_{name}": value for name, value in self.latest.items()}

    def _logits(self, number: int, source: ExampleClips) -> NDArray[np.float32]:
        """Of all examples of a folder, of all ranks, in their order; NaN: unreadable."""
        ranks = distributed.world_size()
        mine = torch.full((ceil(number / ranks), self._model.config.classes), torch.nan)
        found = score(self._model, source, self._path)
        mine[torch.from_numpy(found.positions)] = torch.from_numpy(found.values)
        device = next(self._model.parameters()).device
        every = distributed.gather(mine.to(device)).view(ranks, *mine.shape).transpose(0, 1)
        rows: NDArray[np.float32] = every.flatten(0, 1)[:number].cpu().numpy()
        return rows
