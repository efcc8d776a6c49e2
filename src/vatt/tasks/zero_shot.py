"""`vatt zero-shot`: retrieval across modalities and classes from text, without training (§4.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from vatt.errors import ConfigError
from vatt.evaluation.features import split_features
from vatt.evaluation.protocols import zero_shot_pool
from vatt.evaluation.results import write_result
from vatt.evaluation.trained_run import needs, open_run
from vatt.public_data.choice import DatasetChoice, chosen_folder
from vatt.public_data.listing import CAPTION
from vatt.public_data.preparing import how_much, shards_for, split_with


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroShotConfig(DatasetChoice):
    """Evaluate a model by retrieval and by classification from text, without any training."""

    run: Positional[Path]
    """Run folder (or model folder); results/zero-shot.json is written into it."""
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
        if not 0 <= self.min_peak < 1:
            raise ConfigError(f"min_peak: found {self.min_peak}, expected 0 <= … < 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroShotResult:
    """Where the numbers are, and the numbers: recalls in per cent, accuracies in [0, 1]."""

    path: Path
    split: str
    measures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


def run(config: ZeroShotConfig) -> ZeroShotResult:
    """Measure, and write results/zero-shot.json.

    Raises:
        CheckpointError: there is no model, or it has no vocabulary.
        DataError: the split has no clips, or the prompts do not fit its labels.
    """
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
