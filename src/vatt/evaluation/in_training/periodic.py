"""Evaluation while a model is pre-trained: retrieval, nearest neighbours, the best model so far.

It changes nothing of training: rank 0 alone works, with a copy of the weights and without random
numbers, while the others wait however long it takes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vatt import distributed
from vatt.contracts import ClipSpec, FramePath
from vatt.data.augment import apply
from vatt.data.data_config import DataConfig
from vatt.data.datasets import EvalDataset
from vatt.data.loader import make_eval_loader
from vatt.data.tokenizer import WordTokenizer
from vatt.devices import autocast, seeded
from vatt.encoder import Encoder
from vatt.errors import CheckpointError, ConfigError, DataError
from vatt.evaluation.clips import EvalClips, find_clips
from vatt.evaluation.features import CLIPS_AT_ONCE, PRETRAINED, SplitFeatures, network_rows
from vatt.evaluation.metrics import RETRIEVAL_MEASURES, balanced_accuracy
from vatt.evaluation.protocols.zero_shot_pool import audio_and_video, text_to_video
from vatt.evaluation.results import Measure, take
from vatt.evaluation.retrieval import similarities
from vatt.models.model_config import ModelConfig
from vatt.models.vatt import Vatt
from vatt.models.weights import read_settings
from vatt.shards.read import ShardFolder

logger = logging.getLogger(__name__)

RETRIEVALS = ("text_to_video", "audio_to_video", "video_to_audio")
NEIGHBOURS = ("video_neighbours", "audio_neighbours")
ACCURACY = "accuracy"
JUDGED_ON = ("split", "label", "neighbours", "clips", "min_peak", "seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """What is evaluated during pre-training, each `eval_every` steps."""

    shards: tuple[Path, ...] = ()
    """Prepared folders, each judged by itself; those of training when left out."""
    split: str = "val"
    label: str | None = None
    """The column of labels that nearest neighbours are judged by; "none": retrieval alone."""
    neighbours: int = 5
    """How many vote: the nearest clips of other videos of the split."""
    clips: int = 1000
    """About how many clips of each folder, drawn by the seed; they are also the pool."""
    min_peak: float = 0.06
    """Clips whose loudest sample stays below this share of full scale count as silent."""
    measure: str = "text_to_video_R@10"
    """What the best model is best by: text_to_video, audio_to_video or video_to_audio with _R@1,
    _R@5, _R@10 or _MedR; video_neighbours or audio_neighbours; of several folders with the name of
    one in front, as in val-set/text_to_video_R@10."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("neighbours", "clips"):
            if (found := getattr(self, name)) < 1:
                raise ConfigError(f"evaluation.{name}: found {found}, expected >= 1")
        if not 0 <= self.min_peak < 1:
            raise ConfigError(f"evaluation.min_peak: found {self.min_peak}, expected 0 <= … < 1")
        *folder, name = self.measure.rsplit("/", 1)
        known = [f"{one}_{kind}" for one in RETRIEVALS for kind in RETRIEVAL_MEASURES]
        known += NEIGHBOURS if self.label is not None else ()
        sets = {one.name for one in self.shards} if len(self.shards) > 1 else set()
        if name not in known or (set(folder) - sets) or (sets and not folder):
            raise ConfigError(
                f"evaluation.measure: found {self.measure!r}, expected one of "
                f"{', '.join(known)}"
                + (f", with one of {', '.join(sorted(sets))} and a / in front" if sets else "")
            )


@dataclass(frozen=True, slots=True)
class ClipSet:
    """The clips of one folder; prefix: of the names of its measures."""

    prefix: str
    clips: EvalClips
    dataset: EvalDataset


def encoder_of(
    weights: Mapping[str, Tensor],
    *,
    sizes: ModelConfig,
    clip: ClipSpec,
    tokenizer: WordTokenizer,
    path: FramePath,
    device: torch.device,
) -> Encoder:
    """A model by itself, with a copy of these weights."""
    with seeded(0):  # draws numbers, which are replaced
        model = Vatt(sizes)
    model.load_state_dict(dict(weights))
    return Encoder(model.to(device), clip, tokenizer, Path(), path)


