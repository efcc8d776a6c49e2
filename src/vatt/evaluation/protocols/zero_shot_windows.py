"""Protocols "vatt" and "milnce": captions and videos find each other, by several windows of each.

Every caption of a split is a query, every captioned stretch of a video an item: no pool is drawn,
and none is thinned out. The embeddings of a video's windows are averaged and then made unit. Ranks
are expectations over ties; right is the own video only, also where another has the same caption.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vatt.any_encoder import OpenedEncoder
from vatt.contracts import ClipSpec
from vatt.errors import ConfigError, DataError
from vatt.evaluation.examples import LabelledSpan
from vatt.evaluation.metrics import rank_relevant, recalls
from vatt.evaluation.results import Measure, ids_hash
from vatt.evaluation.retrieval import similarities

CLIPS_AT_ONCE, TEXTS_AT_ONCE = 32, 256


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsProtocol:
    """How retrieval is measured.

    says: where it is described, and what of it.
    windows: clips of each video, spread evenly over the captioned stretch.
    frames, fps, side: of a clip; it is the largest centred square, scaled.
    stored_fps: frames per second that shards must have.
    """

    name: str
    says: str
    windows: int
    frames: int
    fps: float
    side: int
    stored_fps: float

    def clip(self, own: ClipSpec) -> ClipSpec:
        """The clip of the protocol, of a model that was trained on another; texts as they are."""
        side = self.side
        return replace(own, frames=self.frames, fps=self.fps, height=side, width=side)

    def differences(self, clip: ClipSpec) -> list[str]:
        """What is not as the protocol says, each a sentence."""
        wanted = self.clip(clip)
        return [
            f"clip: {name} {getattr(clip, name):g}, by the protocol {getattr(wanted, name):g}"
            for name in ("frames", "fps", "height", "width")
            if getattr(clip, name) != getattr(wanted, name)
        ]


VATT = WindowsProtocol(
    name="vatt",
    says="§4.3: 32 frames at 25 fps with a stride of 2, 224 × 224 centre; 4 windows, averaged, "
    "then unit",
    windows=4,
    frames=32,
    fps=12.5,
    side=224,
    stored_fps=25.0,
)
MILNCE = WindowsProtocol(
    name="milnce",
    says="github.com/antoine77340/MIL-NCE_HowTo100M (README, eval_*.py): 10 windows of 3.2 s, "
    "evenly from the stretch's start to its end, centre squares of 224, averaged; here 32 frames "
    "at 10 fps (16 at 5 in that code), and cosines (there products of raw embeddings, as its loss "
    "has them)",
    windows=10,
    frames=32,
    fps=10.0,
    side=224,
    stored_fps=10.0,
)
WINDOWS_PROTOCOLS = {one.name: one for one in (VATT, MILNCE)}


def judge_windows(
    examples: Sequence[LabelledSpan], vectors: NDArray[np.float32], texts: NDArray[np.float32]
) -> dict[str, Measure]:
    """Recalls and median ranks both ways.

    Args:
        examples: [N] captioned stretches; their labels are the captions.
        vectors: [N, V, E] of their windows.
        texts: [Q, E] of all captions, in the order of the examples.

    Raises:
        DataError: fewer than two stretches.
    """
    if len(examples) < 2:
        raise DataError(f"retrieval: found {len(examples)} captioned stretches, expected 2 or more")
    owner = np.repeat(np.arange(len(examples)), [len(one.labels) for one in examples])
    relevant = owner[:, None] == np.arange(len(examples))[None]
    scores = similarities(texts, vectors)
    captions = [text for one in examples for text in one.labels]
    shared = sum(count for count in Counter(captions).values() if count > 1)
    about = {
        "captions": len(captions),
        "videos": len(examples),
        "captions_that_several_have": shared,
        "ids_hash": ids_hash(one.id for one in examples),
    }
    return {
        "text_to_video": _measure(scores, relevant, about),
        "video_to_text": _measure(scores.T, relevant.T, about),
    }


def _measure(
    scores: NDArray[np.float32], relevant: NDArray[np.bool_], about: dict[str, Any]
) -> Measure:
    chance = recalls(rank_relevant(np.zeros_like(scores), relevant))
    return {
        **recalls(rank_relevant(scores, relevant)),
        **{f"chance_{name}": value for name, value in chance.items()},
        "n": len(scores),
        **about,
    }


def embed_texts(opened: OpenedEncoder, examples: Sequence[LabelledSpan]) -> NDArray[np.float32]:
    """Unit rows of all captions [Q, E], in the order of the examples.

    Raises:
        CheckpointError: ours has no vocabulary.
        ConfigError: the encoder takes no texts.
    """
    captions = [text for one in examples for text in one.labels]
    parts = (captions[at : at + TEXTS_AT_ONCE] for at in range(0, len(captions), TEXTS_AT_ONCE))
    rows = [_vt(opened.encoder.encode_text(part), opened.name) for part in parts]
    found: NDArray[np.float32] = torch.cat(rows).float().cpu().numpy()
    return found


def _vt(encoded: Any, name: str) -> Tensor:
    rows: Tensor | None = encoded.vt
    if rows is None:
        raise ConfigError(f"{name}: gives no vt, the space of video and text: no retrieval by text")
    return rows
