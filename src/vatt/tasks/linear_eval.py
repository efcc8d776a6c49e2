"""`vatt linear-eval`: classifiers on the features of frozen backbones (§4.3, §4.4.5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from vatt.any_encoder import open_encoder
from vatt.contracts import ClipSpec
from vatt.errors import ConfigError
from vatt.evaluation.classifiers import LowRankConfig
from vatt.evaluation.features import split_features
from vatt.evaluation.protocols import linear_frozen
from vatt.evaluation.results import ids_hash, write_result
from vatt.evaluation.trained_run import needs, results_of, run_of
from vatt.public_data.catalogue import DatasetFolder
from vatt.public_data.choice import DatasetChoice, chosen_folder
from vatt.public_data.listing import LABEL, roles
from vatt.public_data.preparing import how_much, shards_for, split_with


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearEvalConfig(DatasetChoice):
    """Evaluate frozen features by classifiers trained on them."""

    run: Positional[Path | None] = None
    """Run folder (or model folder); results/linear-eval.json is written into it."""
    encoder: str | None = None
    """In place of a run, a peer's encoder: `package.module:factory`; needs shards and out."""
    out: Path | None = None
    """Where results/ is written; the run folder when left out."""
    shards: tuple[Path, ...] = ()
    """Prepared folders with labels; those of the run's config.toml when left out."""
    train_split: str = "train"
    val_split: str = "val"
    test_split: str = "test"
    video: tuple[str, ...] = ("action",)
    """Label columns to predict from video features; of a dataset its label, if it is of video."""
    audio: tuple[str, ...] = ("sound_event",)
    """Label columns to predict from audio features, with all labels and with few; of a dataset its
    label, if it is of audio."""
    train_clips: int | None = None
    """Take whole videos, drawn by the seed, until there are this many clips; all if left out."""
    few_labels: int = 10
    """Labels of each class in the measure with few labels."""
    draws: int = 3
    """Times these few are drawn; the mean is reported."""
    low_rank: LowRankConfig = field(default_factory=LowRankConfig)
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        _ = self.public, results_of(self.run, self.encoder, self.out)  # check themselves
        for name in ("few_labels", "draws"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected 1 or more")
        if self.train_clips is not None and self.train_clips < 2:
            raise ConfigError(f"train_clips: found {self.train_clips}, expected 2 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearEvalResult:
    """Where the numbers are, and the numbers: balanced accuracies in [0, 1]."""

    path: Path
    splits: tuple[str, str, str]
    """Fitted on, chosen on, tested on."""
    measures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


def run(config: LinearEvalConfig) -> LinearEvalResult:
    """Measure, and write results/linear-eval.json.

    Raises:
        CheckpointError: there is no model.
        DataError: a split has no clips, or too many cannot be decoded.
    """
    about = dict[str, Any]()
    opened = open_encoder(config.run, config.encoder, config.device)
    out = results_of(config.run, config.encoder, config.out)
    if config.dataset is not None:
        public = chosen_folder(config)
        config = on_dataset(config, public, opened.spec, out)
        about = {"dataset": how_much(public, config.dataset_split, config.test_split)}
    trained = run_of(opened, config.run, shards=config.shards, out=out)
    parts = linear_frozen.FeaturesOfSplits(
        split_features(trained, config.train_split, at_most=config.train_clips, seed=config.seed),
        split_features(trained, config.val_split, seed=config.seed),
        split_features(trained, config.test_split, seed=config.seed),
    )
    measures, left_out = linear_frozen.measure(
        parts,
        video=config.video,
        audio=config.audio,
        few_labels=config.few_labels,
        draws=config.draws,
        config=config.low_rank,
        seed=config.seed,
    )
    result = {
        "protocol": linear_frozen.PROTOCOL,
        "splits": [config.train_split, config.val_split, config.test_split],
        **about,
        "shards": [str(one.folder) for one in trained.folders_of(config.test_split).values()],
        "seed": config.seed,
        **trained.about(),
        "low_rank_steps": config.low_rank.steps,
        "ids_hash": ids_hash(clip.id for clip in parts.test.clips),
        **measures,
        "left_out": left_out,
    }
    path = write_result(out, "linear-eval", result)
    return LinearEvalResult(
        path=path,
        splits=(config.train_split, config.val_split, config.test_split),
        measures=measures,
        left_out=left_out,
    )


def on_dataset(
    config: LinearEvalConfig, public: DatasetFolder, spec: ClipSpec, out: Path
) -> LinearEvalConfig:
    """The same settings, on the shards and labels of a data set, which is prepared if need be.

    Where its lists have no validation, settings are chosen by the training clips.

    Raises:
        ConfigError: it has captions and no classes.
        DataError: shards that are given are of something else.
    """
    if public.listing.classes is None:
        raise ConfigError(f"dataset: {config.dataset} has captions, expected one with classes")
    fps, side = needs(spec)
    shards = shards_for(config.run or out, config, public, config.shards, fps=fps, short_side=side)
    splits = {one for file in public.listing.files for one in roles(file, config.dataset_split)}
    if config.test_split == "test":
        config = replace(config, test_split=split_with(public, config.dataset_split, LABEL))
    if config.val_split not in splits - {config.test_split}:
        config = replace(config, val_split=config.train_split)
    is_audio = public.dataset.kind == "audio"
    return replace(
        config, shards=shards, video=() if is_audio else (LABEL,), audio=(LABEL,) * is_audio
    )
