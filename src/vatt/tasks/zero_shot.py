"""`vatt zero-shot`: retrieval across modalities and classes from text, without training (§4.3).

A clip for each labelled stretch (or caption) of the split, without augmentation. Text → video: the
pool holds one clip for each different caption. Audio → video and back: clips that can be heard.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional

from vatt.devices import autocast
from vatt.encoder import Encoder
from vatt.errors import ConfigError, DataError
from vatt.evaluation.features import PRETRAINED, RANDOM_INIT, SplitFeatures, untrained
from vatt.evaluation.metrics import balanced_accuracy
from vatt.evaluation.results import ids_hash, take, write_result
from vatt.evaluation.retrieval import (
    RetrievalPool,
    ceiling,
    draw_pool,
    judge,
    num_sharing,
    similarities,
    unit_rows,
)
from vatt.evaluation.trained_run import TrainedRun, open_run

PROTOCOL = "zero-shot-pool"
Prompts = Mapping[str, Mapping[str, Sequence[str]]]  # label column → class → sentences


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroShotConfig:
    """Judge a model by retrieval and by classification from text, without any training."""

    run: Positional[Path]
    """Run folder (or model folder); results/zero-shot.json is written into it."""
    shards: tuple[Path, ...] = ()
    """Prepared folders to judge on; those of the run's config.toml when left out."""
    split: str = "test"
    pool: int = 500
    """Most clips to retrieve from; drawn by the seed where there are more."""
    min_peak: float = 0.06
    """Clips whose loudest sample stays below this share of full scale count as silent."""
    prompts: Path | None = None
    """JSON: label column → class → sentences; enables classification by text."""
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        if self.pool < 2:
            raise ConfigError(f"pool: found {self.pool}, expected 2 or more")
        if not 0 <= self.min_peak < 1:
            raise ConfigError(f"min_peak: found {self.min_peak}, expected 0 <= … < 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroShotResult:
    """Where the numbers are, and the numbers: recalls in per cent, accuracies in [0, 1]."""

    path: Path
    measures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


def run(config: ZeroShotConfig) -> ZeroShotResult:
    """Measure, and write results/zero-shot.json.

    Raises:
        CheckpointError: there is no model, or it has no vocabulary.
        DataError: the split has no clips, or the prompts do not fit its labels.
    """
    prompts = read_prompts(config.prompts) if config.prompts else {}
    precision = partial(autocast, "auto")
    subject = open_run(config.run, precision=precision, shards=config.shards, device=config.device)
    clips = subject.features(config.split, seed=config.seed)
    encoders = {PRETRAINED: subject.encoder, RANDOM_INIT: before_training(subject, config.seed)}
    measures, left_out = take(
        {
            "text_to_video": partial(text_to_video, subject, clips, encoders, config),
            "audio_to_video": partial(audio_to_video, clips, config),
            "video_to_audio": partial(video_to_audio, clips, config),
        }
    )
    for column, sentences in prompts.items():
        measures[f"{column}_from_text"] = label_from_text(clips, encoders, column, sentences)
    result = {
        "protocol": PROTOCOL,
        "split": config.split,
        "seed": config.seed,
        "model_hash": subject.model_hash,
        "clips": len(clips.moments),
        "clips_failed": len(clips.failed),
        **measures,
        "left_out": left_out,
    }
    path = write_result(config.run, "zero-shot", result)
    return ZeroShotResult(path=path, measures=measures, left_out=left_out)


def before_training(subject: TrainedRun, seed: int) -> Encoder:
    """The same vocabulary and clips with the untrained network."""
    encoder = subject.encoder
    module = untrained(encoder.module.config, seed=seed).to(encoder.device)
    return Encoder(module, encoder.spec, encoder.tokenizer, encoder.folder)


def text_to_video(
    subject: TrainedRun,
    clips: SplitFeatures,
    encoders: Mapping[str, Encoder],
    config: ZeroShotConfig,
) -> dict[str, Any]:
    """Find the clip that a caption was given to, among clips with other captions.

    Raises:
        DataError: fewer than two different captions.
    """
    pool = subject.caption_pool(clips, config.pool, seed=config.seed)
    captions = [clips.captions[row] for row in pool.rows]
    scores = {}
    for network, encoder in encoders.items():
        vt = encoder.encode_text(captions).vt
        scores[network] = similarities(vt.cpu().numpy(), clips.of(network, "video_vt")[pool.rows])
    return {
        **compared(scores, pool),
        **_ceiling(clips, pool),
        "clips_sharing_a_text": num_sharing(subject.texts_of(clips)),
        "ids_hash": _ids_hash(clips, pool),
    }


def audio_to_video(clips: SplitFeatures, config: ZeroShotConfig) -> dict[str, Any]:
    """Find the clip that a sound was heard in, among clips with sound.

    Raises:
        DataError: fewer than two clips can be heard.
    """
    return _heard(clips, config, "audio_va", "video_va")


def video_to_audio(clips: SplitFeatures, config: ZeroShotConfig) -> dict[str, Any]:
    """Find the sound of a clip, among the sounds of clips with sound.

    Raises:
        DataError: fewer than two clips can be heard.
    """
    return _heard(clips, config, "video_va", "audio_va")


def _heard(
    clips: SplitFeatures, config: ZeroShotConfig, queries: str, items: str
) -> dict[str, Any]:
    heard = np.flatnonzero(clips.peaks >= max(config.min_peak, 1e-9))
    pool = draw_pool(heard, config.pool, seed=config.seed)
    scores = {
        network: similarities(
            clips.of(network, queries)[pool.rows], clips.of(network, items)[pool.rows]
        )
        for network in (PRETRAINED, RANDOM_INIT)
    }
    return {
        **compared(scores, pool),
        "clips_without_sound": len(clips.moments) - len(heard),
        "ids_hash": _ids_hash(clips, pool),
    }


def compared(
    scores: Mapping[str, NDArray[np.float32]], pool: RetrievalPool
) -> dict[str, float | int]:
    """Recalls of the trained network, with chance and the untrained one beside."""
    untrained_numbers = judge(scores[RANDOM_INIT], pool)
    beside = {
        f"random_init_{name}": value
        for name, value in untrained_numbers.items()
        if name.startswith(("R@", "MedR"))
    }
    return judge(scores[PRETRAINED], pool) | beside


def _ceiling(clips: SplitFeatures, pool: RetrievalPool) -> dict[str, float]:
    """What someone who knows all facts of the clips would reach; nothing without such labels."""
    said, facts = clips.labels("said")[pool.rows], clips.labels("facts")[pool.rows]
    return ceiling(said.tolist(), facts.tolist()) if all(facts) else {}


def label_from_text(
    clips: SplitFeatures,
    encoders: Mapping[str, Encoder],
    column: str,
    sentences: Mapping[str, Sequence[str]],
) -> dict[str, float | int]:
    """Give each clip the class whose sentences are nearest in vt; balanced accuracy in [0, 1].

    Raises:
        DataError: no clip has this label, or one has a class without sentences.
    """
    labels = clips.labels(column)
    rows = np.flatnonzero(labels != "")
    unknown = sorted(set(labels[rows].tolist()) - set(sentences))
    if not len(rows) or unknown:
        found = f"classes without sentences: {unknown}" if unknown else "no clip with this label"
        raise DataError(f"prompts for {column!r}: {found}; expected {sorted(sentences)}")
    names = np.array(sorted(sentences), dtype=np.str_)
    accuracy: dict[str, float | int] = {}
    for network, encoder in encoders.items():
        classes = np.stack([class_vector(encoder, sentences[name]) for name in names.tolist()])
        scores = similarities(clips.of(network, "video_vt")[rows], classes)
        accuracy[network] = balanced_accuracy(names[scores.argmax(axis=1)], labels[rows])
    return accuracy | {"chance": 1 / len(names), "n": len(rows), "classes": len(names)}


def class_vector(encoder: Encoder, sentences: Sequence[str]) -> NDArray[np.float32]:
    """Mean of the sentences' unit rows [E_vt], of length one again."""
    vt = encoder.encode_text(sentences).vt
    return unit_rows(vt.mean(0).cpu().numpy())


def read_prompts(path: Path) -> Prompts:
    """Label column → class → sentences.

    Raises:
        DataError: the file is missing or of another form.
    """
    try:
        prompts: dict[str, dict[str, list[str]]] = json.loads(path.read_text(encoding="utf-8"))
        good = all(
            sentences and all(isinstance(sentence, str) for sentence in sentences)
            for classes in prompts.values()
            for sentences in classes.values()
        )
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: cannot read prompts: {error}") from error
    if not good:
        raise DataError(f"{path}: expected {{column: {{class: [sentence, …]}}}}")
    return prompts


def _ids_hash(clips: SplitFeatures, pool: RetrievalPool) -> str:
    return ids_hash(clips.moments[row].id for row in pool.rows)
