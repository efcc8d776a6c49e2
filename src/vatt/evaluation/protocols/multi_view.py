"""Protocol "multi-view": class scores of labelled examples, averaged over clips × crops (§4.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vatt.contracts import Batch, ClipSpec, FramePath, UnreadableClip
from vatt.data.augment import apply
from vatt.data.loader import Loader
from vatt.devices import autocast
from vatt.errors import DataError
from vatt.evaluation.examples import ExampleClips, JoinedClips, LabelledSpan
from vatt.evaluation.metrics import judge_labels, top_k_accuracy
from vatt.evaluation.views import crop_boxes, mean_over_views
from vatt.models.classifier import Classifier

PROTOCOL = "multi-view"
CLIPS_AT_ONCE = 32
Average = Literal["logits", "probabilities"]


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of examples.

    positions: int [N], ascending, those of the examples that could be read; values: float32
    [N, classes], mean logits, or mean probabilities; features: float32 [N, D], the mean over the
    views of what the linear layer is given; unreadable: the others.
    """

    positions: NDArray[np.int64]
    values: NDArray[np.float32]
    features: NDArray[np.float32]
    unreadable: Sequence[UnreadableClip]


def score(
    model: Classifier,
    source: ExampleClips | JoinedClips,
    path: FramePath,
    *,
    crops: int = 1,
    average: Average = "logits",
    workers: int | None = 0,
    scored: Callable[[int], None] = lambda _: None,
) -> Scores:
    """Scores of all examples; each is decoded once for all its views.

    Args:
        model: in evaluation mode.
        source: the examples and their clips.
        path: how frames come to the model.
        crops: of each clip; of audio there is one view a clip.
        average: over views, of what.
        workers: processes that read.
        scored: is told how many examples are.
    """
    device = next(model.parameters()).device
    size = max(1, CLIPS_AT_ONCE // source.num_clips)
    loader = Loader(source, range(0, len(source), size), size, workers=workers, device=device)
    positions, values, features = list[int](), list[Tensor](), list[Tensor]()
    for batch in loader:
        with torch.inference_mode(), autocast(path.autocast, device):
            seen = [model.features(signal) for signal in _views(model, batch, source, path, crops)]
            each = [model.classify(one).float() for one in seen]
            if average == "probabilities":
                each = [model.probabilities(logits) for logits in each]
        values.append(_of_examples(each, len(batch)))
        features.append(_of_examples([one.float() for one in seen], len(batch)))
        positions += batch.positions
        scored(len(positions))
    if not positions:
        values, features = (
            [torch.zeros(0, width)] for width in (model.config.classes, model.linear.in_features)
        )
    found, seen_by_linear = (torch.cat(parts).numpy() for parts in (values, features))
    return Scores(np.array(positions, np.int64), found, seen_by_linear, loader.unreadable)


def _of_examples(each: Sequence[Tensor], number: int) -> Tensor:
    """Means over the views of examples, of rows [examples × clips, …] for each crop."""
    rows = torch.stack([one.view(number, -1, one.shape[1]) for one in each], dim=2)
    return mean_over_views(rows.flatten(0, 2), rows.shape[1] * rows.shape[2]).cpu()


def _views(
    model: Classifier, batch: Batch, source: ExampleClips | JoinedClips, path: FramePath, crops: int
) -> Iterator[Tensor]:
    """The signal of all clips of a batch, [B × clips, …], once for each crop."""
    spec, number = source.spec, source.num_clips
    if model.config.modality == "audio":
        waveform = batch.waveform.view(len(batch) * number, -1)
        yield waveform.float() / 2**15
        return
    sides = batch.layout[:, 1:3].float()
    for boxes in crop_boxes(sides[:, 1] / sides[:, 0], spec.width / spec.height, crops):
        joined = replace(spec, frames=spec.frames * number)
        frames = apply(replace(batch, crop=boxes), joined, antialias=path.antialias).frames
        yield frames.view(len(batch) * number, spec.frames, *frames.shape[2:])


def judge(
    scores: NDArray[np.floating],
    true: NDArray[np.bool_],
    names: Sequence[str],
    *,
    several: bool,
) -> dict[str, Any]:
    """Top-1 and top-5 accuracy where one class is true; else mAP, AUC and both d′ (§4.4.2).

    Args:
        scores: [N, classes].
        true: bool [N, classes].
        names: of the classes.
        several: whether several classes can be true at once.

    Raises:
        DataError: there is nothing to judge, or a score is NaN.
    """
    if not len(scores):
        raise DataError("evaluation: no example could be read, expected at least one")
    if several:
        found = judge_labels(scores, true, names)
        return {name: getattr(found, name) for name in found.__dataclass_fields__}
    labels = true.argmax(1)
    numbers = {f"top{k}": top_k_accuracy(scores, labels, k) for k in (1, 5) if k < len(names)}
    hits = scores.argmax(1) == labels
    per_class = {
        names[number]: float(hits[labels == number].mean()) for number in np.unique(labels)
    }
    count = {names[number]: int((labels == number).sum()) for number in np.unique(labels)}
    return numbers | {"per_class": per_class, "examples": count}


def confusions(scores: NDArray[np.floating], true: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many examples of each class (rows) were given each class (columns)."""
    counts = np.zeros((true.shape[1], true.shape[1]), np.int64)
    np.add.at(counts, (true.argmax(1), scores.argmax(1)), 1)
    return counts


def distinct_starts(examples: Sequence[LabelledSpan], spec: ClipSpec, clips: int) -> list[int]:
    """How many different clips judge each example: fewer where a video is short."""
    return [len(set(one.clips(spec, clips)[0])) for one in examples]
