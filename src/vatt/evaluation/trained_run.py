"""What is evaluated: a model of ours or a peer's encoder, and the shards it is evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from vatt.any_encoder import OpenedEncoder, PeerEncoder, open_encoder
from vatt.config import from_values, read_toml
from vatt.contracts import ClipSpec
from vatt.data.data_config import DataConfig
from vatt.devices import AutocastSetting
from vatt.encoder import Encoder
from vatt.errors import ConfigError, DataError
from vatt.hub import is_hub_name
from vatt.shards.layout import DATASET_FILE
from vatt.shards.read import ShardFolder


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """An encoder, where its results go, and how its clips are read.

    folder: of the run; results are written into it.
    opened: the encoder, what results call it, and how frames come to it.
    data: shards, and the size that clips are decoded at.
    on_own_shards: whether the shards are those that it was trained on, on their split `data.split`.
    """

    folder: Path
    opened: OpenedEncoder
    data: DataConfig
    on_own_shards: bool = False

    @property
    def encoder(self) -> Encoder:
        """The model of ours with its vocabulary."""
        assert isinstance(self.opened.encoder, Encoder)
        return self.opened.encoder

    @property
    def model_hash(self) -> str:
        """Of the weights, as results say it."""
        return self.opened.hash

    def about(self) -> dict[str, str]:
        """For result files: whose encoder it is, if not ours, and of which weights."""
        peer = isinstance(self.opened.encoder, PeerEncoder)
        named = {"encoder": self.opened.name} if peer else {}
        return named | {"model_hash": self.model_hash}

    def videos_of(self, split: str) -> str:
        """What pages call the videos of a split."""
        if self.on_own_shards and split == self.data.split:
            return f"training videos (split {split})"
        return f"videos of split {split}"

    def folders_of(self, split: str | None) -> dict[str, ShardFolder]:
        """The shard folders that have the split; see `folders_with`."""
        return folders_with(self.data.shards, split)


def folders_with(shards: Sequence[Path], split: str | None) -> dict[str, ShardFolder]:
    """All of the shard folders that have the split, or all, by the name that clips' ids begin with.

    That is empty for one alone, else as much of the end of their paths as tells them apart.

    Raises:
        DataError: none has it; or a folder is given twice.
    """
    folders = [ShardFolder.open(folder) for folder in shards]
    found = [one for one in folders if split is None or split in one.info["splits"]]
    if not found:
        has = [f"{one.folder} has {', '.join(sorted(one.info['splits']))}" for one in folders]
        raise DataError(f"no video in split {split!r}; {'; '.join(has)}: choose one with --split")
    if len(found) == 1:
        return {"": found[0]}
    paths = [one.folder.resolve() for one in found]
    if twice := [str(path) for path in paths if paths.count(path) > 1]:
        raise DataError(f"shards: {twice[0]} is given twice; each of its videos would count twice")
    for depth in count(1):
        names = ["/".join(path.parts[-depth:]) + "/" for path in paths]
        if len(set(names)) == len(names):
            return dict(zip(names, found, strict=True))
    raise AssertionError


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
    opened = open_encoder(folder, None, device, autocast=autocast)
    return run_of(opened, folder, shards=shards, out=folder)


def run_of(
    opened: OpenedEncoder, folder: Path | None, *, shards: Sequence[Path], out: Path
) -> TrainedRun:
    """An encoder with what to evaluate it on.

    Args:
        opened: the encoder.
        folder: the run that it is of; None of a peer's.
        shards: prepared folders; those that the run was trained on when empty.
        out: where results go.

    Raises:
        ConfigError: no shards are given, and there is no run that says what it was trained on.
    """
    settings = None if folder is None else folder / "config.toml"
    if folder is not None and settings is not None and settings.is_file():
        data = from_values(DataConfig, read_toml(settings)["data"], where=str(settings))
        own = tuple(_found(path, folder) for path in data.shards)
        data = replace(data, shards=tuple(shards) or own)
        return TrainedRun(out, opened, data, on_own_shards=not shards)
    if not shards:
        raise ConfigError(f"{opened.name}: no config.toml that names shards; give --shards FOLDER")
    path = opened.frame_path
    data = DataConfig(
        shards=tuple(shards),
        decode=path.decode,
        decode_size=path.decode_size,
        frame_step=path.frame_step,
    )
    return TrainedRun(out, opened, data)


def results_of(folder: Path | None, encoder: str | None, out: Path | None) -> Path:
    """Where results go: `out`, or else the run's folder.

    Raises:
        ConfigError: a run and an encoder are given, or neither; or an encoder without `out`.
    """
    if (folder is None) == (encoder is None):
        raise ConfigError("run: expected a run folder, or --encoder package.module:factory")
    goes_to = out or folder
    if goes_to is None:
        raise ConfigError("out: found none, expected a folder for the results of --encoder")
    if is_hub_name(goes_to):
        raise ConfigError(f"out: found none, expected a folder for the results of {goes_to}")
    return goes_to


def needs(spec: ClipSpec) -> tuple[float, int]:
    """What clips need of shards: frames per second, and the longer side."""
    return spec.fps, max(spec.height, spec.width)


def _found(shards: Path, run: Path) -> Path:
    """Shards of a run's config.toml; relative ones are named from where the training ran.

    That is a folder above the run, whose name config.toml does not know; else the current one.
    """
    above = (folder / shards for folder in run.resolve().parents)
    return next((path for path in above if (path / DATASET_FILE).is_file()), shards)
