"""The paper's own counts (Tables 1, 2, 13, 14) beside those of our modules.

Counted is the model in its official form, computing as the official code does: every patch is
projected before tokens are dropped, and the last layer is computed for all tokens. DropToken needs
training mode, so what the paper calls inference includes dropout where tokens are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from vatt.contracts import ClipSpec
from vatt.costs.flops import (
    Blueprint,
    FlopCounter,
    Flops,
    blueprint,
    count_parameters,
)
from vatt.models.classifier import ClassifierConfig
from vatt.models.model_config import ModelConfig, VideoConfig
from vatt.models.patches import keep_tokens
from vatt.models.transformer import BASE, LARGE, MEDIUM, SMALL, Transformer, TransformerConfig
from vatt.models.variants import as_official

CLASSES_OF_TABLE_1, CLASSES = 600, 400  # Kinetics-600 and -400
VIEWS = 4 * 3  # clips × crops at test time (§4.3)
SIZES = {"Small": SMALL, "Base": BASE, "Medium": MEDIUM, "Large": LARGE}
PRETRAINING = ClipSpec(texts=1)  # Table 13 counts one text; training uses five

TABLE_1 = {"Small": 20.9, "Base": 87.9, "Medium": 155.0, "Large": 306.1}  # million parameters
TABLE_2 = {"Base": 9.09, "Medium": 15.02, "Large": 29.80}  # TFLOPs
TABLE_13 = {0.75: 188.1, 0.5: 375.4, 0.25: 574.2, 0.0: 784.8}  # GFLOPs, by DropToken rate
TABLE_14 = {  # GFLOPs, by frames and side, then by DropToken rate
    (32, 224): {0.0: 548.1},
    (64, 224): {0.0: 1222.1},
    (32, 320): {0.75: 279.8, 0.5: 572.5, 0.25: 898.9, 0.0: 1252.3},
}


@dataclass(frozen=True, slots=True)
class PaperRow:
    """One number of a table of the paper.

    paper: as printed. ours: counted as the paper counts. ours_full: nothing left out.
    Millions of parameters in Table 1, TFLOPs in Table 2, GFLOPs in Tables 13 and 14.
    """

    table: int
    row: str
    column: str
    paper: float
    ours: float
    ours_full: float


def paper_rows() -> list[PaperRow]:
    """Every number of the four tables, counted now on our modules."""
    plans = {name: _classifier_plan(size) for name, size in SIZES.items()}
    high = {
        (name, drop): _classifier_flops(plans[name], (32, 320), drop)
        for name, drop in [("Base", 0.0), ("Large", 0.0), *(("Medium", d) for d in TABLE_13)]
    }
    rows = []
    for name in SIZES:  # the video backbone, its tokens, and a classifier of Kinetics-600
        plan = _classifier_plan(SIZES[name], CLASSES_OF_TABLE_1)
        millions = count_parameters(plan.model).all / 1e6
        rows.append(PaperRow(1, name, "Params (M)", TABLE_1[name], millions, millions))
    for name, paper in TABLE_2.items():
        rows.append(_row(2, f"VATT-{name}", "TFLOPs", paper, high[name, 0.0], VIEWS / 1e12))
    for drop, paper in TABLE_13.items():
        flops = _multimodal_flops(drop)
        rows.append(_row(13, "Multimodal GFLOPs", f"{drop:.0%}", paper, flops, 1e-9))
    for size, papers in TABLE_14.items():
        for drop, paper in papers.items():
            flops = (
                high["Medium", drop]
                if size == (32, 320)
                else _classifier_flops(plans["Medium"], size, drop)
            )
            name = f"{size[0]} × {size[1]} × {size[1]}"
            rows.append(_row(14, name, f"{drop:.0%}", paper, flops, 1e-9))
    return rows


def _model(size: TransformerConfig) -> ModelConfig:
    """The official model with a video backbone of this size, Base for audio, Small for text."""
    return as_official(ModelConfig(video=VideoConfig(transformer=size)))


def _classifier_plan(size: TransformerConfig, classes: int = CLASSES) -> Blueprint:
    return blueprint(ClassifierConfig(modality="video", classes=classes, model=_model(size)))


def _row(table: int, row: str, column: str, paper: float, flops: Flops, unit: float) -> PaperRow:
    return PaperRow(table, row, column, paper, flops.as_paper * unit, flops.full * unit)


def _classifier_flops(plan: Blueprint, size: tuple[int, int], drop: float) -> Flops:
    """Tables 2 and 14: video of (frames, side) to the logits of Kinetics-400."""
    frames, side = size
    clip = replace(PRETRAINING, frames=frames, height=side, width=side)
    with _computing_as_official(plan, drop, training=drop > 0) as counter:
        plan.model(plan.inputs(clip).frames)
    return counter.total


def _multimodal_flops(drop: float) -> Flops:
    """Table 13: video, audio and one text to both common spaces, in training at every rate."""
    plan = blueprint(_model(MEDIUM))
    with _computing_as_official(plan, drop, training=True) as counter:
        plan.model(plan.inputs(PRETRAINING))
    return counter.total


@contextmanager
def _computing_as_official(
    plan: Blueprint, drop: float, *, training: bool
) -> Iterator[FlopCounter]:
    """Backbones drop tokens that were projected, and compute their last layer for all tokens."""

    def official(_: nn.Module, args: Any, kwargs: Any) -> Any:
        (tokens,) = args
        if drop and "key_mask" not in kwargs:  # texts have one, and are never dropped
            patches = tokens.shape[1] - 1
            kept = keep_tokens(torch.zeros(1).long(), patches, drop, stream=0, scope="batch")
            tokens = tokens[:, : 1 + kept.shape[1]]
        return (tokens,), kwargs | {"only_first": False}

    backbones = [part for part in plan.model.modules() if isinstance(part, Transformer)]
    with ExitStack() as hooks, torch.no_grad():
        for backbone in backbones:
            hook = backbone.register_forward_pre_hook(official, with_kwargs=True)
            hooks.callback(hook.remove)
        hooks.callback(plan.model.eval)
        plan.model.train(training)
        yield hooks.enter_context(FlopCounter(of=FakeTensor))
