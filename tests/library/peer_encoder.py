"""An encoder without weights: words and colours have directions of their own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tests.library.small_index import WIDTH
from vatt.contracts import ClipSpec

HASH, UNKNOWN = "peer", "blorb"


@dataclass
class Rows:
    vt: Tensor | None = None
    va: Tensor | None = None
    unknown: Tensor | None = None


class Peer:
    spec = ClipSpec(frames=2, fps=4, height=8, width=8, sample_rate_hz=8000, words=8)
    model_hash = HASH

    def encode_text(self, texts):
        rows = [torch.stack([direction(word) for word in text.split()]).sum(0) for text in texts]
        unknown = [text.split().count(UNKNOWN) / len(text.split()) for text in texts]
        return Rows(vt=normalize(torch.stack(rows), dim=1), unknown=torch.tensor(unknown))

    def encode_video(self, frames):
        mean = frames.mean((1, 2, 3))
        rows = normalize(torch.cat([mean, torch.ones(len(mean), WIDTH - 3)], 1), dim=1)
        return Rows(vt=rows, va=rows)

    def encode_audio(self, waveforms, *, sample_rate_hz):
        loud = waveforms.abs().mean(1, keepdim=True)
        return Rows(va=normalize(torch.cat([loud, torch.ones(len(loud), WIDTH - 1)], 1), dim=1))


def direction(word: str) -> Tensor:
    seed = int(hashlib.sha256(word.encode()).hexdigest()[:8], 16)
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))


def make() -> Peer:
    return Peer()
