"""The towers of a model, each from one input to named outputs, as PyTorch can trace them.

Batches have any size. Where position tables are resampled bicubically, so have the inputs: a tower
then resamples them itself. Those of the official code are resampled by a spline, and spectrograms
are of a fixed length: there the sizes are those of the clip.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from vatt.contracts import ClipSpec, FramePath
from vatt.data.tokenizer import WordTokenizer
from vatt.export.tower_card import KEY, Tower, TowerCard
from vatt.models.classifier import Classifier
from vatt.models.model_config import ModelConfig
from vatt.models.positions import RelativeBias, relative_buckets
from vatt.models.tokens import AxisPositions, PatchTokens, WordTokens
from vatt.models.vatt import Vatt

MOST_WORDS = 512
_TRACED_BATCH = 2  # of one, PyTorch would take the number as fixed


class StretchedPositions(nn.Module):
    """As `AxisPositions` with bicubic resampling, for a grid that is known only when it runs."""

    def __init__(self, positions: AxisPositions) -> None:
        super().__init__()
        self.tables, self.norm = positions.tables, positions.norm
        self.transposed = positions.transposed

    def forward(self, grid: Sequence[int]) -> Tensor:
        """Position vectors [N, D] of a grid of patches, last axis fastest."""
        total: Tensor | None = None
        for axis, (table, size) in enumerate(zip(self.tables, grid, strict=True)):
            shape = [1] * len(grid) + [table.shape[1]]
            shape[axis] = size
            image = table.T[None, :, :, None]
            rows = F.interpolate(image, (size, 1), mode="bicubic", align_corners=False)
            rows = rows[0, :, :, 0].T.reshape(shape)
            total = rows if total is None else total + rows
        assert total is not None
        total = (total.transpose(0, 1) if self.transposed else total).flatten(0, -2)
        return total if self.norm is None else self.norm(total)


class SlicedBias(nn.Module):
    """As `RelativeBias`, for a number of words that is known only when it runs."""

    buckets: Tensor

    def __init__(self, bias: RelativeBias) -> None:
        super().__init__()
        self.table = bias.table
        square = relative_buckets(MOST_WORDS + 1, bias.buckets, bias.max_distance)
        line = torch.cat([square[1:, 0].flip(0), square[0]])  # by key − query, the smallest first
        self.register_buffer("buckets", line, persistent=False)

    def forward(self, num_tokens: int) -> Tensor:
        """Bias [heads, N, N] of every query (rows) for every key (columns)."""
        place = torch.arange(num_tokens)
        of = self.buckets[place[None, :] - place[:, None] + MOST_WORDS]
        return F.embedding(of, self.table).permute(2, 0, 1)


class VideoTower(nn.Module):
    """Frames → features, rows in va and vt, and these of length one."""

    def __init__(self, model: Vatt) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """[B, T, H, W, 3] in [-1, 1] → the outputs that `tower_card.OUTPUTS` names."""
        features = self.model.video_features(frames)
        va, vt = self.model.heads.video(features)
        return features, va, vt, F.normalize(va, dim=1), F.normalize(vt, dim=1)


class AudioTower(nn.Module):
    """Waveforms → features, rows in va, and these of length one."""

    def __init__(self, model: Vatt) -> None:
        super().__init__()
        self.model = model

    def forward(self, waveforms: Tensor) -> tuple[Tensor, ...]:
        """[B, S] in [-1, 1] → the outputs that `tower_card.OUTPUTS` names."""
        features = self.model.audio_features(waveforms)
        valid = torch.ones(features.shape[0], dtype=torch.bool)
        va = self.model.heads.audio(features, valid)
        return features, va, F.normalize(va, dim=1)


class TextTower(nn.Module):
    """Word ids → features, rows in vt, and these of length one."""

    def __init__(self, model: Vatt) -> None:
        super().__init__()
        self.model = model

    def forward(self, word_ids: Tensor) -> tuple[Tensor, ...]:
        """int64 [B, L] → the outputs that `tower_card.OUTPUTS` names."""
        features = self.model.text_features(word_ids)
        valid = torch.ones((features.shape[0], 1), dtype=torch.bool)
        vt = self.model.heads.text(features[:, None], valid)[:, 0]
        return features, vt, F.normalize(vt, dim=1)


class ClassifierTower(nn.Module):
    """Frames or waveforms → features and logits."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, signal: Tensor) -> tuple[Tensor, ...]:
        """What the classifier takes → its features and logits."""
        features = self.model.features(signal)
        return features, self.model.classify(features)