def embedded(
    encoder: Encoder, dataset: EvalDataset, workers: int | None
) -> dict[str, NDArray[Any]]:
    """Vectors of the clips that can be read, named as in `SplitFeatures`, with "peaks".

    "positions" says which clips of the list they are.

    Raises:
        DataError: no clip can be read.
    """
    device, path = encoder.device, encoder.frame_path
    loader = make_eval_loader(dataset, batch_size=CLIPS_AT_ONCE, workers=workers, device=device)
    parts = list[dict[str, Tensor]]()
    for batch in loader:
        inputs = apply(batch, dataset.spec, antialias=path.antialias)
        with torch.inference_mode(), autocast(path.autocast, device):
            rows = network_rows(encoder.module, inputs, ("video", "audio"))
        part = {f"{PRETRAINED}/{name}": values.float() for name, values in rows.items()}
        part["peaks"] = batch.waveform.float().abs().amax(1) / 2**15 * batch.has_audio
        part["positions"] = torch.tensor(batch.positions)
        parts.append({name: values.cpu() for name, values in part.items()})
    if not parts:
        raise DataError("evaluation: no clip can be read, expected at least one")
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def clip_sets(config: EvaluationConfig, data: DataConfig, spec: ClipSpec) -> list[ClipSet]:
    """The clips that are evaluated.

    Raises:
        DataError: a folder has no such split, or no clip in it has a label or caption; or none
            has the column of labels.
    """
    folders = [ShardFolder.open(path) for path in config.shards or data.shards]
    if not config.shards:  # perhaps some have no videos to evaluate on
        folders = [one for one in folders if config.split in one.info["splits"]] or folders
    found = list[ClipSet]()
    for shards in folders:
        clips = find_clips({"": shards}, config.split, spec, at_most=config.clips, seed=config.seed)
        places = [(clip.row, clip.start_s) for clip in clips.clips]
        prefix = f"{shards.folder.name}/" if len(folders) > 1 else ""
        found.append(ClipSet(prefix, clips, EvalDataset(shards, places, spec, data)))
    columns = {column for one in found for clip in one.clips.clips for column in clip.labels}
    if config.label not in {None, *columns}:
        raise DataError(
            f"evaluation.label: found {config.label!r}, expected a column of the labels of split "
            f"{config.split!r} ({', '.join(sorted(columns)) or 'there are none'}), or none"
        )
    return found


def better(measure: str, value: float, than: float) -> bool:
    """Of two values of a measure."""
    return value < than if measure.endswith("MedR") else value > than


