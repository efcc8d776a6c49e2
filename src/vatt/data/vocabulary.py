"""The words of a run: those of its training captions, or of the model that it starts from."""

from __future__ import annotations

import logging
from pathlib import Path

from vatt import distributed
from vatt.data.data_config import DataConfig
from vatt.data.tokenizer import WordTokenizer
from vatt.errors import CheckpointError
from vatt.shards.read import ShardFolder
from vatt.storage import atomic_file

logger = logging.getLogger(__name__)


def vocabulary(
    folder: Path, data: DataConfig, *, max_words: int, start_from: Path | None
) -> WordTokenizer:
    """The words of the training captions, at most `max_words` of them (§4.3).

    Built once by the main rank and kept in the run folder; a continued run reads it. A run that
    starts from a model has that model's words.

    Raises:
        CheckpointError: the model to start from has none.
    """
    path = folder / "tokenizer.json"
    if distributed.is_main() and not path.exists():
        if start_from is None:
            tokenizer = WordTokenizer.build(_captions(data), max_words=max_words)
        else:
            tokenizer = WordTokenizer.load(_of_model(start_from))
        with atomic_file(path) as aside:
            tokenizer.save(aside)
    distributed.barrier()
    return WordTokenizer.load(path)


def _captions(data: DataConfig) -> list[str]:
    """The captions of the split to train on, in shard order."""
    datasets = [ShardFolder.open(folder) for folder in data.shards]
    texts = [
        caption.text
        for dataset in datasets
        for row in dataset.rows(data.split)
        for caption in dataset.read_record(int(row)).captions
    ]
    if not texts:
        logger.warning(
            "no captions in split %r: the model learns from pictures and sound alone", data.split
        )
    return texts


def _of_model(folder: Path) -> Path:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(
            f"{path}: not found; expected the words that the model was trained with, or captions "
            "would get the vectors of other words; for an official checkpoint, convert it with "
            "--vocabulary FILE"
        )
    return path
