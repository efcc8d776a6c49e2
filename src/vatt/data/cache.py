"""Small data sets decoded once: frames and audio of whole videos, as bytes ready for batches.

A cache is one flat file, all frames and then all audio, and a table that says where each video lies
in it. On disk it is in a folder named after everything that shapes it; in memory it is a file that
no disk holds. Either way processes share one copy. A video that cannot be decoded whole is left
out: its clips are then decoded from the shard, as all clips are without a cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import mmap
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from vatt.contracts import PlaneLayout
from vatt.devices import free_memory
from vatt.errors import DataError, MediaError
from vatt.media.media_file import open_media
from vatt.media.planes import Box, Planes, at_most_largest, covering, frame_bytes
from vatt.media.video import EPSILON_S
from vatt.shards.read import ShardFolder
from vatt.storage import atomic_folder
from vatt.workers.pool import run_in_order
from vatt.workers.process import Limits, Lost, TimeLimit

logger = logging.getLogger(__name__)

CACHE_VERSION = 3
BYTES_FILE, TABLE_FILE = "decoded.bin", "table.npz"
_LIMITS = Limits(gigabytes=16.0)  # of one video; the cache as a whole is for small data sets


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """What shapes the cached bytes, besides the videos themselves.

    size: (H, W) that RGB frames cover, each video at its own aspect; None keeps planes at the size
        of the video.
    """

    size: tuple[int, int] | None
    sample_rate_hz: int


class DecodedVideo(NamedTuple):
    """A whole video; views of the cache, not to be written to.

    frames: uint8 RGB [N, H, W, 3], or planes; starts_s: float64 [N], ascending, when each is first
    shown; end_s: when the last one leaves the screen; track: int16 [S_total] mono, None without
    audio.
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


