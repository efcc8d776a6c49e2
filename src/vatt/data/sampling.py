"""Which moments become clips, and which frames, samples and captions belong to them (§4.1, §4.3).

Pure functions of numbers: nothing here reads a file or keeps a state, so that any position of the
training order can be computed at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vatt.contracts import ClipSpec, draw_bits

TOLERANCE_S = 1e-3  # durations come from containers that round to milliseconds
FEISTEL_ROUNDS = 4


class Segment(NamedTuple):
    """A stretch of one video without cuts, and how many clips an epoch takes from it.

    A segment shorter than a clip has one clip, which starts at `start_s` and repeats.
    """

    start_s: float
    end_s: float
    clips: int

    def clip_start(self, clip: int, position: float, duration_s: float) -> float:
        """Start of the clip number `clip`, in [0, clips): each has its own share of the starts.

        Args:
            clip: which of the segment's clips.
            position: in [0, 1), drawn at random; where in the clip's share of the starts.
            duration_s: how long a clip lasts.
        """
        room = max(0.0, self.end_s - self.start_s - duration_s)
        return self.start_s + room * (clip + position) / self.clips


class Segments(NamedTuple):
    """The segments of many videos, as tensors: processes share one copy of them.

    row: int64 [n], ascending, which video; start_s, end_s: float64 [n];
    last: int64 [n], clips of all segments up to and with this one.
    """

    row: Tensor
    start_s: Tensor
    end_s: Tensor
    last: Tensor

    @property
    def num_clips(self) -> int:
        """Of all segments together."""
        return int(self.last[-1]) if len(self.last) else 0

    def find(self, clip: int) -> tuple[int, Segment, int]:
        """Row and segment of a clip, and which of the segment's clips it is."""
        at = int(np.searchsorted(self.last.numpy(), clip, side="right"))
        first = int(self.last[at - 1]) if at else 0
        segment = Segment(
            float(self.start_s[at]), float(self.end_s[at]), int(self.last[at]) - first
        )
        return int(self.row[at]), segment, clip - first


def lay_out(
    rows: NDArray[np.int64],
    duration_s: NDArray[np.float64],
    cuts: tuple[NDArray[np.int64], NDArray[np.float64]],
    clip_duration_s: float,
    *,
    repeat_short: bool,
) -> Segments:
    """Cut videos at their cuts and share out their clips; no clip crosses a cut.

    Args:
        rows: [n], names of the videos, ascending.
        duration_s: [n], of each.
        cuts: how many each has [n], and all of them, one video after the other, in any order:
            moments that no clip may cross; those outside the video do nothing.
        clip_duration_s: how long a clip lasts.
        repeat_short: a segment shorter than a clip gives one clip that repeats; else none.

    Returns:
        Segments with as many clips as fit into each side by side. Their starts are spread over the
        whole segment, so that neighbours may overlap.
    """
    place, start_s, end_s = _stretches(duration_s, *cuts)
    fitting = ((end_s - start_s + TOLERANCE_S) / clip_duration_s).astype(np.int64)
    kept = fitting > 0
    if repeat_short:
        kept |= end_s > start_s + TOLERANCE_S
    clips = np.maximum(fitting[kept], 1)
    arrays = rows[place[kept]], start_s[kept], end_s[kept], np.cumsum(clips)
    return Segments(*(torch.from_numpy(array) for array in arrays))


