"""`vatt linear-eval`: classifiers on the features of frozen backbones (§4.3, §4.4.5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from vatt.any_encoder import open_encoder
from vatt.contracts import ClipSpec
from vatt.errors import ConfigError, DataError
from vatt.evaluation.classifiers import DenseConfig, LowRankConfig
from vatt.evaluation.features import split_features
from vatt.evaluation.protocols import linear_frozen
from vatt.evaluation.protocols.linear_splits import (
    LINEAR_PROTOCOLS,
    LinearProtocol,
    LinearSettings,
    measure_splits,
)
from vatt.evaluation.results import Measure, ids_hash, take, write_result
from vatt.evaluation.trained_run import needs, results_of, run_of
from vatt.public_data.catalogue import DatasetFolder
from vatt.public_data.choice import DatasetChoice, chosen_folder, prepared_for, refuse_low
from vatt.public_data.listing import LABEL, numbers, roles
from vatt.public_data.preparing import how_much, shards_for, split_with


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearEvalConfig(DatasetChoice):
    """Evaluate frozen features by classifiers trained on them."""

    run: Positional[Path | None] = None
    """Run folder (or model folder); results/linear-eval.json is written into it."""
    protocol: Literal["frozen", "paper", "official", "milnce", "averaged"] = "frozen"
    """frozen: fitted on train, chosen on val, tested on test, beside an untrained network; the
    others as published: every official split or fold, several windows, plain top-1."""
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
    dense: DenseConfig = field(default_factory=DenseConfig)
    """Of protocol official."""
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
    """Where the numbers are, and the numbers: accuracies in [0, 1], balanced unless called top1."""

    path: Path
    splits: tuple[str, ...]
    """Fitted on, chosen on, tested on; of a published protocol the splits or folds tested on."""
    measures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


def run(config: LinearEvalConfig) -> LinearEvalResult:
    """Measure, and write results/linear-eval.json, or linear-eval-PROTOCOL.json.

    Raises:
        CheckpointError: there is no model.
        ConfigError: there is no such encoder.
        DataError: a split has no clips, or too many cannot be decoded.
    """
    if config.protocol != "frozen":
        return by_splits(config, LINEAR_PROTOCOLS[config.protocol])
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


def by_splits(config: LinearEvalConfig, protocol: LinearProtocol) -> LinearEvalResult:
    """Measure on every official split or fold, and write results/linear-eval-PROTOCOL.json.

    Of a data set its name stands behind the protocol's.

    Raises:
        CheckpointError: there is no model.
        ConfigError: there is no such encoder.
        DataError: too many videos cannot be decoded; the splits leak; shards hold less than the
            encoder's clips need.
    """
    opened = open_encoder(config.run, config.encoder, config.device)
    out = results_of(config.run, config.encoder, config.out)
    about, listed, name = dict[str, Any](), dict[str, int](), f"linear-eval-{protocol.name}"
    if config.dataset is not None:
        public = chosen_folder(config, every_number=True)
        config = on_dataset(config, public, opened.spec, out, every_number=True)
        every = numbers(public.listing.files)
        judged = "test" if every else config.test_split
        counts = {one: how_much(public, one, judged) for one in every or [config.dataset_split]}
        about = {"dataset": {str(one): count for one, count in counts.items()}}
        listed = {
            str(one) if every else config.test_split: count["files_listed"]
            for one, count in counts.items()
        }
        name += f"-{config.dataset}"
    trained = run_of(opened, config.run, shards=config.shards, out=out)
    settings = LinearSettings(config.low_rank, config.dense, config.seed)
    take_one = partial(
        measure_splits, trained, protocol, settings=settings, listed=listed,
        train_split=config.train_split, test_split=config.test_split,
    )  # fmt: skip

    def of_video(column: str) -> Measure:
        if not trained.on_own_shards:
            fps, side = needs(opened.spec)
            for folder in trained.folders_of(None).values():
                refuse_low(folder, fps=fps, short_side=side)
        return take_one(column, "video")

    wanted = {f"video_{column}": partial(of_video, column) for column in config.video}
    wanted |= {column: partial(take_one, column, "audio") for column in config.audio}
    measures, left_out = take(wanted)
    if left_out and not measures:
        raise DataError(
            f"{protocol.name}: nothing could be measured: {'; '.join(left_out.values())}"
        )
    result = {
        "protocol": protocol.name,
        "protocol_says": protocol.says,
        "windows": {"train": protocol.train_windows, "test": protocol.test_windows},
        "over_windows": protocol.over_windows,
        "clip": asdict(opened.spec),
        **about,
        "shards": [str(folder) for folder in trained.data.shards],
        "seed": config.seed,
        **trained.about(),
        "classifiers": {"lrc": asdict(config.low_rank), "dense": asdict(config.dense)},
        **measures,
        "left_out": left_out,
    }
    tested = {split for one in measures.values() for split in one["splits"]}
    return LinearEvalResult(
        path=write_result(out, name, result),
        splits=tuple(sorted(tested)),
        measures=measures,
        left_out=left_out,
    )


def on_dataset(
    config: LinearEvalConfig,
    public: DatasetFolder,
    spec: ClipSpec,
    out: Path,
    *,
    every_number: bool = False,
) -> LinearEvalConfig:
    """The same settings, on the shards and labels of a data set, which is prepared if need be.

    Where its lists have no validation, settings are chosen by the training clips. Shards that were
    prepared for any of the numbered splits do where `every_number` is evaluated.

    Raises:
        ConfigError: it has captions and no classes.
        DataError: shards that are given are of something else.
    """
    if public.listing.classes is None:
        raise ConfigError(f"dataset: {config.dataset} has captions, expected one with classes")
    fps, side = needs(spec)
    choice = replace(config, dataset_split=prepared_for(config.shards)) if every_number else config
    shards = shards_for(
        config.run, choice, public, config.shards, out=out, fps=fps, short_side=side
    )
    splits = {one for file in public.listing.files for one in roles(file, config.dataset_split)}
    if config.test_split == "test":
        config = replace(config, test_split=split_with(public, config.dataset_split, LABEL))
    if config.val_split not in splits - {config.test_split}:
        config = replace(config, val_split=config.train_split)
    is_audio = public.dataset.kind == "audio"
    return replace(
        config, shards=shards, video=() if is_audio else (LABEL,), audio=(LABEL,) * is_audio
    )
