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
            texts = [
                caption.text
                for shards in map(ShardFolder.open, data.shards)
                for row in shards.rows(data.split).tolist()
                for caption in shards.read_record(row).captions
            ]
            if not texts:
                logger.warning(
                    "no captions in split %r: the model learns from frames and audio alone",
                    data.split,
                )
            tokenizer = WordTokenizer.build(texts, max_words=max_words)
        else:
            of_model = start_from / "tokenizer.json"
            if not of_model.is_file():
                raise CheckpointError(
                    f"{of_model}: not found; expected the words that the model was trained with, "
                    "or captions would get the vectors of other words; for an official checkpoint, "
                    "convert it with --vocabulary FILE"
                )
            tokenizer = WordTokenizer.load(of_model)
        with atomic_file(path) as aside:
            tokenizer.save(aside)
    distributed.barrier()
    return WordTokenizer.load(path)