def best_kept(folder: Path, best: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is to be surpassed: `best`, if the model in `folder` is as good, else that model.

    That may be better: of steps after the checkpoint that a run goes on from. It is worse, or the
    last one, or none, where the best model was not kept for a while.
    """
    try:
        _, _, kept = read_settings(folder)
    except CheckpointError:
        return {}
    if not best or "measure" not in kept:
        return {}
    alike = all(kept.get(name) == best.get(name) for name in ("measure", "judged_on"))
    if alike and not better(best["measure"], best["value"], kept["value"]):
        return best
    return {name: value for name, value in kept.items() if name != "weights"}


class PeriodicEvaluation:
    """Judges a model after so many steps; all ranks call it together.

    best: measure, value and step of the best so far, and what it was judged on; empty before the
        first, also where the settings of the evaluation have changed: such values do not compare.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        data: DataConfig,
        spec: ClipSpec,
        *,
        weights: Callable[[], Mapping[str, Tensor]],
        encoder_of: Callable[[Mapping[str, Tensor]], Encoder],
        best: Mapping[str, Any],
        keep: Callable[[Mapping[str, Any], Mapping[str, Tensor]], None] | None,
    ) -> None:
        """Find the clips.

        Args:
            config: which ones, and what is measured.
            data: how they are read; where, if `config` does not say it.
            spec: what a clip holds.
            weights: the whole ones to judge; called by all ranks together.
            encoder_of: a model with these weights, which it copies.
            best: of the run so far.
            keep: called on rank 0 with the best and its weights.

        Raises:
            DataError: a folder has no such split, or no clip in it has a label or caption.
        """
        self._judged_on = {
            **{name: getattr(config, name) for name in JUDGED_ON},
            "shards": [path.name for path in config.shards],  # which may lie elsewhere now
        }
        same = best.get("measure") == config.measure
        same &= best.get("judged_on", self._judged_on) == self._judged_on
        if best and not same and distributed.is_main():
            logger.warning(
                "evaluation: it is another one than that of step %s, so that the best model is "
                "looked for anew",
                best["step"],
            )
        self.best = dict(best) if same else {}
        self._config, self._weights, self._encoder_of = config, weights, encoder_of
        self._keep, self._workers, self._sets = keep, data.workers, list[ClipSet]()
        if not distributed.is_main():
            return
        self._sets = clip_sets(config, data, spec)

    def __call__(self, step: int) -> dict[str, float]:
        """Measures of the model after so many steps, for the log; empty but on rank 0."""
        weights, values = self._weights(), dict[str, float]()
        if distributed.is_main():
            started, encoder = time.perf_counter(), self._encoder_of(weights)
            for one in self._sets:
                found = self._measured(encoder, one)
                values |= {f"{one.prefix}{name}": value for name, value in found.items()}
            self._compare(step, values, weights)
            logger.info("evaluated after step %d in %.1f s", step, time.perf_counter() - started)
        # Waits without a time-out, unlike the sums and gathers of a step.
        self.best = distributed.from_main(self.best)
        return {f"eval_{name}": value for name, value in values.items()}

    def _compare(
        self, step: int, values: Mapping[str, float], weights: Mapping[str, Tensor]
    ) -> None:
        """Keep the model if it is better than those before."""
        name = self._config.measure
        value = values.get(name)
        if value is None:
            logger.warning("evaluation.measure: %s cannot be measured on these clips", name)
            return
        if not self.best or better(name, value, self.best["value"]):
            self.best = {
                "measure": name,
                "value": value,
                "step": step,
                "judged_on": self._judged_on,
            }
            if self._keep is not None:
                self._keep(self.best, weights)

    def _measured(self, encoder: Encoder, one: ClipSet) -> dict[str, float]:
        """Of one folder; what its clips are too few for is left out."""
        config, found = self._config, one.clips.clips
        vectors = embedded(encoder, one.dataset, self._workers)
        read = vectors["positions"].tolist()
        if len(read) < len(found):
            logger.warning("evaluation: %d clips cannot be read", len(found) - len(read))
        unread = tuple(found[n] for n in sorted(set(range(len(found))) - set(read)))
        clips = SplitFeatures(
            split=config.split,
            clips=tuple(found[n] for n in read),
            vectors=vectors,
            peaks=vectors["peaks"],
            unreadable=unread,
        )
        size, seed = config.clips, config.seed
        audible = partial(audio_and_video, clips, size=size, min_peak=config.min_peak, seed=seed)
        ways: dict[str, Callable[[], Measure]] = {
            "text_to_video": partial(
                text_to_video, {PRETRAINED: encoder}, clips, size=size, seed=seed
            ),
            "audio_to_video": partial(audible, "audio_va", "video_va"),
            "video_to_audio": partial(audible, "video_va", "audio_va"),
        }
        if config.label is not None:
            for name in NEIGHBOURS:
                ways[name] = partial(self._by_neighbours, clips, config.label, name)
        taken, _ = take(ways)
        return {
            name if kind == ACCURACY else f"{name}_{kind}": float(measure[kind])
            for name, measure in taken.items()
            for kind in (ACCURACY, *RETRIEVAL_MEASURES)
            if kind in measure
        }

    def _by_neighbours(self, clips: SplitFeatures, column: str, name: str) -> Measure:
        """Balanced accuracy in [0, 1] of the class of most of the nearest clips of other videos.

        Raises:
            DataError: fewer than two classes.
        """
        labels, videos = clips.labels(column), np.array([clip.key for clip in clips.clips])
        heard = clips.peaks >= max(self._config.min_peak, 1e-9)
        used = (labels != "") & (heard if name.startswith("audio") else True)
        classes, numbers = np.unique(labels[used], return_inverse=True)
        if len(classes) < 2:
            raise DataError(f"neighbours: found the classes {classes.tolist()}, expected 2 or more")
        rows = clips.of(PRETRAINED, name.replace("neighbours", "features"))[used]
        scores = similarities(rows, rows)
        scores[videos[used][:, None] == videos[used]] = -np.inf
        nearest = np.argsort(-scores, axis=1, kind="stable")[:, : self._config.neighbours]
        votes = np.eye(len(classes))[numbers[nearest]] * (
            np.take_along_axis(scores, nearest, axis=1)[..., None] > -np.inf
        )
        predicted = classes[votes.sum(axis=1).argmax(axis=1)]
        return {ACCURACY: balanced_accuracy(predicted, labels[used])}
