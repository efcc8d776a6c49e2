"""What is taken from the training data before training: words, hash, form, mean of frames."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from vatt import distributed
from vatt.contracts import Augmentation, Batch, FramePath
from vatt.data import augment
from vatt.data.data_config import DataConfig
from vatt.data.datasets import ClipDataset
from vatt.data.tokenizer import WordTokenizer, count_words
from vatt.devices import AutocastSetting
from vatt.errors import CheckpointError, DataError
from vatt.shards.index import ALL_COLUMNS
from vatt.shards.read import ShardFolder
from vatt.storage import atomic_file
from vatt.workers.progress import followed

logger = logging.getLogger(__name__)

Colour = tuple[float, float, float]


def vocabulary(
    folder: Path, data: DataConfig, *, max_words: int, start_from: Path | None
) -> WordTokenizer:
    """The words of the training captions, at most `max_words` of them (§4.3).

    Made once, by all ranks together, and kept in the run folder; a continued run reads it. A run
    that starts from a model has that model's words.

    Raises:
        CheckpointError: the model to start from has none.
    """
    path = folder / "tokenizer.json"
    if distributed.from_main(path.exists()):  # ranks may not see a new file at one time
        return WordTokenizer.load(path)
    if start_from is None:
        counts = _words(data)
        tokenizer = WordTokenizer.of_counts(counts, max_words=max_words)
        if data.shards and not counts and distributed.is_main():
            logger.warning(
                "no captions in split %r: the model learns from frames and audio alone", data.split
            )
    else:
        if not start_from.is_dir():
            raise CheckpointError(f"{start_from}: no such folder; expected a model folder")
        of_model = start_from / "tokenizer.json"
        if not of_model.is_file():
            raise CheckpointError(
                f"{of_model}: not found; expected the words that the model was trained with, "
                "or captions would get the vectors of other words; for an official checkpoint, "
                "convert it with --vocabulary FILE"
            )
        tokenizer = WordTokenizer.load(of_model)
    if distributed.is_main():
        with atomic_file(path) as aside:
            tokenizer.save(aside)
    # Not from the file, which another machine may not see yet, or, of a dry run, never.
    return WordTokenizer.from_json(distributed.from_main(tokenizer.to_json()), where=str(path))


def _words(data: DataConfig) -> Counter[str]:
    """How often each word is in the training captions; known to the main rank alone.

    Each rank reads its share of the videos, one after the other.
    """
    counts = Counter[str]()
    for shards in map(ShardFolder.open, data.shards):
        mine = shards.rows(data.split)[distributed.rank() :: distributed.world_size()].tolist()
        videos = followed(mine, f"words of {shards.folder.name}", shown=distributed.is_main())
        counts += count_words(
            caption.text for row in videos for caption in shards.read_record(row).captions
        )
    return sum(map(Counter, distributed.each_to_main(counts)), Counter())


def data_hash(data: DataConfig) -> str:
    """What changes with any video, caption or cut that is trained on, wherever the shards lie."""
    digest = hashlib.sha256(data.split.encode())
    for folder in data.shards:
        shards = ShardFolder.load(folder, ALL_COLUMNS)
        table = shards.index.select(["key", "sha256", "json_sha256", "duration_s", "cuts"])
        digest.update(json.dumps(table.take(shards.rows(data.split)).to_pydict()).encode())
    return digest.hexdigest()


def same_data(data: DataConfig, before: str | None, where: Path | None) -> str:
    """The hash of the data; `before` is that of the run so far, None where it is not known.

    Raises:
        DataError: they differ.
    """
    now = data_hash(data)
    if before not in (None, now):
        raise DataError(
            f"{', '.join(map(str, data.shards))}: found other videos, captions or cuts in "
            f"split {data.split!r} than {where} was trained on; give the shards as "
            "they were, or begin a new run in another --out"
        )
    return now


def frame_path(data: DataConfig, *, antialias: bool, autocast: AutocastSetting) -> FramePath:
    """How frames come to a model in training; the form of its shards is that of the first."""
    made = ShardFolder.load(data.shards[0]).info.get("made", {}).get("settings", {})
    fps = made.get("fps", "source")
    return FramePath(
        decode=data.decode,
        decode_size=data.decode_size,
        frame_step=data.frame_step,
        antialias=antialias,
        autocast=autocast,
        short_side=made.get("short_side"),
        fps=None if fps == "source" else fps,
        copy=bool(made.get("copy", False)),
    )


def measure_frames(
    dataset: ClipDataset, clips: int, *, antialias: bool = True
) -> tuple[Colour, Colour]:
    """Mean and deviation of red, green and blue in [-1, 1] over the crops of the first clips."""

    def rounded(values: Tensor) -> Colour:
        red, green, blue = (round(value, 4) for value in values.tolist())
        return red, green, blue

    total, squares = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    pixels = 0
    for number in range(clips):
        clip, _ = dataset.fetch(number)
        uncoloured = replace(clip, augmentation=Augmentation(crop=clip.augmentation.crop))
        batch = Batch.collate([uncoloured])
        frames = augment.apply(batch, dataset.spec, antialias=antialias).frames
        values = frames.view(-1, 3).double()
        total += values.sum(0)
        squares += values.square().sum(0)
        pixels += len(values)
    mean = total / pixels
    std = (squares / pixels - mean.square()).clamp(min=1e-4).sqrt()
    return rounded(mean), rounded(std)
