"""Which videos look and sound alike: 64-bit fingerprints, compared only within buckets.

A picture's fingerprint (dHash) says where brightness rises from left to right on a grid of 8 × 9
cells; a sound's where loudness moves between bands and moments. Both survive scaling and encoding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_CELLS = 8
_THIRD = 21  # bits of a fingerprint that two alike ones share exactly, somewhere
_FLAT = 2.0  # grey levels of standard deviation: a picture below it has no fingerprint
_QUIET = 1e-4  # of full scale: sound below it has none
_WIDEST_BUCKET = 64  # more videos than this in one bucket are compared with their neighbours only
_BANDS_HZ = np.geomspace(100, 4000, _CELLS + 2)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a video looks and sounds like.

    pictures: of frames at the same shares of every video's duration; None where one is flat.
    sound: of the whole track; None without sound or when it is silent.
    """

    pictures: tuple[int | None, ...]
    sound: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """How alike two videos have to be, in bits out of 64 that may differ."""

    picture_bits: float = 10.0
    """Bits out of 64 that may differ between two pictures, on average over those compared
    (unrelated ones differ in 32)."""
    sound_bits: int = 14
    """Bits out of 64 that may differ between two sound tracks (unrelated ones differ in 32)."""


def fingerprint(
    frames: NDArray[np.uint8], waveform: NDArray[np.int16] | None, *, sample_rate_hz: int
) -> Fingerprint:
    """The fingerprint of a video by some of its frames [T, H, W, 3] and all of its sound [S]."""
    return Fingerprint(
        pictures=tuple(_picture_bits(frame) for frame in frames),
        sound=None if waveform is None else _sound_bits(waveform, sample_rate_hz),
    )


def _picture_bits(frame: NDArray[np.uint8]) -> int | None:
    grey = frame.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    if grey.std() < _FLAT:
        return None
    rows = np.array_split(grey, _CELLS, axis=0)
    cells = [[cell.mean() for cell in np.array_split(row, _CELLS + 1, axis=1)] for row in rows]
    return _packed(np.diff(np.array(cells), axis=1) > 0)


def _sound_bits(waveform: NDArray[np.int16], rate_hz: int) -> int | None:
    if len(waveform) < 1024 * (_CELLS + 1) or np.abs(waveform).max() < _QUIET * 2**15:
        return None
    loudness = []
    for stretch in np.array_split(waveform, _CELLS + 1):
        blocks = stretch[: len(stretch) // 1024 * 1024].reshape(-1, 1024).astype(np.float32)
        power = np.mean([np.abs(np.fft.rfft(block)) ** 2 for block in blocks], axis=0)
        bands = np.digitize(np.fft.rfftfreq(1024, 1 / rate_hz), _BANDS_HZ)
        loudness.append([np.log(power[bands == band].sum() + 1.0) for band in range(1, _CELLS + 2)])
    return _packed(np.diff(np.diff(np.array(loudness), axis=1), axis=0) > 0)


def _packed(bits: NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big")


def alike(prints: Sequence[Fingerprint | None], likeness: Likeness) -> list[tuple[int, int, float]]:
    """Pairs of videos that look and sound alike.

    Candidates share a third of a picture's fingerprint at the same share of their duration; only
    these are compared, so that the work grows with the number of videos, not of pairs.

    Returns:
        Places in `prints`, the smaller first, and the mean of differing bits; ascending.
    """
    found = {}
    for one, two in set(_candidates(prints)):
        first, second = prints[one], prints[two]
        assert first is not None
        assert second is not None
        bits = _distance(first, second, likeness)
        if bits is not None:
            found[one, two] = bits
    return [(one, two, bits) for (one, two), bits in sorted(found.items())]


def _candidates(prints: Iterable[Fingerprint | None]) -> Iterator[tuple[int, int]]:
    buckets = defaultdict[tuple[int, int, int], list[int]](list)
    for place, found in enumerate(prints):
        for moment, bits in enumerate(found.pictures if found else ()):
            if bits is not None:
                for third in range(3):
                    piece = bits >> third * _THIRD & (1 << _THIRD) - 1
                    buckets[moment, third, piece].append(place)
    for places in buckets.values():
        if len(places) <= _WIDEST_BUCKET:
            yield from combinations(places, 2)
        else:  # the same opening title in thousands of videos
            yield from pairwise(places)


def _distance(one: Fingerprint, two: Fingerprint, likeness: Likeness) -> float | None:
    """Differing bits of a picture, on average; None when the two are not alike."""
    pairs = [
        (mine, its)
        for mine, its in zip(one.pictures, two.pictures, strict=True)
        if mine is not None and its is not None
    ]
    bits = sum((mine ^ its).bit_count() for mine, its in pairs) / len(pairs)
    if bits > likeness.picture_bits:
        return None
    heard = one.sound is not None and two.sound is not None
    if heard and (one.sound ^ two.sound).bit_count() > likeness.sound_bits:  # type: ignore[operator]
        return None
    return bits


def groups(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """What is connected by pairs: each group ascending, the largest group first."""
    places, ends = np.unique(np.array(pairs, np.int64).reshape(-1, 2), return_inverse=True)
    ones, twos = ends.reshape(-1, 2).T
    graph = coo_array((np.ones(len(ones)), (ones, twos)), shape=(len(places), len(places)))
    count, labels = connected_components(graph, directed=False)
    members = [places[labels == label].tolist() for label in range(count)]
    return sorted(members, key=lambda group: (-len(group), group))
