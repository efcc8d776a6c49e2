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

_CELLS = 8
_THIRD = 21  # bits: two similar fingerprints have at least one third in common exactly
_FLAT = 2.0  # grey levels of standard deviation: a frame below it has no fingerprint
_QUIET = 1e-4  # of full scale: audio below it has none
_WIDEST_BUCKET = 64  # more videos than this in one bucket are compared with their neighbours only
_BANDS_HZ = np.geomspace(100, 4000, _CELLS + 2)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a video looks and sounds like.

    frames: at the same shares of every video's duration; None where one is flat.
    audio: of the whole track; None without one or when it is silent.
    """

    frames: tuple[int | None, ...]
    audio: int | None


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
        frames=tuple(_frame_bits(frame) for frame in frames),
        audio=None if waveform is None else _audio_bits(waveform, sample_rate_hz),
    )


def _frame_bits(frame: NDArray[np.uint8]) -> int | None:
    grey = frame.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    if grey.std() < _FLAT:
        return None
    rows = np.array_split(grey, _CELLS, axis=0)
    cells = [[cell.mean() for cell in np.array_split(row, _CELLS + 1, axis=1)] for row in rows]
    return _packed(np.diff(np.array(cells), axis=1) > 0)


def _audio_bits(waveform: NDArray[np.int16], rate_hz: int) -> int | None:
    if len(waveform) < 1024 * (_CELLS + 1) or np.abs(waveform).max() < _QUIET * 2**15:
        return None
    loudness = []
    for piece in np.array_split(waveform, _CELLS + 1):
        blocks = piece[: len(piece) // 1024 * 1024].reshape(-1, 1024).astype(np.float32)
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
    num_frames = max((len(one.frames) for one in prints if one), default=0)
    flat = Fingerprint(frames=(None,) * num_frames, audio=None)
    frames, has_frame = _as_array(
        [(one or flat).frames for one in prints], (len(prints), num_frames)
    )
    audio, has_audio = _as_array([(one or flat).audio for one in prints], (len(prints),))

    def differing_bits(ones: NDArray[np.intp], twos: NDArray[np.intp]) -> NDArray[np.float64]:
        """Of a frame, on average; infinite where two are not alike."""
        both = has_frame[ones] & has_frame[twos]
        bits: NDArray[np.float64] = (_count(frames[ones] ^ frames[twos]) * both).sum(axis=1)
        bits = bits / both.sum(axis=1)
        both = has_audio[ones] & has_audio[twos]
        other_audio = both & (_count(audio[ones] ^ audio[twos]) > likeness.sound_bits)
        bits[other_audio | (bits > likeness.picture_bits)] = np.inf
        return bits

    found: dict[tuple[int, int], float] = {}
    for number in range(num_frames):
        places = np.flatnonzero(has_frame[:, number])
        for third in range(3):
            pieces = frames[places, number] >> np.uint64(third * _THIRD)
            pieces &= np.uint64(2**_THIRD - 1)
            order = np.argsort(pieces, kind="stable")
            for ones, twos in _candidates(places[order], pieces[order]):
                bits = differing_bits(ones, twos)
                good = np.flatnonzero(np.isfinite(bits))
                pairs = zip(ones[good].tolist(), twos[good].tolist(), strict=True)
                found |= zip(pairs, bits[good].tolist(), strict=True)
    return [(one, two, bits) for (one, two), bits in sorted(found.items())]


def _as_array(
    values: Sequence[int | None] | Sequence[tuple[int | None, ...]], shape: tuple[int, ...]
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Fingerprints as numbers, 0 where there is none; and where there is one."""
    given = np.array(values, object).reshape(shape)
    there = given != None  # noqa: E711 of each element
    return np.where(there, given, 0).astype(np.uint64), np.asarray(there, np.bool_)


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
    from scipy.sparse import coo_array  # not above: it would double the start of every worker
    from scipy.sparse.csgraph import connected_components

    places, ends = np.unique(np.array(pairs, np.int64).reshape(-1, 2), return_inverse=True)
    ones, twos = ends.reshape(-1, 2).T
    graph = coo_array((np.ones(len(ones)), (ones, twos)), shape=(len(places), len(places)))
    count, labels = connected_components(graph, directed=False)
    members = [places[labels == label].tolist() for label in range(count)]
    return sorted(members, key=lambda group: (-len(group), group))
