"""Few labels: which labelled examples of a training split are used, and clips of them alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, count
from typing import Any

import numpy as np

from vatt.contracts import Batch, Clip, ClipSpec, UnreadableClip, draw_bits, name_bits
from vatt.data import augment
from vatt.data.augment import AugmentConfig
from vatt.data.clip_order import permuted
from vatt.data.data_config import DataConfig
from vatt.data.datasets import REPLACEMENTS
from vatt.errors import DataError, MediaError
from vatt.evaluation.examples import LabelledSpan, class_names, reader_of
from vatt.evaluation.results import ids_hash
from vatt.shards.read import ShardFolder

STARTS = 8  # of clips in one example, evenly spread over it
Found = Sequence[tuple[ShardFolder, Sequence[LabelledSpan]]]


def few_of(
    found: Found, per_class: int, *, draw: int
) -> list[tuple[ShardFolder, list[LabelledSpan]]]:
    """So many examples of each class, fewer where it has fewer, in their order.

    A function of the draw and of the examples' names: neither of the model nor of the seed of
    training. An example with several labels is taken for whichever of its classes draws it. Of the
    same draw more labels a class hold those of fewer.
    """
    by_class: dict[str, list[LabelledSpan]] = {}
    for example in chain.from_iterable(part for _, part in found):
        for name in example.labels:
            by_class.setdefault(name, []).append(example)
    taken = {
        example
        for of_class in by_class.values()
        for example in sorted(of_class, key=lambda one: draw_bits(draw, name_bits(one.id)))[
            :per_class
        ]
    }
    return [(folder, [one for one in part if one in taken]) for folder, part in found]


def about_few(found: Found, per_class: int, *, draw: int) -> dict[str, Any]:
    """What a result says of the few examples that `few_of` gave."""
    examples = [one for _, part in found for one in part]
    numbers = {
        name: sum(name in one.labels for one in examples)
        for name in class_names(examples, several=True)
    }
    return {
        "labels_per_class": per_class,
        "draw": draw,
        "examples": len(examples),
        "ids_hash": ids_hash(one.id for one in examples),
        "classes_with_fewer": {name: n for name, n in numbers.items() if n < per_class},
    }


class FewClips:
    """Clips of these examples alone for a `Loader` of training, each example equally often.

    A clip lies inside its example where there is room, and has its labels. Each is a function of
    the seed and its position in the endless order.
    """

    def __init__(
        self,
        found: Found,
        config: DataConfig,
        spec: ClipSpec,
        augmentation: AugmentConfig,
        seed: int,
        *,
        column: str,
    ) -> None:
        self.config, self.spec, self._seed = config, spec, seed
        self._augmentation, self._column = augmentation, column
        self._examples = [
            (reader, example)
            for folder, part in found
            if part
            for reader in [reader_of(folder, part, config, spec)]
            for example in part
        ]
        self.num_clips = len(self._examples)
        self.num_videos = len({(id(reader), one.row) for reader, one in self._examples})

    def batch(self, positions: Sequence[int]) -> Batch:
        """The clips of some positions; for one that cannot be read comes another."""
        fetched = [self._fetch(position) for position in positions]
        unreadable = chain.from_iterable(failed for _, failed in fetched)
        return Batch.collate([clip for clip, _ in fetched], positions, tuple(unreadable))

    def _fetch(self, position: int) -> tuple[Clip, list[UnreadableClip]]:
        unreadable = list[UnreadableClip]()
        epoch, place = divmod(position, self.num_clips)
        for attempt in count():
            at = permuted(place, self.num_clips, self._seed, epoch + attempt)
            reader, example = self._examples[at]
            draw = draw_bits(self._seed, position, attempt)
            rng = np.random.default_rng(draw)
            starts_s, end_s = example.clips(self.spec, STARTS)
            start_s = starts_s[rng.integers(STARTS)]
            changes = augment.draw(self._augmentation, rng, reader.aspect(example.row), self.spec)
            try:
                clip = reader.read(example.row, start_s, end_s, changes, draw)
            except (MediaError, DataError) as error:
                step = position // self.config.batch_size
                unreadable.append(UnreadableClip(reader.name(example.row), str(error), step))
                if len(unreadable) == REPLACEMENTS:
                    raise DataError(
                        f"{error}\nand so did {REPLACEMENTS - 1} other clips in a row; check the "
                        "shards, or prepare them again"
                    ) from error
                continue
            if clip.has_audio and self._augmentation.audio_noise:
                noisy = augment.add_noise(clip.waveform, self._augmentation.audio_noise, rng)
                clip = replace(clip, waveform=noisy)
            return replace(clip, labels={self._column: example.labels}), unreadable
        raise AssertionError