@dataclass(frozen=True, slots=True)
class CacheTable:
    """Where each video lies in the file; one entry per video, `starts_s` one per frame.

    Its frames begin at byte `first_byte`, their times at `starts_s[first_frame]`; sample s is at
    `sound_offset` + 2 s. A video with no frames was left out; -1 samples: it has no audio.
    layout: int64 [n, 4], see contracts.PlaneLayout; of RGB height and width alone.
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


class VideoCache:
    """The decoded videos of some rows of a shard folder; can be sent to other processes."""

    def __init__(self, path: Path, settings: CacheSettings, table: CacheTable) -> None:
        """Read what `open_cache` made.

        Args:
            path: the flat file.
            settings: what it was made with.
            table: where each video lies in it.
        """
        self._path, self._settings, self._table = path, settings, table
        self._entry_of = {int(row): entry for entry, row in enumerate(table.rows)}
        self._mapped: NDArray[np.uint8] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": None}  # mapped anew where it arrives

    def get(self, row: int) -> DecodedVideo | None:
        """The video of a row; None when it could not be decoded whole."""
        entry, table = self._entry_of[row], self._table
        first, count = int(table.first_frame[entry]), int(table.frames[entry])
        if not count:
            return None
        if self._mapped is None:
            with self._path.open("rb") as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._mapped = np.frombuffer(content, np.uint8)
        flat = self._mapped[table.first_byte[entry] :]
        frames: NDArray[np.uint8] | Planes
        height, width, bt709, full_range = table.layout[entry].tolist()
        if self._settings.size is not None:
            frames = flat[: count * height * width * 3].reshape(count, height, width, 3)
        else:
            form = PlaneLayout(height, width, bool(bt709), bool(full_range))
            flat = flat[: count * frame_bytes(height, width)]
            frames = Planes(form, Box(0, 0, height, width), flat, count)
        samples = table.samples[entry]
        audio = self._mapped[int(table.sound_offset[0]) + 2 * table.first_sample[entry] :]
        track = audio[: 2 * samples].view(np.int16) if samples >= 0 else None
        starts_s = table.starts_s[first : first + count]
        return DecodedVideo(frames, starts_s, float(table.end_s[entry]), track)


def open_cache(
    data: ShardFolder, rows: NDArray[np.int64], settings: CacheSettings, *, folder: Path | None
) -> VideoCache:
    """The cache of these rows: the one on disk when it is there, else decoded now.

    Args:
        data: where the videos are.
        rows: which of them.
        settings: size of the frames, rate of the audio.
        folder: holds caches, each in a folder of its own; None keeps this one in memory for as
            long as it is used.

    Raises:
        DataError: disk or memory has no room for it.
    """
    if folder is None:
        with ExitStack() as at_end:
            if hasattr(os, "memfd_create"):  # a file that only memory holds; others can open it
                handle = os.memfd_create("vatt-cache")
                at_end.callback(os.close, handle)
                path = Path(f"/proc/{os.getpid()}/fd/{handle}")
            else:
                file = at_end.enter_context(tempfile.NamedTemporaryFile(prefix="vatt-cache-"))
                path = Path(file.name)
            cache = VideoCache(path, settings, _fill(path, data, rows, settings))
            weakref.finalize(cache, at_end.pop_all().close)
            return cache
    shaping = {
        "version": CACHE_VERSION,
        "settings": asdict(settings),
        "decoder": [av.__version__, av.library_versions],
        "videos": data.column("sha256")[rows].tolist(),
    }
    home = folder / hashlib.sha256(json.dumps(shaping).encode()).hexdigest()[:16]
    if not home.is_dir():
        try:
            with atomic_folder(home, first_wins=True) as made:
                (made / BYTES_FILE).touch()
                table = _fill(made / BYTES_FILE, data, rows, settings)
                np.savez(made / TABLE_FILE, **asdict(table))
        except OSError as error:
            raise DataError(
                f"{folder}: cannot keep decoded videos: {error.strerror}; choose another "
                'data.cache_dir, or set data.cache = "memory"'
            ) from error
    with np.load(home / TABLE_FILE) as arrays:
        return VideoCache(home / BYTES_FILE, settings, CacheTable(**arrays))


class _Room(NamedTuple):
    """Where one video may be written in the file, and how much of it at most."""

    row: int
    first_byte: int
    bytes: int
    frames: int
    first_audio_byte: int
    samples: int


class _Written(NamedTuple):
    """What was written of one video; -1 samples: it has no audio."""

    starts_s: NDArray[np.float64]
    end_s: float
    samples: int
    layout: tuple[int, ...]


def _fill(
    path: Path, data: ShardFolder, rows: NDArray[np.int64], settings: CacheSettings
) -> CacheTable:
    """Decode the videos into the file, over all cores; the table of what is there then.

    Each has room for the frames and samples that the index promises, and a little more.
    """
    duration_s, fps = data.column("duration_s")[rows], data.column("fps")[rows]
    frames = np.ceil(duration_s * fps).astype(np.int64) + 2
    samples = np.ceil(duration_s * settings.sample_rate_hz).astype(np.int64) + 1
    sizes = zip(
        data.column("height")[rows].tolist(), data.column("width")[rows].tolist(), strict=True
    )
    if settings.size is not None:
        each = [3 * math.prod(covering(settings.size, *sides)) for sides in sizes]
    else:
        each = [frame_bytes(*at_most_largest(*sides)) for sides in sizes]
    room = frames * np.array(each, np.int64)
    audio_first = -(-int(room.sum()) // 2) * 2  # even: samples have two bytes
    table = CacheTable(
        rows=rows,
        first_byte=np.cumsum(room) - room,
        first_frame=np.cumsum(frames) - frames,
        frames=np.zeros_like(frames),
        layout=np.zeros((len(rows), 4), np.int64),
        first_sample=np.cumsum(samples) - samples,
        samples=np.full_like(samples, -1),
        end_s=np.zeros(len(rows)),
        starts_s=np.zeros(int(frames.sum())),
        sound_offset=np.array([audio_first]),
    )
    size = audio_first + 2 * int(samples.sum())

    available, where = shutil.disk_usage(path.parent).free, str(path.parent)
    in_memory = path.is_relative_to("/proc")
    if in_memory and (memory := free_memory()) is not None:
        available, where = memory, "memory"
    if size > available:  # better now than when the last free byte is gone
        raise DataError(
            f"the cache of decoded videos needs {size / 1e9:.1f} GB, but {where} has "
            f"{available / 1e9:.1f} GB free; lower data.decode_size, or set data.cache = "
            + ('"disk"' if in_memory else '"none"')
        )
    os.truncate(path, size)

    first_audio_byte = audio_first + 2 * table.first_sample
    columns = (rows, table.first_byte, room, frames, first_audio_byte, samples)
    rooms = [_Room(*numbers) for numbers in np.stack(columns, axis=1).tolist()]
    job = partial(_decode_into, path=path, folder=data.folder, settings=settings)
    began_s = time.monotonic()
    with closing(run_in_order(job, rooms, limits=_LIMITS, progress="decoding once")) as outcomes:
        for entry, (_, video) in enumerate(outcomes):
            if isinstance(video, Lost):
                continue
            first, count = table.first_frame[entry], len(video.starts_s)
            table.frames[entry], table.samples[entry] = count, video.samples
            table.end_s[entry], table.layout[entry] = video.end_s, video.layout
            table.starts_s[first : first + count] = video.starts_s
    seconds, left_out = time.monotonic() - began_s, int((table.frames == 0).sum())
    logger.info("decoded %d videos once: %.2f GB in %.0f s", len(rows), size / 1e9, seconds)
    if left_out:
        logger.warning(
            "%d of %d videos could not be decoded whole; not cached", left_out, len(rows)
        )
    return table


def _decode_into(
    room: _Room, time_limit: TimeLimit, *, path: Path, folder: Path, settings: CacheSettings
) -> _Written | Lost:
    """Write one video into its place; of one that cannot be read, its clips give the cause."""
    data, rate = _opened(folder), settings.sample_rate_hz
    duration_s = float(data.column("duration_s")[room.row])
    time_limit.allow(60.0 + 10.0 * duration_s)
    frames: NDArray[np.uint8] | Planes
    track: NDArray[np.int16] | None
    try:
        with open_media(data.source(room.row), quickly=True) as media:
            if settings.size is None:
                frames, starts_s, end_s = media.all_planes()
            else:
                sides = [int(data.column(name)[room.row]) for name in ("height", "width")]
                frames, starts_s, end_s = media.all_frames(covering(settings.size, *sides))
            if media.has_audio_at(rate):
                track = media.audio_at(0, round(duration_s * rate), sample_rate_hz=rate)
            else:
                track = media.audio(sample_rate_hz=rate)
    except (MediaError, DataError) as error:
        return Lost("unreadable", str(error))
    layout = frames.form if isinstance(frames, Planes) else (*frames.shape[1:3], 0, 0)
    content = frames.flat if isinstance(frames, Planes) else frames
    samples = -1 if track is None else len(track)
    if content.size > room.bytes or len(starts_s) > room.frames or samples > room.samples:
        return Lost("unreadable", "larger or longer than the index says")
    with path.open("r+b") as file:
        file.seek(room.first_byte)
        file.write(content.data)
        if track is not None:
            file.seek(room.first_audio_byte)
            file.write(track.data)
    return _Written(starts_s, end_s, samples, layout)


@lru_cache(maxsize=1)
def _opened(folder: Path) -> ShardFolder:
    return ShardFolder.open(folder)
