"""Small data sets decoded once: frames and sound of whole videos, as bytes ready for batches.

A cache is one flat file, all frames and then all sound, and a table that says where each video lies
in it. On disk it is in a folder named after everything that shapes it; in memory it is a file that
no disk holds. Either way processes share one copy. A video that cannot be decoded whole is left
out: its clips are then decoded from the shard, as all clips are without a cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vatt.contracts import Layout
from vatt.data.cache_table import CacheSettings, CacheTable, DecodedVideo, stored_bytes
from vatt.devices import free_memory, num_cpus
from vatt.errors import DataError, MediaError
from vatt.media.media_file import open_media
from vatt.media.planes import Box, Planes, frame_bytes
from vatt.shards.read import ShardFolder
from vatt.storage import atomic_folder

logger = logging.getLogger(__name__)

CACHE_VERSION = 2
BYTES_FILE, TABLE_FILE = "decoded.bin", "table.npz"
ROWS_PER_TASK = 4


class VideoCache:
    """The decoded videos of some rows of a dataset; can be sent to other processes."""

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
        if not table.frames[entry]:
            return None
        if self._mapped is None:
            with self._path.open("rb") as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._mapped = np.frombuffer(content, np.uint8)
        first, count = table.first_frame[entry], table.frames[entry]
        starts_s = table.starts_s[first : first + count]
        frames = self._frames(self._mapped[table.first_byte[entry] :], entry)
        first, count = table.first_sample[entry], table.samples[entry]
        samples = self._mapped[int(table.sound_offset[0]) + 2 * first :]
        track = samples[: 2 * count].view(np.int16) if count >= 0 else None
        return DecodedVideo(frames, starts_s, float(table.end_s[entry]), track)

    def _frames(self, content: NDArray[np.uint8], entry: int) -> NDArray[np.uint8] | Planes:
        count, size = int(self._table.frames[entry]), self._settings.size
        if size is not None:
            return content[: count * size[0] * size[1] * 3].reshape(count, *size, 3)
        height, width, bt709, full_range = self._table.layout[entry].tolist()
        form = Layout(height, width, bool(bt709), bool(full_range))
        flat = content[: count * frame_bytes(height, width)]
        return Planes(form, Box(0, 0, height, width), flat, count)


def open_cache(
    data: ShardFolder, rows: NDArray[np.int64], settings: CacheSettings, *, folder: Path | None
) -> VideoCache:
    """The cache of these rows: the one on disk when it is there, else decoded now.

    Args:
        data: where the videos are.
        rows: which of them.
        settings: size of the frames, rate of the sound.
        folder: holds caches, each in a folder of its own; None keeps this one in memory for as
            long as it is used.

    Raises:
        DataError: disk or memory has no room for it.
    """
    plan = CacheTable.planned(data, rows, settings)
    if folder is None:
        with ExitStack() as on_error:
            path, close = _file_in_memory()
            on_error.callback(close)
            cache = VideoCache(path, settings, _fill(path, data, settings, plan))
            weakref.finalize(cache, on_error.pop_all().close)
            return cache
    home = folder / _identity(data, rows, settings)
    if not home.is_dir():
        try:
            with atomic_folder(home, first_wins=True) as made:
                (made / BYTES_FILE).touch()
                table = _fill(made / BYTES_FILE, data, settings, plan)
                np.savez(made / TABLE_FILE, **asdict(table))
        except OSError as error:
            raise DataError(
                f"{folder}: cannot keep decoded videos: {error.strerror}; choose another "
                'data.cache_dir, or set data.cache = "memory"'
            ) from error
    with np.load(home / TABLE_FILE) as arrays:
        return VideoCache(home / BYTES_FILE, settings, CacheTable(**arrays))


def _identity(data: ShardFolder, rows: NDArray[np.int64], settings: CacheSettings) -> str:
    shaping = {
        "version": CACHE_VERSION,
        "settings": asdict(settings),
        "decoder": [av.__version__, av.library_versions],
        "videos": data.column("sha256")[rows].tolist(),
    }
    return hashlib.sha256(json.dumps(shaping).encode()).hexdigest()[:16]


def _file_in_memory() -> tuple[Path, Callable[[], None]]:
    """A file that only memory holds, by a name that other processes can open; and its end."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("vatt-cache")
        return Path(f"/proc/{os.getpid()}/fd/{file}"), partial(os.close, file)
    temporary = tempfile.NamedTemporaryFile(prefix="vatt-cache-")  # noqa: SIM115 (kept open)
    return Path(temporary.name), temporary.close


def _check_room(path: Path, needed: int) -> None:
    """Better now than when the last free byte is gone."""
    available = shutil.disk_usage(path.parent).free
    where, instead = str(path.parent), 'data.cache = "none"'
    if path.is_relative_to("/proc") and (in_memory := free_memory()) is not None:
        available, where, instead = in_memory, "memory", 'data.cache = "disk"'
    if needed > available:
        raise DataError(
            f"the cache of decoded videos needs {needed / 1e9:.1f} GB, but {where} has "
            f"{available / 1e9:.1f} GB free; lower data.decode_size, or set {instead}"
        )


