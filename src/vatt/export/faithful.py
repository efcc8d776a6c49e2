"""Whether exported towers do what the model does: embeddings, retrieval, and how fast they are."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vatt.contracts import ClipSpec, FramePath
from vatt.data.augment import apply
from vatt.data.data_config import DataConfig
from vatt.data.datasets import EvalDataset
from vatt.data.loader import make_eval_loader
from vatt.data.tokenizer import WordTokenizer
from vatt.devices import autocast
from vatt.errors import DataError
from vatt.evaluation.clips import find_clips
from vatt.evaluation.retrieval import draw_pool, judge, one_clip_per_text, similarities
from vatt.export.plain_inputs import whole
from vatt.export.tower_card import TowerCard
from vatt.shards.read import ShardFolder

BATCH_SIZES = (1, 2, 5)
CLIPS_AT_ONCE = 32
TOP = 10
SAME = 1e-5  # between numbers of unit rows, and so between cosines, in float32
AUDIBLE = 0.06  # peak of clips that count in retrieval by audio, as in `vatt zero-shot`
Floats = NDArray[np.float32]
Exported = Callable[[NDArray[Any]], Sequence[Floats]]


@dataclass(frozen=True, slots=True)
class RealClips:
    """Inputs to compare with.

    parts: each a few clips, by tower: frames, waveforms.
    captions: of the clips, in their order; "" where there is none.
    peaks: loudest sample of each clip.
    """

    parts: Callable[[], Iterator[Mapping[str, Tensor]]]
    captions: Sequence[str] = ()
    number: int = 0


def clips_of(
    shards: Path, split: str, spec: ClipSpec, path: FramePath, *, at_most: int, workers: int
) -> RealClips:
    """Clips of prepared videos, as evaluation reads them; read anew each time they are asked for.

    Raises:
        DataError: the split has none.
    """
    folder = ShardFolder.open(shards)
    found = find_clips({"": folder}, split, spec, at_most=at_most)
    data = DataConfig(
        shards=(shards,),
        decode=path.decode,
        decode_size=path.decode_size,
        frame_step=path.frame_step,
    )
    dataset = EvalDataset(folder, [(clip.row, clip.start_s) for clip in found.clips], spec, data)

    def parts() -> Iterator[Mapping[str, Tensor]]:
        loader = make_eval_loader(
            dataset, batch_size=CLIPS_AT_ONCE, workers=workers, device=torch.device("cpu")
        )
        for batch in loader:
            inputs = apply(batch, spec, antialias=path.antialias)
            yield {
                "video": inputs.frames,
                "audio": inputs.audio,
                "positions": torch.tensor(batch.positions),
                "peaks": inputs.audio.abs().amax(1) * batch.has_audio,
            }

    return RealClips(parts, [clip.caption for clip in found.clips], len(found))


def random_clips(spec: ClipSpec, *, seed: int = 0) -> RealClips:
    """Noise, where there are no shards: it says whether numbers agree, nothing about retrieval."""
    rng = torch.Generator().manual_seed(seed)
    frames = torch.rand(8, spec.frames, spec.height, spec.width, 3, generator=rng) * 2 - 1
    audio = torch.rand(8, spec.samples, generator=rng) * 2 - 1
    positions = torch.arange(8)
    part = {"video": frames, "audio": audio, "positions": positions, "peaks": audio.amax(1)}
    return RealClips(lambda: iter([part]), (), 8)


@dataclass(slots=True)
class Compared:
    """What the model and an exported tower gave for the same inputs.

    gaps: the largest difference between numbers of unit embeddings (of a classifier: probabilities)
        by batch size.
    rows: of each output, all clips: (the model's, the exported tower's).
    """

    gaps: dict[str, float] = field(default_factory=dict)
    rows: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)


class Comparison:
    """Runs one tower twice, as the model's own and as exported, on the same inputs."""

    def __init__(self, tower: nn.Module, exported: Exported, card: TowerCard) -> None:
        self._tower, self._exported, self._card = tower, exported, card
        self._parts: list[tuple[list[Floats], list[Floats]]] = []
        self._gaps: dict[str, float] = {}

    def add(self, inputs: Tensor) -> None:
        """Compare on these clips, together; the first time also in batches of other sizes."""
        sizes = [] if self._parts else [n for n in BATCH_SIZES if n < len(inputs)]
        for size in sizes:
            self._compare(inputs[:size])
        self._parts.append(self._compare(inputs))

    def _compare(self, inputs: Tensor) -> tuple[list[Floats], list[Floats]]:
        with torch.inference_mode():
            own = [one.float().numpy() for one in self._tower(inputs)]
        values = inputs.numpy()
        other = list(self._exported(whole(values, self._card)))
        key = f"batch {len(inputs)}"
        self._gaps[key] = max(
            self._gaps.get(key, 0.0), *map(self._gap, self._card.outputs, own, other)
        )
        return own, other

    def _gap(self, name: str, own: Floats, other: Floats) -> float:
        """Of what is compared: embeddings, or a classifier's probabilities."""
        if name in ("va", "vt"):
            return float(np.abs(own - other).max())
        if name == "logits":
            pair = (torch.from_numpy(rows).double() for rows in (own, other))
            shares = [one.sigmoid() if self._card.several else one.softmax(1) for one in pair]
            return float((shares[0] - shares[1]).abs().max())
        return 0.0

    def end(self) -> Compared:
        """All that was compared."""
        rows = {}
        for number, name in enumerate(self._card.outputs):
            pairs = ([part[side][number] for part in self._parts] for side in (0, 1))
            own, other = map(np.concatenate, pairs)
            rows[name] = (own, other)
        return Compared(self._gaps, rows)


