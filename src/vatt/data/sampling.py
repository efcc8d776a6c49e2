"""Which moments become clips, and which frames, samples and captions belong to them (§4.1, §4.3).

Pure functions of numbers: nothing here reads a file or keeps a state, so that any position of the
training order can be computed at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vatt.contracts import ClipSpec, draw_bits

TOLERANCE_S = 1e-3  # durations come from containers that round to milliseconds
FEISTEL_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Segment:
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


def clip_slots(
    duration_s: float, cuts_s: Sequence[float], clip_duration_s: float, *, repeat_short: bool
) -> list[Segment]:
    """Cut a video at its cuts and share out its clips; no clip crosses a cut.

    Args:
        duration_s: of the video.
        cuts_s: moments that no clip may cross, in any order; those outside the video do nothing.
        clip_duration_s: how long a clip lasts.
        repeat_short: a segment shorter than a clip gives one clip that repeats; else none.

    Returns:
        As many clips for each segment as fit into it side by side. Their starts are spread over
        the whole segment, so that neighbours may overlap.
    """
    inside = sorted({cut for cut in cuts_s if TOLERANCE_S < cut < duration_s - TOLERANCE_S})
    edges = [0.0, *inside, duration_s]
    segments = []
    for start_s, end_s in itertools.pairwise(edges):
        fitting = int((end_s - start_s + TOLERANCE_S) / clip_duration_s)
        if fitting or (repeat_short and end_s > start_s + TOLERANCE_S):
            segments.append(Segment(start_s, end_s, max(1, fitting)))
    return segments


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

    Each epoch has every clip of every source once. With weights, each source still has every clip
    once before any comes again, but sources take turns in other proportions.
    """

    def __init__(
        self,
        sources: Sequence[Sequence[tuple[int, Segment]]],
        *,
        seed: int,
        weights: Sequence[float] = (),
    ) -> None:
        """Lay out the epochs.

        Args:
            sources: per source, (row, segment) pairs; at least one clip each.
            seed: another seed, another order.
            weights: shares of the sources among the clips; as many clips as they have when empty.
        """
        self._sources, self._seed = sources, seed
        self._ends = [np.cumsum([segment.clips for _, segment in pairs]) for pairs in sources]
        clips = [int(ends[-1]) for ends in self._ends]
        shares = [weight / sum(weights) * sum(clips) for weight in weights] or clips
        self._turns = [max(1, round(share)) for share in shares]  # of each source in an epoch
        self._first_turns = np.cumsum([0, *self._turns])
        self.clips_per_epoch = int(self._first_turns[-1])

    def __getitem__(self, index: int) -> Place:
        """The clip at a position of the order, 0 or more."""
        epoch, position = divmod(index, self.clips_per_epoch)
        turn = permuted(position, self.clips_per_epoch, self._seed, epoch)
        source = int(np.searchsorted(self._first_turns, turn, side="right")) - 1
        turn -= int(self._first_turns[source])
        clips, turns = int(self._ends[source][-1]), self._turns[source]
        if turns != clips:  # the source's own epochs are longer or shorter
            own_epoch, turn = divmod(epoch * turns + turn, clips)
            turn = permuted(turn, clips, self._seed, source, own_epoch)
        found = int(np.searchsorted(self._ends[source], turn, side="right"))
        row, segment = self._sources[source][found]
        return Place(source, row, segment, turn - int(self._ends[source][found]) + segment.clips)


def clip_times(spec: ClipSpec, start_s: float, end_s: float) -> NDArray[np.float64]:
    """When each of the T frames is taken, in seconds [T]; they repeat from the start past `end_s`.

    Args:
        spec: gives T and the frame rate.
        start_s: time of the first frame.
        end_s: end of the segment. A clip that does not fit repeats the stretch [start_s, end_s),
            as the official code repeats short videos.
    """
    offsets_s = np.round(np.arange(spec.frames, dtype=np.float64) / spec.fps, 9)
    if not fits(spec, start_s, end_s):
        length_s = round(end_s - start_s, 9)
        # Nobody is shown the very end: there the next frame counts as begun, and there is none.
        offsets_s = np.minimum(np.fmod(offsets_s, length_s), length_s - 2 * TOLERANCE_S)
    return np.maximum(start_s + offsets_s, start_s)


def fits(spec: ClipSpec, start_s: float, end_s: float) -> bool:
    """Whether a clip that starts at `start_s` ends by `end_s`."""
    return start_s + spec.duration_s <= end_s + TOLERANCE_S


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
    first = round(start_s * spec.sample_rate_hz)
    length = spec.samples
    if not fits(spec, start_s, end_s):
        length = max(1, round((end_s - start_s) * spec.sample_rate_hz))
    heard = track[first : first + length]
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
