"""What is evaluated: a trained model and the shards it is judged on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vatt.config import config_hash, from_values, read_toml
from vatt.data.data_config import DataConfig
from vatt.data.datasets import EvalDataset
from vatt.data.loader import make_eval_loader
from vatt.encoder import Encoder, load
from vatt.errors import ConfigError, DataError
from vatt.evaluation.clips import EvalClips, find_clips
from vatt.evaluation.features import SplitFeatures, cached, extract, untrained
from vatt.evaluation.results import file_hash, ids_hash
from vatt.evaluation.retrieval import RetrievalPool, draw_pool, one_clip_per_text
from vatt.models.tokens import WordTokens
from vatt.shards.read import ShardFolder

CLIPS_AT_ONCE = 64
FORMAT_VERSION = "1.0"  # of feature files
Precision = Callable[[torch.device], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A model, where its results go, and how its clips are read.

    run: folder for results.
    encoder: the model with its vocabulary and clip settings.
    data: shards, and the size that clips are decoded at.
    model_hash: of the weights' file.
    precision: makes the context to compute features in.
    """

    run: Path
    encoder: Encoder
    data: DataConfig
    model_hash: str
    precision: Precision

    def dataset(self, split: str) -> ShardFolder:
        """The first of the shard folders that has the split.

        Raises:
            DataError: none has it.
        """
        folders = [ShardFolder.open(folder) for folder in self.data.shards]
        for dataset in folders:
            if split in dataset.info["splits"]:
                return dataset
        found = {str(dataset.folder): sorted(dataset.info["splits"]) for dataset in folders}
        raise DataError(
            f"no video in split {split!r}; the shards have {found}; choose one with --split"
        )

    def features(self, split: str, *, at_most: int | None = None, seed: int = 0) -> SplitFeatures:
        """Features of the clips of a split: from the run's results folder, or extracted now.

        Args:
            split: which videos.
            at_most: about how many clips (see `find_clips`); None for all.
            seed: of the choice of videos, and of the untrained network beside.

        Raises:
            DataError: the split has no clips, or too many cannot be decoded.
        """
        dataset = self.dataset(split)
        moments = find_clips(dataset, split, self.encoder.spec, at_most=at_most, seed=seed)
        name = f"features-{split}-{self._identity(dataset, moments, seed)}.safetensors"
        make = partial(self._extract, dataset, moments, seed)
        arrays = cached(self.run / "results" / name, make)
        kept = set(arrays["positions"].tolist())
        return SplitFeatures(
            split=split,
            moments=tuple(m for position, m in enumerate(moments.moments) if position in kept),
            vectors=arrays,
            peaks=arrays["peaks"],
            failed=tuple(m for position, m in enumerate(moments.moments) if position not in kept),
        )

    def _identity(self, dataset: ShardFolder, moments: EvalClips, seed: int) -> str:
        """Twelve hex digits of all that shapes the features: weights, clips, decoding."""
        contents = dataset.column("sha256")
        clips = (f"{contents[moment.row]} {moment.id}" for moment in moments.moments)
        shapes = (config_hash(self.encoder.spec), str(self.data.rgb_size), str(seed))
        return ids_hash([FORMAT_VERSION, self.model_hash, *shapes, *clips])

    def caption_pool(self, clips: SplitFeatures, size: int, *, seed: int) -> RetrievalPool:
        """Clips to find by their captions: one for each text that the model can tell apart.

        Raises:
            DataError: fewer than two different captions.
        """
        return draw_pool(one_clip_per_text(self.texts_of(clips), seed=seed), size, seed=seed)

    def texts_of(self, clips: SplitFeatures) -> list[str]:
        """The captions as the model sees them; "" where there is none.

        Texts that differ in case, punctuation or unknown words only become equal.
        """
        tokenizer, spec = self.encoder.tokenizer, self.encoder.spec
        if tokenizer is None:
            return clips.captions
        rows = tokenizer.encode(clips.captions, spec.words).tolist()
        return [" ".join(map(str, row)) if row[0] else "" for row in rows]

    @torch.inference_mode()
    def text_input(self, texts: Sequence[str]) -> NDArray[np.float32] | None:
        """Mean token of each text [N, D] where it enters the backbone; None if there is none."""
        tokens_of, tokenizer = self.encoder.module.text_tokens, self.encoder.tokenizer
        if tokenizer is None or not isinstance(tokens_of, WordTokens):
            return None
        ids = torch.from_numpy(tokenizer.encode(texts, self.encoder.spec.words))
        tokens, real = tokens_of(ids.to(self.encoder.device))
        words, kept = tokens[:, 1:], real[:, 1:, None]
        mean: Tensor = (words * kept).sum(1) / kept.sum(1).clamp(min=1)
        return mean.float().cpu().numpy()

    def _extract(self, dataset: ShardFolder, moments: EvalClips, seed: int) -> dict[str, Any]:
        device, spec = self.encoder.device, self.encoder.spec
        places = [(moment.row, moment.start_s) for moment in moments.moments]
        clips = EvalDataset(dataset, places, spec, self.data)
        loader = make_eval_loader(
            clips, batch_size=CLIPS_AT_ONCE, workers=self.data.workers, device=device
        )
        random_init = untrained(self.encoder.module.config, seed=seed).to(device)
        arrays = extract(self.encoder.module, random_init, loader, spec, self.precision(device))
        failed = len(moments) - len(arrays["positions"])
        if failed > self.data.max_bad_fraction * len(moments):
            raise DataError(
                f"{dataset.folder}: {failed} of {len(moments)} clips of split {moments.split!r} "
                f"cannot be decoded, expected at most {self.data.max_bad_fraction:.0%}; run "
                "`vatt prepare` again"
            )
        return arrays


def open_run(
    run: Path, *, precision: Precision, shards: Sequence[Path] = (), device: str | None = None
) -> TrainedRun:
    """Load the model of a run and find what to judge it on.

    Args:
        run: run folder, or a model folder (then `shards` are needed).
        precision: makes the context to compute features in.
        shards: prepared folders; those that the run was trained on when empty.
        device: where to compute; chosen as `vatt.load` does when None.

    Raises:
        CheckpointError: there is no model in `run`.
        ConfigError: no shards are given, and the run does not say what it was trained on.
    """
    encoder = load(run, device)
    settings = run / "config.toml"
    if settings.is_file():
        data = from_values(DataConfig, read_toml(settings)["data"], where=str(settings))
    elif shards:
        data = DataConfig(shards=tuple(shards))
    else:
        raise ConfigError(f"{run}: no config.toml that names shards; give --shards FOLDER")
    if shards:
        data = replace(data, shards=tuple(shards))
    return TrainedRun(
        run, encoder, data, file_hash(encoder.folder / "model.safetensors"), precision
    )
