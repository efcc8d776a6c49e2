"""What a cache holds: whole decoded videos, and the table of where each lies in its file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vatt.media.planes import Box, Planes, at_most_largest, frame_bytes
from vatt.media.video import EPSILON_S
from vatt.shards.read import ShardFolder


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """What shapes the cached bytes, besides the videos themselves.

    size: (H, W) of RGB frames; None keeps planes at the size of the video.
    """

    size: tuple[int, int] | None
    sample_rate_hz: int


class DecodedVideo(NamedTuple):
    """A whole video; views of the cache, not to be written to.

    frames: uint8 RGB [N, H, W, 3], or planes; starts_s: float64 [N], ascending, when each is first
    shown; end_s: when the last one leaves the screen; track: int16 [S_total] mono, None without
    sound.
    """

    frames: NDArray[np.uint8] | Planes
    starts_s: NDArray[np.float64]
    end_s: float
    track: NDArray[np.int16] | None

    def frames_at(
        self, times_s: NDArray[np.float64], cut: Callable[[int, int], Box]
    ) -> NDArray[np.uint8] | Planes | None:
        """What `MediaFile` gives for these times; None if one is past the end."""
        if times_s.max() + EPSILON_S >= self.end_s:
            return None
        shown = np.searchsorted(self.starts_s, times_s + EPSILON_S, side="right") - 1
        np.maximum(shown, 0, out=shown)
        if isinstance(self.frames, Planes):
            form = self.frames.form
            return self.frames.cut(cut(form.height, form.width), shown)
        if (np.diff(shown) == 1).all():
            return self.frames[shown[0] : shown[-1] + 1]  # a view: collating copies it once
        return self.frames[shown]

    def audio(self, first: int, count: int) -> NDArray[np.int16] | None:
        """Some samples; fewer where the track ends, None without sound."""
        return None if self.track is None else self.track[first : first + count]


@dataclass(frozen=True, slots=True)
class CacheTable:
    """Where each video lies in the file; one entry per video, `starts_s` one per frame.

    Its frames begin at byte `first_byte`, their times at `starts_s[first_frame]`; sample s is at
    `sound_offset` + 2 s. A video with no frames was left out; -1 samples: it has no sound.
    layout: int64 [n, 4], see contracts.Layout; not used for RGB.
    """

    rows: NDArray[np.int64]
    first_byte: NDArray[np.int64]
    first_frame: NDArray[np.int64]
    frames: NDArray[np.int64]
    layout: NDArray[np.int64]
    first_sample: NDArray[np.int64]
    samples: NDArray[np.int64]
    end_s: NDArray[np.float64]
    starts_s: NDArray[np.float64]
    sound_offset: NDArray[np.int64]  # one number

    @classmethod
    def planned(
        cls, data: ShardFolder, rows: NDArray[np.int64], settings: CacheSettings
    ) -> CacheTable:
        """Room for the frames and samples that the index promises, and a little more."""
        duration_s, fps = data.column("duration_s")[rows], data.column("fps")[rows]
        frames = np.ceil(duration_s * fps).astype(np.int64) + 2
        samples = np.ceil(duration_s * settings.sample_rate_hz).astype(np.int64) + 1
        sizes = zip(data.column("height")[rows], data.column("width")[rows], strict=True)
        each = [stored_bytes(settings, int(height), int(width)) for height, width in sizes]
        room = frames * np.array(each, np.int64)
        return cls(
            rows=rows,
            first_byte=np.cumsum(room) - room,
            first_frame=np.cumsum(frames) - frames,
            frames=frames,
            layout=np.zeros((len(rows), 4), np.int64),
            first_sample=np.cumsum(samples) - samples,
            samples=samples,
            end_s=np.zeros(len(rows)),
            starts_s=np.zeros(int(frames.sum())),
            sound_offset=-(-room.sum(keepdims=True) // 2) * 2,  # even: samples have two bytes
        )

    @property
    def num_samples(self) -> int:
        """Room for samples of all videos."""
        return int(self.first_sample[-1] + self.samples[-1])


def stored_bytes(settings: CacheSettings, height: int, width: int) -> int:
    """Bytes of one frame of a video of that size."""
    if settings.size is not None:
        return settings.size[0] * settings.size[1] * 3
    return frame_bytes(*at_most_largest(height, width))