def _stretches(
    duration_s: NDArray[np.float64], counts: NDArray[np.int64], cuts_s: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Number, start and end of the parts of videos between cuts, in order."""
    videos = np.arange(len(duration_s))
    number = np.concatenate([videos, np.repeat(videos, counts)])
    start_s = np.concatenate([np.zeros(len(videos)), cuts_s])
    inside = (start_s > TOLERANCE_S) & (start_s < duration_s[number] - TOLERANCE_S)
    inside[: len(videos)] = True
    number, start_s = number[inside], start_s[inside]
    order = np.lexsort((start_s, number))
    number, start_s = number[order], start_s[order]
    same_video = number[1:] == number[:-1]
    end_s = duration_s[number]
    end_s[:-1][same_video] = start_s[1:][same_video]
    return number, start_s, end_s


def permuted(index: int, size: int, *keys: int) -> int:
    """Where `index` goes in a random order of `size` things that is a function of `keys`.

    A Feistel network over the next power of four, walked until it lands inside: a permutation in
    constant memory, however large `size` is.

    Args:
        index: in [0, size).
        size: how many things there are.
        keys: whatever the order depends on, such as seed and epoch.
    """
    assert 0 <= index < size
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half_bits) - 1
    while True:
        left, right = index >> half_bits, index & mask
        for turn in range(FEISTEL_ROUNDS):
            left, right = right, left ^ (draw_bits(*keys, turn, right) & mask)
        index = (left << half_bits) | right
        if index < size:
            return index


class Place(NamedTuple):
    """Where a clip is: which source, which row of it, which clip of which segment."""

    source: int
    row: int
    segment: Segment
    clip: int


class ClipOrder:
    """The endless random order of training clips; any position of it is computed at once.

    Each epoch has every clip of every source once. With weights sources take turns in their
    proportions, as evenly as can be, so that every batch has them; each source still has every
    clip once before any comes again.
    """

    def __init__(
        self, sources: Sequence[Segments], *, seed: int, weights: Sequence[float] = ()
    ) -> None:
        """Lay out the epochs.

        Args:
            sources: at least one clip each.
            seed: another seed, another order.
            weights: shares of the sources among the clips; as many clips as they have when empty.
        """
        self._sources, self._seed = sources, seed
        self._clips = [segments.num_clips for segments in sources]
        self._firsts = np.cumsum([0, *self._clips])
        self._shares = [  # of what the sources before it leave, in 2^-32
            round(weight / sum(weights[source:]) * 2**32) for source, weight in enumerate(weights)
        ]

    @property
    def num_clips(self) -> int:
        """Different clips of all sources; without weights an epoch has each once."""
        return int(self._firsts[-1])

    def place(self, index: int, attempt: int = 0) -> Place:
        """The clip at a position of the order, 0 or more.

        Args:
            index: the position.
            attempt: how many clips were tried there before; each comes from a later epoch.
        """
        source, turn = self._turn(index, attempt)
        return Place(source, *self._sources[source].find(turn))

    def _turn(self, index: int, attempt: int) -> tuple[int, int]:
        if not self._shares:
            epoch, position = divmod(index, self.num_clips)
            turn = permuted(position, self.num_clips, self._seed, epoch + attempt)
            source = int(np.searchsorted(self._firsts, turn, side="right")) - 1
            return source, turn - int(self._firsts[source])
        source, turns = self._source_at(index)
        epoch, position = divmod(turns, self._clips[source])
        return source, permuted(position, self._clips[source], self._seed, source, epoch + attempt)

    def _source_at(self, index: int) -> tuple[int, int]:
        """Whose turn it is at a position, and how many turns the source had before.

        Of the first i turns of those left, the next source has ⌊share × i⌋: never more than one
        away from its share.
        """
        left = index
        for source, share in enumerate(self._shares[:-1]):
            turns = left * share >> 32
            if (left + 1) * share >> 32 > turns:
                return source, turns
            left -= turns
        return len(self._shares) - 1, left


def clip_times(
    spec: ClipSpec, start_s: float, end_s: float, *, step_s: float | None = None
) -> NDArray[np.float64]:
    """When each of the T frames is taken, in seconds [T]; they repeat from the start past `end_s`.

    Args:
        spec: gives T and the frame rate.
        start_s: time of the first frame.
        end_s: end of the segment. A clip that does not fit repeats the stretch [start_s, end_s),
            as the official code repeats short videos.
        step_s: from one frame to the next; 1 / frame rate if not given.
    """
    step_s = 1.0 / spec.fps if step_s is None else step_s
    offsets_s = np.round(np.arange(spec.frames, dtype=np.float64) * step_s, 9)
    if start_s + spec.frames * step_s > end_s + TOLERANCE_S:
        length_s = round(end_s - start_s, 9)
        # Nobody is shown the very end: there the next frame counts as begun, and there is none.
        offsets_s = np.minimum(np.fmod(offsets_s, length_s), length_s - 2 * TOLERANCE_S)
    return np.maximum(start_s + offsets_s, start_s)


def fits(spec: ClipSpec, start_s: float, end_s: float) -> bool:
    """Whether a clip that starts at `start_s` ends by `end_s`."""
    return start_s + spec.duration_s <= end_s + TOLERANCE_S


def sound_span(spec: ClipSpec, start_s: float, end_s: float) -> tuple[int, int]:
    """First sample of a clip, and how many samples there are before its sound repeats, or ends."""
    length = spec.samples
    if not fits(spec, start_s, end_s):
        length = max(1, round((end_s - start_s) * spec.sample_rate_hz))
    return round(start_s * spec.sample_rate_hz), length


def clip_samples(
    track: NDArray[np.int16], spec: ClipSpec, start_s: float, end_s: float
) -> NDArray[np.int16]:
    """The S samples that sound while the frames of `clip_times` are seen.

    Args:
        track: int16 [S_total], the whole sound track; sample i sounds at i / sample rate.
        spec: gives S and the sample rate.
        start_s: of the clip.
        end_s: end of the segment; the sound repeats exactly as the frames do.

    Returns:
        int16 [S]; zeros where the track has ended.
    """
    first, length = sound_span(spec, start_s, end_s)
    return whole_sound(track[first : first + length], spec, length)


def whole_sound(heard: NDArray[np.int16], spec: ClipSpec, length: int) -> NDArray[np.int16]:
    """Samples of `sound_span` → S samples: zeros up to `length`, and that again and again."""
    if len(heard) < length:
        heard = np.concatenate([heard, np.zeros(length - len(heard), np.int16)])
    return heard if length == spec.samples else np.resize(heard, spec.samples)


def nearest_captions(
    spans_s: NDArray[np.float64], middle_s: float, *, count: int, max_gap_s: float | None = None
) -> NDArray[np.int64]:
    """The captions nearest in time to a clip: the positives of MIL-NCE (§4.1).

    Args:
        spans_s: [n, 2], start and end of each caption.
        middle_s: the middle of the clip.
        count: K, how many are wanted.
        max_gap_s: captions whose middle is further away than this are left out.

    Returns:
        At most `count` row numbers, nearest first. Distance is between middles; of two captions
        equally near, the one that starts first comes first.
    """
    gaps_s = np.abs(spans_s.mean(axis=1) - middle_s) if len(spans_s) else np.zeros(0)
    order = np.lexsort((spans_s[:, 0], gaps_s)) if len(spans_s) else np.zeros(0, np.int64)
    if max_gap_s is not None:
        order = order[gaps_s[order] <= max_gap_s]
    return order[:count]


def window_starts(duration_s: float, spec: ClipSpec, windows: int) -> NDArray[np.float64]:
    """Starts of the windows that evaluate a video, spread evenly over it [windows] (§4.3).

    The first starts at 0 and the last ends with the video; a single one lies in the middle. All
    start at 0 when the video is shorter than a clip.
    """
    room = max(0.0, duration_s - spec.duration_s)
    return np.array([room / 2]) if windows == 1 else np.linspace(0.0, room, windows)
