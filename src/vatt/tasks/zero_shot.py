"""`vatt zero-shot`: retrieval across modalities and classes from text, without training (§4.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from vatt.any_encoder import open_encoder
from vatt.config import to_values
from vatt.data.data_config import DataConfig
from vatt.encoder import Encoder
from vatt.errors import ConfigError
from vatt.evaluation.examples import find_captioned
from vatt.evaluation.features import split_features, window_features
from vatt.evaluation.protocols import zero_shot_pool
from vatt.evaluation.protocols.zero_shot_windows import (
    WINDOWS_PROTOCOLS,
    WindowsProtocol,
    embed_texts,
    judge_windows,
)
from vatt.evaluation.results import write_result
from vatt.evaluation.trained_run import needs, results_of, run_of
from vatt.public_data.choice import DatasetChoice, chosen_folder, refuse_low
from vatt.public_data.listing import CAPTION
from vatt.public_data.preparing import captions_listed, how_much, shards_for, split_with


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroShotConfig(DatasetChoice):
    """Evaluate a model by retrieval and by classification from text, without any training."""

    run: Positional[Path | None] = None
    """Run folder (or model folder); results/zero-shot.json is written into it."""
    encoder: str | None = None
    """In its place an encoder of somebody else, `package.module:factory`."""
    out: Path | None = None
    """Where results go; the run folder when left out."""
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
        _ = results_of(self.run, self.encoder, self.out)
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
    prompts = zero_shot_pool.read_prompts(config.prompts) if config.prompts else {}
    opened = open_encoder(config.run, config.encoder, config.device)
    out = results_of(config.run, config.encoder, config.out)
    split, shards, about = config.split or "test", config.shards, dict[str, Any]()
    if config.dataset is not None:
        public = chosen_folder(config)
        split = config.split or split_with(public, config.dataset_split, CAPTION)
        fps, side = needs(opened.spec)
        shards = shards_for(config.run, config, public, shards, out=out, fps=fps, short_side=side)
        about = {"dataset": how_much(public, config.dataset_split, split)}
    trained = run_of(opened, config.run, shards=shards, out=out)
    clips = split_features(trained, split, seed=config.seed)
    measures, left_out = zero_shot_pool.measure(
        opened.encoder, clips, prompts,
        pool=config.pool, min_peak=config.min_peak, seed=config.seed,
    )  # fmt: skip
    result = {
        "protocol": zero_shot_pool.PROTOCOL,
        "split": split,
        **about,
        "shards": [str(one.folder) for one in trained.folders_of(split).values()],
        "on_training_videos": trained.on_own_shards and split == trained.data.split,
        "seed": config.seed,
        **trained.about(),
        "clips": len(clips.clips),
        "clips_failed": len(clips.unreadable),
        **measures,
        "left_out": left_out,
    }
    path = write_result(out, "zero-shot", result)
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
    where = results_of(config.run, config.encoder, config.out)
    split, shards, about = config.split or "test", config.shards, dict[str, Any]()
    listed = None
    if config.dataset is not None:
        public = chosen_folder(config)
        split = config.split or split_with(public, config.dataset_split, CAPTION)
        shards = shards_for(config.run, config, public, shards, out=where, fps=fps, short_side=side)
        about = {"dataset": how_much(public, config.dataset_split, split)}
        listed = captions_listed(public, config.dataset_split, split)
    trained = run_of(opened, config.run, shards=shards, out=where)
    if not own:  # from whole frames, not as small as training may have stored them
        of_training = trained.data
        data = DataConfig(shards=of_training.shards, workers=of_training.workers)
        trained = replace(trained, data=data)
    folders = trained.folders_of(split)
    for folder in folders.values():
        refuse_low(folder, fps=fps, short_side=side)
    examples = [(one, find_captioned(one, split, folder=name)) for name, one in folders.items()]
    windows = window_features(
        trained, examples, windows=protocol.windows, modalities=("video",), spec=clip
    )
    spans = [one for _, part in examples for one in part]
    found = [spans[position] for position in windows.positions.tolist()]
    measures = judge_windows(found, windows.of("video_vt"), embed_texts(opened, found))
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
        "shards": [str(folder.folder) for folder in folders.values()],
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
