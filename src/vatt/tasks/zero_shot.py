"""`vatt zero-shot`: retrieval across modalities and classes from text, without training (§4.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional

from vatt.any_encoder import OpenedEncoder, open_encoder
from vatt.config import CONFIG_FILE, from_values, read_toml, to_values
from vatt.contracts import ClipSpec, FramePath
from vatt.data.data_config import DataConfig
from vatt.encoder import Encoder
from vatt.errors import ConfigError, DataError
from vatt.evaluation.examples import ExampleClips, LabelledSpan, find_captioned
from vatt.evaluation.features import split_features
from vatt.evaluation.protocols import zero_shot_pool
from vatt.evaluation.protocols.zero_shot_windows import (
    WINDOWS_PROTOCOLS,
    WindowsProtocol,
    embed_texts,
    embed_video,
    embed_windows,
    judge_windows,
)
from vatt.evaluation.results import write_result
from vatt.evaluation.trained_run import needs, open_run
from vatt.public_data.choice import DatasetChoice, chosen_folder, refuse_low
from vatt.public_data.listing import CAPTION
from vatt.public_data.preparing import captions_listed, how_much, shards_for, split_with
from vatt.shards.read import ShardFolder
from vatt.workers.progress import ProgressBar


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroShotConfig(DatasetChoice):
    """Evaluate a model by retrieval and by classification from text, without any training."""

    run: Positional[Path | None] = None
    """Run folder (or model folder); results/zero-shot.json is written into it."""
    encoder: str | None = None
    """In its place an encoder of somebody else, `package.module:factory`."""
    out: Path | None = None
    """Where results go, and shards of a data set; the run folder when left out."""
    protocol: Literal["pool", "vatt", "milnce"] = "pool"
    """pool: one clip of each video, audio and classes, too; vatt (§4.3), milnce: all captions of
    the split and all their videos, by several windows of each."""
    own_clip: bool = False
    """Clips as the model was trained on, in place of those of vatt or milnce; an encoder of
    somebody else always takes its own. The result says what differs."""
    shards: tuple[Path, ...] = ()
    """Prepared folders to evaluate on; those of the run's config.toml when left out."""
    split: str | None = None
    """When left out: test; of a dataset val if its captions of test are not public."""
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
        if self.public is not None:
            self.public.refuse_kind("video")
        if self.prompts is not None and self.protocol != "pool":
            raise ConfigError(f"prompts: found with protocol {self.protocol}, expected pool")
        if (self.run is None) == (self.encoder is None):
            raise ConfigError("run: expected a run folder, or --encoder package.module:factory")
        if self.encoder is not None and (self.out is None or self.protocol == "pool"):
            raise ConfigError(
                "encoder: expected --out FOLDER for its results, and --protocol vatt or milnce"
            )
        if not 0 <= self.min_peak < 1:
            raise ConfigError(f"min_peak: found {self.min_peak}, expected 0 <= … < 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroShotResult:
    """Where the numbers are, and the numbers: recalls in per cent, accuracies in [0, 1]."""

    path: Path
    split: str
    pool: str = ""
    differs: Sequence[str] = ()
    measures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


def run(config: ZeroShotConfig) -> ZeroShotResult:
    """Measure, and write results/zero-shot.json; of protocol vatt zero-shot-vatt.json, and so on.

    Raises:
        CheckpointError: there is no model, or it has no vocabulary.
        DataError: the split has no clips, or the prompts do not fit its labels.
    """
    if config.protocol != "pool":
        return by_windows(config, WINDOWS_PROTOCOLS[config.protocol])
    assert config.run is not None
    prompts = zero_shot_pool.read_prompts(config.prompts) if config.prompts else {}
    split, shards, about = config.split or "test", config.shards, dict[str, Any]()
    if config.dataset is not None:
        public = chosen_folder(config)
        split = config.split or split_with(public, config.dataset_split, CAPTION)
        fps, side = needs(config.run)
        shards = shards_for(config.run, config, public, shards, fps=fps, short_side=side)
        about = {"dataset": how_much(public, config.dataset_split, split)}
    trained = open_run(config.run, shards=shards, device=config.device)
    clips = split_features(trained, split, seed=config.seed)
    measures, left_out = zero_shot_pool.measure(
        trained.encoder, clips, prompts,
        pool=config.pool, min_peak=config.min_peak, seed=config.seed,
    )  # fmt: skip
    result = {
        "protocol": zero_shot_pool.PROTOCOL,
        "split": split,
        **about,
        "shards": [str(folder) for folder in trained.data.shards],
        "on_training_videos": trained.on_own_shards and split == trained.data.split,
        "seed": config.seed,
        "model_hash": trained.model_hash,
        "clips": len(clips.clips),
        "clips_failed": len(clips.unreadable),
        **measures,
        "left_out": left_out,
    }
    path = write_result(config.run, "zero-shot", result)
    return ZeroShotResult(path=path, split=split, measures=measures, left_out=left_out)


def by_windows(config: ZeroShotConfig, protocol: WindowsProtocol) -> ZeroShotResult:
    """Retrieval among all captions of a split and their videos, by several windows of each.

    Raises:
        CheckpointError: there is no model, or it has no vocabulary.
        ConfigError: there is no such encoder, or it has no space of video and text.
        DataError: shards hold less than the protocol needs, or too much cannot be decoded.
    """
    opened = open_encoder(config.run, config.encoder, config.device)
    own = config.own_clip or not isinstance(opened.encoder, Encoder)
    clip = opened.spec if own else protocol.clip(opened.spec)
    fps, side = (
        (clip.fps, max(clip.height, clip.width)) if own else (protocol.stored_fps, protocol.side)
    )
    where = config.out or config.run
    assert where is not None
    split, shards, about = config.split or "test", config.shards, dict[str, Any]()
    listed = None
    if config.dataset is not None:
        public = chosen_folder(config)
        split = config.split or split_with(public, config.dataset_split, CAPTION)
        shards = shards_for(where, config, public, shards, fps=fps, short_side=side)
        about = {"dataset": how_much(public, config.dataset_split, split)}
        listed = captions_listed(public, config.dataset_split, split)
    data = data_for(config, shards, opened.frame_path, own=own)
    folders = folders_with(data.shards, split)
    for folder in folders:
        refuse_low(folder, fps=fps, short_side=side)
    examples = [(folder, find_captioned(folder, split)) for folder in folders]
    found, vectors = windows_of(opened, examples, clip, data, protocol.windows)
    measures = judge_windows(found, vectors, embed_texts(opened, found))
    expected = listed or sum(len(one.labels) for _, part in examples for one in part)
    for numbers in measures.values():
        numbers["captions_expected"] = expected
    differs = protocol.differences(clip)
    pool = (
        f"all {measures['text_to_video']['captions']:,} captions of split {split} and their videos"
    )
    result = {
        "protocol": protocol.name,
        "protocol_says": protocol.says,
        "differs": differs,
        "split": split,
        "pool": pool,
        **about,
        "shards": [str(folder.folder) for folder in folders],
        "windows": protocol.windows,
        "clip": to_values(clip),
        "encoder": opened.name,
        "model_hash": opened.hash,
        **measures,
    }
    path = write_result(where, f"zero-shot-{protocol.name}", result)
    return ZeroShotResult(
        path=path, split=split, pool=pool, differs=differs, measures=measures, left_out={}
    )


def data_for(
    config: ZeroShotConfig, shards: Sequence[Path], path: FramePath, *, own: bool
) -> DataConfig:
    """How clips are read: as in training where they are as there, else from whole frames.

    Raises:
        ConfigError: there are no shards.
    """
    data, settings = DataConfig(workers=0), (config.run or Path()) / CONFIG_FILE
    if config.run is not None and settings.is_file():
        trained = from_values(DataConfig, read_toml(settings)["data"], where=str(settings))
        shards = shards or trained.shards
        data = trained if own else data
    elif own:
        data = replace(
            data, decode=path.decode, decode_size=path.decode_size, frame_step=path.frame_step
        )
    if not shards:
        raise ConfigError("shards: found none; give --shards FOLDER, or --dataset and its folder")
    return replace(data, shards=tuple(shards))


def folders_with(shards: Sequence[Path], split: str) -> list[ShardFolder]:
    """The shard folders that have a split.

    Raises:
        DataError: none has it.
    """
    folders = [ShardFolder.open(folder) for folder in shards]
    found = [one for one in folders if split in one.info["splits"]]
    if not found:
        there = "; ".join(f"{one.folder} has {', '.join(sorted(one.info['splits']))}"
                          for one in folders)  # fmt: skip
        raise DataError(f"no video in split {split!r}; {there}: choose one with --split")
    return found


def windows_of(
    opened: OpenedEncoder,
    examples: Sequence[tuple[ShardFolder, list[LabelledSpan]]],
    clip: ClipSpec,
    data: DataConfig,
    windows: int,
) -> tuple[list[LabelledSpan], NDArray[np.float32]]:
    """The captioned stretches of all folders that could be read, and their windows' embeddings.

    Raises:
        DataError: too many cannot be read.
    """
    read, parts = list[LabelledSpan](), list[NDArray[np.float32]]()
    for folder, spans in examples:
        source = ExampleClips(folder, spans, clip, data, clips=windows)
        with ProgressBar("windows", len(spans)) as bar:
            part = embed_windows(
                partial(embed_video, opened), source, antialias=opened.frame_path.antialias,
                device=opened.device, workers=data.workers, done=bar.update,
            )  # fmt: skip
        lost = len(spans) - len(part.positions)
        if lost > data.max_bad_fraction * len(spans):
            raise DataError(
                f"{folder.folder}: {lost} of {len(spans)} captioned stretches cannot be read, "
                f"expected at most {data.max_bad_fraction:.0%}; first: {part.unreadable[0].reason}"
            )
        read += [spans[position] for position in part.positions.tolist()]
        parts.append(part.vectors)
    return read, np.concatenate(parts)