TOWERS = {"video": VideoTower, "audio": AudioTower, "text": TextTower}


def tower_of(model: Vatt | Classifier, name: Tower) -> nn.Module:
    """One tower, in evaluation mode, as the model computes it."""
    if isinstance(model, Classifier):
        return ClassifierTower(model).eval()
    return TOWERS[name](model).eval()


def card_of(
    model: Vatt | Classifier,
    name: Tower,
    clip: ClipSpec,
    frame_path: FramePath,
    *,
    model_hash: str,
    tokenizer: WordTokenizer | None = None,
) -> TowerCard:
    """What a tower's file will say of itself."""
    is_classifier = isinstance(model, Classifier)
    config: ModelConfig = model.config.model if isinstance(model, Classifier) else model.config
    bicubic = config.position_resampling == "bicubic"
    spectrogram = name == "audio" and config.audio.kind == "spectrogram"
    patch: tuple[int, ...] = (1,)
    if name == "video":
        patch = config.video.patch
    elif name == "audio" and not spectrogram:
        patch = (config.audio.patch,)
    return TowerCard(
        tower=name,
        classifier=is_classifier,
        model_hash=model_hash,
        clip=clip,
        frame_path=frame_path,
        patch=patch,
        edges=config.edges,
        padding=config.video.mean if name == "video" else (0.0,),
        any_size=not spectrogram and (bicubic or (name == "text" and _needs_no_table(config))),
        audio_kind=config.audio.kind,
        names=model.config.names if isinstance(model, Classifier) else (),
        classes=model.config.classes if isinstance(model, Classifier) else 0,
        several=isinstance(model, Classifier) and model.config.several,
        tokenizer=tokenizer.to_json() if name == "text" and tokenizer else "",
        vocabulary=config.text.vocabulary if name == "text" else 0,
    )


def _needs_no_table(config: ModelConfig) -> bool:
    return config.text.kind == "linear" or config.text.positions == "relative"


def trace(tower: nn.Module, card: TowerCard) -> ExportedProgram:
    """The tower as a graph of tensor operations, without Python."""
    tower = copy.deepcopy(tower).cpu().requires_grad_(False)
    example, sizes = example_of(card), {0: Dim("batch", min=1)}
    if card.any_size:
        for module in list(tower.modules()):
            if isinstance(module, PatchTokens):
                module.edges = "cut"  # nothing is left over: see `TowerCard.patch`
            if isinstance(module, PatchTokens | WordTokens) and module.positions is not None:
                module.positions = StretchedPositions(module.positions)  # type: ignore[assignment]
            if isinstance(module, Vatt) and module.relative_bias is not None:
                module.relative_bias = SlicedBias(module.relative_bias)  # type: ignore[assignment]
        names = {"video": ("frames", "rows", "columns"), "audio": ("samples",), "text": ("words",)}
        for axis, (one, size) in enumerate(zip(names[card.tower], card.patch, strict=True), 1):
            most = {"max": MOST_WORDS} if card.tower == "text" else {}
            sizes[axis] = size * Dim(one, min=1, **most)
    with torch.no_grad():
        return torch.export.export(tower, (example,), dynamic_shapes=(sizes,), strict=False)


def example_of(card: TowerCard) -> Tensor:
    """An input to trace with: as the clip's, at least two patches long along each axis."""
    sizes = list(card.sizes)
    if card.any_size:
        sizes = [max(2, n // p) * p for n, p in zip(sizes, card.patch, strict=True)]
    if card.tower == "text":
        return torch.ones(_TRACED_BATCH, *sizes, dtype=torch.int64)
    channels = [3] if card.tower == "video" else []
    return torch.rand(_TRACED_BATCH, *sizes, *channels) * 2 - 1


def write_torch(program: ExportedProgram, path: Any, card: TowerCard) -> None:
    """Write a file that `torch.export.load` opens, with the card as an extra file in it."""
    torch.export.save(program, path, extra_files={KEY: card.to_json()})


def read_torch(path: Any) -> tuple[nn.Module, str]:
    """The graph of such a file as a module, and the text of its card."""
    extra = {KEY: ""}
    program = torch.export.load(path, extra_files=extra)
    text = extra[KEY]
    json.loads(text)  # else the file is not ours
    return program.module(), text