@dataclass(frozen=True, slots=True)
class RetrievalCheck:
    """Retrieval by the model and by the exported towers.

    top10: queries whose ten best are the same, in the same order; clips whose scores differ by less
        than two roundings may stand in either.
    model, exported: R@10 in per cent.
    """

    queries: int
    top10: int
    model: float
    exported: float


def check_retrieval(
    compared: Mapping[str, Compared],
    captions: Sequence[str],
    peaks: Floats,
    tokenizer: WordTokenizer | None,
    words: int,
    *,
    pool: int,
) -> dict[str, RetrievalCheck]:
    """Text → video and audio → video, where the towers and the clips allow it."""
    found = {}
    video = compared.get("video")
    if video and "text" in compared and tokenizer:
        ids = tokenizer.encode(captions, words)
        texts = [" ".join(map(str, row)) if row[0] else "" for row in ids.tolist()]
        rows = one_clip_per_text(texts, seed=0)
        if len(rows) > 1:
            queries, items = compared["text"].rows["vt_rows"], video.rows["vt_rows"]
            found["text_to_video"] = _retrieval(queries, items, rows, pool)
    if video and "audio" in compared:
        rows = np.flatnonzero(peaks >= AUDIBLE)
        if len(rows) > 1:
            queries, items = compared["audio"].rows["va_rows"], video.rows["va_rows"]
            found["audio_to_video"] = _retrieval(queries, items, rows, pool)
    return found


def _retrieval(
    queries: tuple[Floats, Floats],
    items: tuple[Floats, Floats],
    candidates: NDArray[np.int64],
    size: int,
) -> RetrievalCheck:
    pool = draw_pool(candidates, size, seed=0)
    own, other = (
        similarities(query[pool.rows], item[pool.rows])
        for query, item in zip(queries, items, strict=True)
    )
    measures = [judge(scores, pool)["R@10"] for scores in (own, other)]
    return RetrievalCheck(len(own), same_top(own, other), *map(float, measures))


def same_top(own: Floats, other: Floats, top: int = TOP) -> int:
    """In how many rows the best are the same, in the same order, or differ by rounding alone."""
    order, orders = (np.argsort(-one, axis=1, kind="stable")[:, :top] for one in (own, other))
    mine, theirs = (np.take_along_axis(own, one, axis=1) for one in (order, orders))
    return int((np.abs(mine - theirs) <= 2 * SAME).all(1).sum())


def speeds(
    tower: nn.Module, exported: Exported, inputs: Tensor, card: TowerCard, *, runs: int = 5
) -> dict[str, float]:
    """Milliseconds for one clip, the median of several runs: PyTorch's and the exported tower's."""
    values = whole(inputs.numpy(), card)

    def by_torch(setting: str) -> Callable[[], object]:
        def call() -> object:
            with torch.inference_mode(), autocast(setting, inputs.device):  # type: ignore[arg-type]
                return tower(inputs)

        return call

    ways: dict[str, Callable[[], object]] = {
        "torch_fp32": by_torch("off"),
        "torch_bf16": by_torch("bfloat16"),
        "exported": lambda: exported(values),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(runs + 2):  # the first two warm up; in turns, so that all see the same load
        for name, call in ways.items():
            started = time.perf_counter()
            call()
            if turn >= 2:
                taken[name].append((time.perf_counter() - started) * 1e3 / len(inputs))
    found = {name: statistics.median(times) for name, times in taken.items()}
    return {**found, "times_fp32": found["torch_fp32"] / found["exported"]}


def refuse_difference(compared: Mapping[str, Compared]) -> None:
    """Raise where numbers differ by more than rounding.

    Raises:
        DataError: they do; says where and by how much.
    """
    for name, one in compared.items():
        size, gap = max(one.gaps.items(), key=lambda item: item[1])
        if not gap <= SAME:  # also NaN
            raise DataError(
                f"{name}: exported numbers differ from the model's by {gap:.1e} ({size}), "
                f"expected at most {SAME:g}; nothing was written: please report this model"
            )