def _fill(path: Path, data: ShardFolder, settings: CacheSettings, plan: CacheTable) -> CacheTable:
    """Decode all planned videos into the file; the table of what there is then."""
    size = int(plan.sound_offset[0]) + 2 * plan.num_samples
    _check_room(path, size)
    os.truncate(path, size)
    jobs = [
        _Job(path, data.folder, settings, _some(plan, slice(first, first + ROWS_PER_TASK)))
        for first in range(0, len(plan.rows), ROWS_PER_TASK)
    ]
    began_s = time.monotonic()
    frames, samples = np.zeros_like(plan.frames), np.full_like(plan.samples, -1)
    end_s, starts_s, layout = plan.end_s.copy(), plan.starts_s.copy(), plan.layout.copy()
    entry_of = {int(row): entry for entry, row in enumerate(plan.rows)}
    for done in _run(jobs):
        for video in done:
            entry = entry_of[video.row]
            first = plan.first_frame[entry]
            frames[entry], samples[entry] = len(video.starts_s), video.samples
            end_s[entry], layout[entry] = video.end_s, video.layout
            starts_s[first : first + len(video.starts_s)] = video.starts_s
    logger.info(
        "decoded %d videos once: %.2f GB in %.0f s",
        len(frames),
        size / 1e9,
        time.monotonic() - began_s,
    )
    left_out = int((frames == 0).sum())
    if left_out:
        logger.warning(
            "%d of %d videos could not be decoded whole; not cached", left_out, len(frames)
        )
    return replace(
        plan, frames=frames, layout=layout, samples=samples, end_s=end_s, starts_s=starts_s
    )


def _some(plan: CacheTable, part: slice) -> CacheTable:
    whole = {"starts_s": np.zeros(0), "sound_offset": plan.sound_offset}
    return CacheTable(**{name: values[part] for name, values in asdict(plan).items()} | whole)


class _Job(NamedTuple):
    """Some videos for one process: where they come from, where they go."""

    path: Path
    shards: Path
    settings: CacheSettings
    plan: CacheTable


class _Filled(NamedTuple):
    """What was written of one video; no starts when it was left out, -1 samples without sound."""

    row: int
    starts_s: NDArray[np.float64]
    end_s: float
    samples: int
    layout: tuple[int, ...] = (0,) * 4


def _run(jobs: list[_Job]) -> Iterator[list[_Filled]]:
    """Run the jobs, over all cores this process may use, with a progress bar."""
    columns = [
        TextColumn("decoding once"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=sum(len(job.plan.rows) for job in jobs))
        if len(jobs) == 1:
            yield _decode(jobs[0])
            return
        cores = num_cpus()
        pool = ProcessPoolExecutor(min(cores, len(jobs)), get_context("spawn"))
        try:
            for future in as_completed([pool.submit(_decode, job) for job in jobs]):
                done = future.result()
                progress.advance(bar, len(done))
                yield done
        finally:
            pool.shutdown(cancel_futures=True)


def _decode(job: _Job) -> list[_Filled]:
    data = _opened(job.shards)
    with job.path.open("r+b") as file:
        done = []
        for entry, row in enumerate(job.plan.rows.tolist()):
            try:
                done.append(_decode_one(job, data, row, entry, file))
            except (MediaError, DataError):  # told, with its cause, when a clip of it is asked for
                done.append(_Filled(row, np.zeros(0), 0.0, -1))
    return done


def _decode_one(job: _Job, data: ShardFolder, row: int, entry: int, file: BinaryIO) -> _Filled:
    settings, plan = job.settings, job.plan
    rate = settings.sample_rate_hz
    with open_media(data.source(row), quickly=True) as media:
        frames: NDArray[np.uint8] | Planes
        if settings.size is None:
            frames, starts_s, end_s = media.all_planes()
        else:
            frames, starts_s, end_s = media.all_frames(settings.size)
        track: NDArray[np.int16] | None
        if media.has_audio_at(rate):
            track = media.audio_at(0, round(float(data.column("duration_s")[row]) * rate))
        else:
            track = media.audio(sample_rate_hz=rate)
    layout = frames.form if isinstance(frames, Planes) else (0,) * 4
    content = frames.flat if isinstance(frames, Planes) else frames
    samples = -1 if track is None else len(track)
    height, width = data.column("height")[row], data.column("width")[row]
    room = plan.frames[entry] * stored_bytes(settings, int(height), int(width))
    if content.size > room or len(starts_s) > plan.frames[entry] or samples > plan.samples[entry]:
        raise DataError(f"{data.folder}: row {row}: larger or longer than the index says")
    file.seek(int(plan.first_byte[entry]))
    file.write(content.data)
    if track is not None:
        file.seek(int(plan.sound_offset[0]) + 2 * int(plan.first_sample[entry]))
        file.write(track.data)
    return _Filled(row, starts_s, end_s, samples, layout)


@lru_cache(maxsize=1)
def _opened(folder: Path) -> ShardFolder:
    return ShardFolder.open(folder)
