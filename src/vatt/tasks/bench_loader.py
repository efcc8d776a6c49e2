"""`vatt bench loader`: clips per second from shards, where the time goes, how many cores."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from tyro.conf import Fixed, Positional, Suppress

from vatt.contracts import Batch, ClipSpec
from vatt.data.augment import AugmentConfig
from vatt.data.clip_reader import ClipReader
from vatt.data.data_config import DataConfig
from vatt.data.datasets import ClipDataset
from vatt.data.loader import make_loader
from vatt.data.tokenizer import WordTokenizer
from vatt.devices import num_cpus
from vatt.errors import ConfigError
from vatt.media.container import FilePart
from vatt.media.frame_filters import RgbConverter
from vatt.media.planes import PlaneCopier
from vatt.shards.read import ShardFolder

_CAPTIONED_VIDEOS = 1000  # whose words make the vocabulary
STAGES = ("read", "decode", "sound", "convert", "collate")
_AT_ONCE = 8  # clips that are joined into one batch


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchDataConfig(DataConfig):
    """How the clips are read."""

    shards: Suppress[Fixed[tuple[Path, ...]]] = ()  # the folder is given by its name
    batch_size: int = _AT_ONCE
    """Clips of a batch of all workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchLoaderConfig:
    """Read clips of training as fast as it goes, and say where the time is spent."""

    folder: Positional[Path]
    """Made by `vatt prepare`, or indexed by `vatt index-shards`."""
    clips: int = 64
    """How many to read, by one core and then by all workers."""
    accelerator_clips_per_s: float = 100.0
    """Clips per second the accelerator can train; the result says how many cores keep it busy."""
    data: BenchDataConfig = field(default_factory=BenchDataConfig)
    clip: ClipSpec = field(default_factory=ClipSpec)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.clips < _AT_ONCE:
            raise ConfigError(f"clips: found {self.clips}, expected >= {_AT_ONCE}")
        if not self.accelerator_clips_per_s > 0:
            raise ConfigError(
                f"accelerator_clips_per_s: found {self.accelerator_clips_per_s}, expected > 0"
            )
        if self.data.shards:
            raise ConfigError("data.shards: not here; the folder to read is given by its name")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchLoaderResult:
    """Clips per second, and what one costs.

    milliseconds: of one clip on one core, by stage. read: the bytes of its video from the disk (by
    the clock: a disk is waited for); decode: opening it, and its frames; sound: decoding its audio;
    convert: the frames to planes or RGB; collate: clips to a batch (these by CPU time).
    clips_per_s: of all workers together, by the clock.
    cores: how many feed the accelerator, if nothing else needs them.
    """

    folder: Path
    decode: str
    clips: int
    failed: int
    milliseconds: dict[str, float]
    clips_per_s_per_core: float
    workers: int
    clips_per_s: float
    megabytes_per_clip: float
    accelerator_clips_per_s: float
    cores: int


def run(config: BenchLoaderConfig) -> BenchLoaderResult:
    """Measure.

    Raises:
        DataError: the folder cannot be read, or holds no clip.
    """
    data = replace(config.data, shards=(config.folder,))
    folder = ShardFolder.open(config.folder)
    tokenizer = WordTokenizer.build(
        caption.text
        for row in folder.rows(data.split)[:_CAPTIONED_VIDEOS].tolist()
        for caption in folder.read_record(row).captions
    )
    dataset = ClipDataset(data, config.clip, config.augment, tokenizer, config.seed)
    steps = config.clips // _AT_ONCE
    batches = list(_one_core(dataset, folder, steps))
    each = {name: statistics.median(batch[name] for batch in batches) for name in batches[0]}
    stages = {name: 1e3 * each[name] / _AT_ONCE for name in STAGES}
    per_core = 1e3 / sum(stages.values())
    workers = num_cpus() if data.workers is None else data.workers
    return BenchLoaderResult(
        folder=config.folder,
        decode=data.decode,
        clips=steps * _AT_ONCE,
        failed=int(sum(batch["failed"] for batch in batches)),
        milliseconds=stages,
        clips_per_s_per_core=per_core,
        workers=workers,
        clips_per_s=_all_workers(dataset, math.ceil(config.clips / data.batch_size), workers),
        megabytes_per_clip=each["bytes"] / _AT_ONCE / 1e6,
        accelerator_clips_per_s=config.accelerator_clips_per_s,
        cores=math.ceil(config.accelerator_clips_per_s / per_core),
    )


def _one_core(dataset: ClipDataset, folder: ShardFolder, steps: int) -> Iterator[dict[str, float]]:
    """For each batch of one core the seconds by stage, the failed clips and the bytes."""
    convert = ((PlaneCopier, "copy"), (RgbConverter, "__call__"))
    bar = track(range(steps + 1), "one core", console=Console(stderr=True), transient=True)
    with _timed(*convert) as converting, _timed((ClipReader, "decode_audio")) as decoding_audio:
        for step in bar:
            positions = range(step * _AT_ONCE, (step + 1) * _AT_ONCE)
            started = time.perf_counter()
            for position in positions:  # their bytes are then in memory, where decoding finds them
                part = folder.source(dataset.place(position).row)
                if isinstance(part, FilePart):
                    with part.path.open("rb") as file:
                        os.pread(file.fileno(), part.size, part.offset)
            read_s = time.perf_counter() - started
            converting.clear()
            decoding_audio.clear()
            started = time.process_time()
            fetched = [dataset.fetch(position) for position in positions]
            fetched_s = time.process_time() - started
            convert_s, audio_s = sum(converting), sum(decoding_audio)
            started = time.process_time()
            batch = Batch.collate([clip for clip, _ in fetched])
            collate_s = time.process_time() - started
            tensors = [v for name in batch.__slots__ if torch.is_tensor(v := getattr(batch, name))]
            if step:  # the first warms up
                yield {
                    "read": read_s,
                    "decode": fetched_s - convert_s - audio_s,
                    "sound": audio_s,
                    "convert": convert_s,
                    "collate": collate_s,
                    "failed": sum(len(unreadable) for _, unreadable in fetched),
                    "bytes": sum(tensor.nbytes for tensor in tensors),
                }


@contextmanager
def _timed(*methods: tuple[type, str]) -> Iterator[list[float]]:
    """CPU seconds of each call of some methods, while the block runs."""
    spent: list[float] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any) -> Any:
            started = time.process_time()
            try:
                return function(*args)
            finally:
                spent.append(time.process_time() - started)

        return wrapper

    plain = [(kind, name, getattr(kind, name)) for kind, name in methods]
    for kind, name, method in plain:
        setattr(kind, name, timed(method))
    try:
        yield spent
    finally:
        for kind, name, method in plain:
            setattr(kind, name, method)


def _all_workers(dataset: ClipDataset, steps: int, workers: int) -> float:
    """Clips per second of all workers, from the first batch on."""
    loader = make_loader(dataset, steps=2 * steps + 1, device=torch.device("cpu"), workers=workers)
    started, clips = 0.0, 0
    for batch in track(
        loader, "all workers", total=2 * steps + 1, console=Console(stderr=True), transient=True
    ):
        if batch.positions[0] == 0:
            started = time.perf_counter()
        else:
            clips += len(batch)
    return clips / (time.perf_counter() - started)
