"""Which videos look and sound alike: 64-bit fingerprints, compared only within buckets.

The fingerprint of a frame (dHash) says where brightness rises from left to right on a grid of 8 × 9
cells; that of audio, where loudness changes between frequency bands from one part to the next. Both
survive scaling and encoding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_CELLS = 8
_THIRD = 21  # bits: two similar fingerprints have at least one third in common exactly
_FLAT = 2.0  # grey levels of standard deviation: a frame below it has no fingerprint
_QUIET = 1e-4  # of full scale: audio below it has none
_WIDEST_BUCKET = 64  # more videos than this in one bucket are compared with their neighbours only
_BANDS_HZ = np.geomspace(100, 4000, _CELLS + 2)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a video looks and sounds like.

    pictures: of frames at the same shares of every video's duration; None where one is flat.
    sound: of the whole audio track; None without one or when it is silent.
    """

    pictures: tuple[int | None, ...]
    sound: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """How similar two videos must be to count as near-duplicates."""

    picture_bits: float = 10.0
    """Bits out of 64 that may differ between two frames, on average over those compared
    (unrelated ones differ in 32)."""
    sound_bits: int = 14
    """Bits out of 64 that may differ between two audio tracks (unrelated ones differ in 32)."""


def fingerprint(
    frames: NDArray[np.uint8], waveform: NDArray[np.int16] | None, *, sample_rate_hz: int
) -> Fingerprint:
    """The fingerprint of a video by some of its frames [T, H, W, 3] and its whole waveform [S]."""
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

    Candidates share a third of a frame's fingerprint at the same share of their duration; only
    these are compared, so that the work grows with the number of videos, not of pairs.

    Args:
        prints: all of the same number of frames; None is similar to nothing.
        likeness: how similar they must be.

    Returns:
        Places in `prints`, the smaller first, and the mean of differing bits; ascending.
    """
    table = _Table.of(prints)
    found: dict[tuple[int, int], float] = {}
    for moment in range(table.pictures.shape[1]):
        places = np.flatnonzero(table.seen[:, moment])
        for third in range(3):
            pieces = table.pictures[places, moment] >> np.uint64(third * _THIRD)
            order = np.argsort(pieces & np.uint64(2**_THIRD - 1), kind="stable")
            pieces = (pieces & np.uint64(2**_THIRD - 1))[order]
            for ones, twos in _candidates(places[order], pieces):
                bits = table.distances(ones, twos, likeness)
                good = np.flatnonzero(np.isfinite(bits))
                pairs = zip(ones[good].tolist(), twos[good].tolist(), strict=True)
                found |= zip(pairs, bits[good].tolist(), strict=True)
    return [(one, two, bits) for (one, two), bits in sorted(found.items())]


@dataclass(frozen=True, slots=True)
class _Table:
    """Fingerprints as arrays: frames uint64 [N, T] and audio uint64 [N], and which there are."""

    pictures: NDArray[np.uint64]
    seen: NDArray[np.bool_]
    sound: NDArray[np.uint64]
    heard: NDArray[np.bool_]

    @classmethod
    def of(cls, prints: Sequence[Fingerprint | None]) -> _Table:
        moments = max((len(one.pictures) for one in prints if one), default=0)
        rows = [one.pictures if one else (None,) * moments for one in prints]
        sounds = [one.sound if one else None for one in prints]
        shape = len(rows), moments
        return cls(
            pictures=np.array([[bits or 0 for bits in row] for row in rows], np.uint64).reshape(
                shape
            ),
            seen=np.array([[bits is not None for bits in row] for row in rows], bool).reshape(
                shape
            ),
            sound=np.array([bits or 0 for bits in sounds], np.uint64),
            heard=np.array([bits is not None for bits in sounds], bool),
        )

    def distances(
        self, ones: NDArray[np.intp], twos: NDArray[np.intp], likeness: Likeness
    ) -> NDArray[np.float64]:
        """Differing bits of a frame, on average; infinite where two videos are not alike."""
        both = self.seen[ones] & self.seen[twos]
        differ = _count(self.pictures[ones] ^ self.pictures[twos]) * both
        bits: NDArray[np.float64] = differ.sum(axis=1) / both.sum(axis=1)
        heard = self.heard[ones] & self.heard[twos]
        other = heard & (_count(self.sound[ones] ^ self.sound[twos]) > likeness.sound_bits)
        bits[other | (bits > likeness.picture_bits)] = np.inf
        return bits


def _count(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Number of bits set in each word."""
    bits = np.unpackbits(words[..., None].view(np.uint8), axis=-1)
    return np.asarray(bits.sum(axis=-1, dtype=np.int64))


def _candidates(
    places: NDArray[np.intp], pieces: NDArray[np.uint64]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Pairs with the same piece, the smaller place first; `pieces` ascend, and `places` in each."""
    _, bucket, sizes = np.unique(pieces, return_inverse=True, return_counts=True)
    narrow = sizes[bucket] <= _WIDEST_BUCKET
    for step in range(1, _WIDEST_BUCKET):  # with the next in the bucket, the next but one …
        same = pieces[step:] == pieces[:-step]
        if step > 1:  # in a wide bucket only with the next: thousands may share an opening title
            same &= narrow[step:]
        firsts = np.flatnonzero(same)
        if not len(firsts):
            return
        yield places[firsts], places[firsts + step]


def groups(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Connected components of `pairs`: each group ascending, the largest group first."""
    places, ends = np.unique(np.array(pairs, np.int64).reshape(-1, 2), return_inverse=True)
    ones, twos = ends.reshape(-1, 2).T
    graph = coo_array((np.ones(len(ones)), (ones, twos)), shape=(len(places), len(places)))
    count, labels = connected_components(graph, directed=False)
    members = [places[labels == label].tolist() for label in range(count)]
    return sorted(members, key=lambda group: (-len(group), group))
