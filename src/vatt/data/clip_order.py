"""Where the clips of training lie between the cuts, and their endless random order.

Pure functions of numbers: nothing here reads a file or keeps a state, so that any position of the
order can be computed at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vatt.contracts import draw_bits
from vatt.data.clip_timing import TOLERANCE_S

FEISTEL_ROUNDS = 4


class Segment(NamedTuple):
    """A piece of one video without cuts, and how many clips an epoch takes from it.

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
    gaps: tuple[NDArray[np.int64], NDArray[np.float64]] | None = None,
) -> Segments:
    """Cut videos at their cuts and share out their clips; no clip crosses a cut.

    Args:
        rows: [n], names of the videos, ascending.
        duration_s: [n], of each.
        cuts: how many each has [n], and all of them, one video after the other, in any order:
            times that no clip may cross; those outside the video do nothing.
        clip_duration_s: how long a clip lasts.
        repeat_short: a segment shorter than a clip gives one clip that repeats; else none.
        gaps: which video each damaged stretch belongs to [m], ascending, and its start and end
            [m, 2]; these are cuts, too, and the segment between them gives no clip.

    Returns:
        Segments with as many clips as fit into each side by side. Their starts are spread over the
        whole segment, so that neighbours may overlap.
    """
    videos, (counts, cuts_s) = np.arange(len(duration_s)), cuts
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

    fitting = ((end_s - start_s + TOLERANCE_S) / clip_duration_s).astype(np.int64)
    kept = fitting > 0
    if repeat_short:
        kept |= end_s > start_s + TOLERANCE_S
    if gaps is not None and len(gaps[0]):
        kept &= ~_in_gap(number, (start_s + end_s) / 2, *gaps)
    clips = np.maximum(fitting[kept], 1)
    arrays = rows[number[kept]], start_s[kept], end_s[kept], np.cumsum(clips)
    return Segments(*(torch.from_numpy(array) for array in arrays))


def _in_gap(
    number: NDArray[np.int64],
    time_s: NDArray[np.float64],
    videos: NDArray[np.int64],
    gaps_s: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Whether each time, of video `number`, lies in a gap of that video."""
    span_s = 1e6  # videos follow each other at this distance: longer than any
    at = np.searchsorted(videos * span_s + gaps_s[:, 0], number * span_s + time_s) - 1
    return np.asarray((at >= 0) & (videos[at] == number) & (time_s < gaps_s[at, 1]))


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
    """Where a clip is: which shard folder, which row of it, which clip of which segment."""

    folder: int
    row: int
    segment: Segment
    clip: int


class ClipOrder:
    """The endless random order of training clips; any position of it is computed at once.

    Each epoch has every clip of every folder once. With weights folders take turns in their
    proportions, as evenly as can be, so that every batch has them; each folder still has every
    clip once before any comes again.
    """

    def __init__(
        self, folders: Sequence[Segments], *, seed: int, weights: Sequence[float] = ()
    ) -> None:
        """Lay out the epochs.

        Args:
            folders: at least one clip each.
            seed: another seed, another order.
            weights: shares of the folders among the clips; as many clips as they have when empty.
        """
        self._folders, self._seed = folders, seed
        self._clips = [segments.num_clips for segments in folders]
        self._firsts = np.cumsum([0, *self._clips])
        self._shares = [  # of what the folders before it leave, in 2^-32
            round(weight / sum(weights[folder:]) * 2**32) for folder, weight in enumerate(weights)
        ]

    @property
    def num_clips(self) -> int:
        """Different clips of all folders; without weights an epoch has each once."""
        return int(self._firsts[-1])

    def place(self, position: int, attempt: int = 0) -> Place:
        """The clip at a position of the order.

        Args:
            position: 0 or more.
            attempt: how many clips were tried there; each is at the same place of a later epoch.
        """
        if self._shares:
            folder, turns = self._folder_at(position)
            epoch, at = divmod(turns, self._clips[folder])
            clip = permuted(at, self._clips[folder], self._seed, folder, epoch + attempt)
        else:
            epoch, at = divmod(position, self.num_clips)
            clip = permuted(at, self.num_clips, self._seed, epoch + attempt)
            folder = int(np.searchsorted(self._firsts, clip, side="right")) - 1
            clip -= int(self._firsts[folder])
        return Place(folder, *self._folders[folder].find(clip))

    def _folder_at(self, position: int) -> tuple[int, int]:
        """Whose turn it is at a position, and how many turns the folder had before.

        Of the first i turns of those left, the next folder has ⌊share × i⌋: never more than one
        away from its share.
        """
        left = position
        for folder, share in enumerate(self._shares[:-1]):
            turns = left * share >> 32
            if (left + 1) * share >> 32 > turns:
                return folder, turns
            left -= turns
        return len(self._shares) - 1, left
