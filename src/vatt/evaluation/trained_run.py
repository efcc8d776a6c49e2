"""What is evaluated: the model of a run, and the shards it is evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vatt.config import from_values, read_toml
from vatt.data.data_config import DataConfig
from vatt.devices import AutocastSetting, pick_device
from vatt.encoder import Encoder, load, model_folder
from vatt.errors import ConfigError, DataError
from vatt.evaluation.results import file_hash
from vatt.models.weights import read_settings
from vatt.shards.layout import DATASET_FILE
from vatt.shards.read import ShardFolder


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A model, where its results go, and how its clips are read.

    folder: of the run; results are written into it.
    encoder: the model with its vocabulary and clip settings.
    data: shards, and the size that clips are decoded at.
    model_hash: of the weights' file.
    on_own_shards: whether the shards are those that it was trained on, on their split `data.split`.
    """

    folder: Path
    encoder: Encoder
    data: DataConfig
    model_hash: str
    on_own_shards: bool = False

    def videos_of(self, split: str) -> str:
        """What pages call the videos of a split."""
        if self.on_own_shards and split == self.data.split:
            return f"training videos (split {split})"
        return f"videos of split {split}"

    def shards_of(self, split: str) -> ShardFolder:
        """The first of the shard folders that has the split.

        Raises:
            DataError: none has it.
        """
        folders = [ShardFolder.open(folder) for folder in self.data.shards]
        for shards in folders:
            if split in shards.info["splits"]:
                return shards
        found = [f"{one.folder} has {', '.join(sorted(one.info['splits']))}" for one in folders]
        raise DataError(f"no video in split {split!r}; {'; '.join(found)}: choose one with --split")


def open_run(
    folder: Path,
    *,
    shards: Sequence[Path] = (),
    device: str | None = None,
    autocast: AutocastSetting | None = None,
) -> TrainedRun:
    """Load the model of a run and find what to evaluate it on.

    Args:
        folder: run folder, or a model folder (then `shards` are needed).
        shards: prepared folders; those that the run was trained on when empty.
        device: where to compute; chosen as `vatt.load` does when None.
        autocast: the numbers to compute features in; those of training when None.

    Raises:
        CheckpointError: there is no model in `folder`.
        ConfigError: no shards are given, and the run does not say what it was trained on; there
            is no such device.
    """
    encoder = load(folder, pick_device(device or "auto"), autocast=autocast)
    settings = folder / "config.toml"
    if settings.is_file():
        data = from_values(DataConfig, read_toml(settings)["data"], where=str(settings))
        data = replace(data, shards=tuple(_found(path, folder) for path in data.shards))
    elif shards:
        path = encoder.frame_path
        data = DataConfig(
            shards=tuple(shards),
            decode=path.decode,
            decode_size=path.decode_size,
            frame_step=path.frame_step,
        )
    else:
        raise ConfigError(f"{folder}: no config.toml that names shards; give --shards FOLDER")
    if shards:
        data = replace(data, shards=tuple(shards))
    model_hash = file_hash(encoder.folder / "model.safetensors")
    return TrainedRun(
        folder, encoder, data, model_hash, on_own_shards=settings.is_file() and not shards
    )


def needs(run: Path) -> tuple[float, int]:
    """What the clips of a run's model need of shards: frames per second, and the longer side.

    Raises:
        CheckpointError: there is no model in `run`.
    """
    _, spec, _ = read_settings(model_folder(run))
    return spec.fps, max(spec.height, spec.width)


def _found(shards: Path, run: Path) -> Path:
    """Shards of a run's config.toml; relative ones are named from where the training ran.

    That is a folder above the run, whose name config.toml does not know; else the current one.
    """
    above = (folder / shards for folder in run.resolve().parents)
    return next((path for path in above if (path / DATASET_FILE).is_file()), shards)
