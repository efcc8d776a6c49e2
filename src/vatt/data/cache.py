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
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vatt.data.shards import Dataset
from vatt.errors import DataError, MediaError
from vatt.media.audio import decode_audio
from vatt.media.video import EPSILON_S, decode_all_frames

logger = logging.getLogger(__name__)

CACHE_VERSION = 1
BYTES_FILE, TABLE_FILE = "decoded.bin", "table.npz"
ROWS_PER_TASK = 4


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """What shapes the cached bytes, besides the videos themselves: (H, W) and the sample rate."""

    size: tuple[int, int]
    sample_rate_hz: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one RGB frame."""
        return self.size[0] * self.size[1] * 3


class DecodedVideo(NamedTuple):
    """A whole video; views of the cache, not to be written to.

    frames: uint8 [N, H, W, 3]; starts_s: float64 [N], ascending, when each is first shown;
    end_s: when the last one leaves the screen; track: int16 [S_total] mono, None without sound.
    """

    frames: NDArray[np.uint8]
    starts_s: NDArray[np.float64]
    end_s: float
    track: NDArray[np.int16] | None

    def frames_at(self, times_s: NDArray[np.float64]) -> NDArray[np.uint8] | None:
        """The frames that `decode_frames` gives for these times; None if one is past the end."""
        if times_s.max() + EPSILON_S >= self.end_s:
            return None
        shown = np.searchsorted(self.starts_s, times_s + EPSILON_S, side="right") - 1
        np.maximum(shown, 0, out=shown)
        if (np.diff(shown) == 1).all():
            return self.frames[shown[0] : shown[-1] + 1]  # a view: collating copies it once
        return self.frames[shown]


@dataclass(frozen=True, slots=True)
class _Table:
    """Where each video lies in the file; one entry per video, `starts_s` one per frame.

    Frame f is bytes [f, f + 1) × frame_bytes; sample s is at `sound_offset` + 2 s. A video with
    no frames was left out; -1 samples: it has no sound.
    """

    rows: NDArray[np.int64]
    first_frame: NDArray[np.int64]
    frames: NDArray[np.int64]
    first_sample: NDArray[np.int64]
    samples: NDArray[np.int64]
    end_s: NDArray[np.float64]
    starts_s: NDArray[np.float64]

    @classmethod
    def planned(cls, data: Dataset, rows: NDArray[np.int64], rate_hz: int) -> _Table:
        """Room for the frames and samples that the index promises, and a little more."""
        duration_s, fps = data.column("duration_s")[rows], data.column("fps")[rows]
        frames = np.ceil(duration_s * fps).astype(np.int64) + 2
        samples = np.ceil(duration_s * rate_hz).astype(np.int64) + 1
        return cls(
            rows=rows,
            first_frame=np.cumsum(frames) - frames,
            frames=frames,
            first_sample=np.cumsum(samples) - samples,
            samples=samples,
            end_s=np.zeros(len(rows)),
            starts_s=np.zeros(int(frames.sum())),
        )

    @property
    def num_samples(self) -> int:
        return int(self.first_sample[-1] + self.samples[-1])


class VideoCache:
    """The decoded videos of some rows of a dataset; can be sent to other processes."""

    def __init__(self, path: Path, settings: CacheSettings, table: _Table) -> None:
        """Read what `open_cache` made.

        Args:
            path: the flat file.
            settings: what it was made with.
            table: where each video lies in it.
        """
        self._path, self._settings, self._table = path, settings, table
        self._entry_of = {int(row): entry for entry, row in enumerate(table.rows)}
        self._mapped: tuple[NDArray[np.uint8], NDArray[np.int16]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": None}  # mapped anew where it arrives

    def get(self, row: int) -> DecodedVideo | None:
        """The video of a row; None when it could not be decoded whole."""
        entry, table = self._entry_of[row], self._table
        if not table.frames[entry]:
            return None
        self._mapped = self._mapped or self._map()
        all_frames, all_samples = self._mapped
        first, count = table.first_frame[entry], table.frames[entry]
        frames, starts_s = all_frames[first : first + count], table.starts_s[first : first + count]
        first, count = table.first_sample[entry], table.samples[entry]
        track = all_samples[first : first + count] if count >= 0 else None
        return DecodedVideo(frames, starts_s, float(table.end_s[entry]), track)

    def _map(self) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
        with self._path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        num_frames, frame_bytes = len(self._table.starts_s), self._settings.frame_bytes
        frames = np.frombuffer(content, np.uint8, count=num_frames * frame_bytes)
        offset = _sound_offset(num_frames, self._settings)
        return (
            frames.reshape(num_frames, *self._settings.size, 3),
            np.frombuffer(content, np.int16, offset=offset),
        )


def _sound_offset(num_frames: int, settings: CacheSettings) -> int:
    return -(-num_frames * settings.frame_bytes // 2) * 2  # even, as samples have two bytes


def open_cache(
    data: Dataset, rows: NDArray[np.int64], settings: CacheSettings, *, folder: Path | None
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
    plan = _Table.planned(data, rows, settings.sample_rate_hz)
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
            _fill_on_disk(home, data, settings, plan)
        except OSError as error:
            raise DataError(
                f"{folder}: cannot keep decoded videos: {error.strerror}; choose another "
                'data.cache_dir, or set data.cache = "memory"'
            ) from error
    with np.load(home / TABLE_FILE) as arrays:
        return VideoCache(home / BYTES_FILE, settings, _Table(**arrays))


def _fill_on_disk(home: Path, data: Dataset, settings: CacheSettings, plan: _Table) -> None:
    """Made aside, flushed and renamed, so that the folder is whole or absent."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".filling-", dir=home.parent) as aside:
        made = Path(aside) / "cache"
        made.mkdir()
        (made / BYTES_FILE).touch()
        table = _fill(made / BYTES_FILE, data, settings, plan)
        np.savez(made / TABLE_FILE, **asdict(table))
        for path in (made / BYTES_FILE, made / TABLE_FILE):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        _rename_unless_there(made, home)


def _identity(data: Dataset, rows: NDArray[np.int64], settings: CacheSettings) -> str:
    shaping = {
        "version": CACHE_VERSION,
        "settings": asdict(settings),
        "decoder": [av.__version__, av.library_versions],
        "videos": data.column("sha256")[rows].tolist(),
    }
    return hashlib.sha256(json.dumps(shaping).encode()).hexdigest()[:16]


def _rename_unless_there(made: Path, home: Path) -> None:
    try:
        made.rename(home)
    except OSError:  # another process was faster; its bytes are the same
        if not home.is_dir():
            raise


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
    memory = Path("/proc/meminfo")
    if path.is_relative_to("/proc") and memory.exists():
        numbers = dict(line.split(":") for line in memory.read_text().splitlines())
        available = int(numbers["MemAvailable"].split()[0]) * 1024
        where, instead = "memory", 'data.cache = "disk"'
    if needed > available:
        raise DataError(
            f"the cache of decoded videos needs {needed / 1e9:.1f} GB, but {where} has "
            f"{available / 1e9:.1f} GB free; lower data.decode_size, or set {instead}"
        )


def _fill(path: Path, data: Dataset, settings: CacheSettings, plan: _Table) -> _Table:
    """Decode all planned videos into the file; the table of what there is then."""
    offset = _sound_offset(len(plan.starts_s), settings)
    size = offset + 2 * plan.num_samples
    _check_room(path, size)
    os.truncate(path, size)
    jobs = [
        _Job(path, data.folder, settings, offset, _some(plan, slice(first, first + ROWS_PER_TASK)))
        for first in range(0, len(plan.rows), ROWS_PER_TASK)
    ]
    began_s = time.monotonic()
    frames, samples = np.zeros_like(plan.frames), np.full_like(plan.samples, -1)
    end_s, starts_s = plan.end_s.copy(), plan.starts_s.copy()
    entry_of = {int(row): entry for entry, row in enumerate(plan.rows)}
    for done in _run(jobs):
        for video in done:
            entry = entry_of[video.row]
            first = plan.first_frame[entry]
            frames[entry], samples[entry] = len(video.starts_s), video.samples
            end_s[entry] = video.end_s
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
    return replace(plan, frames=frames, samples=samples, end_s=end_s, starts_s=starts_s)


def _some(plan: _Table, part: slice) -> _Table:
    per_video = {name: values[part] for name, values in asdict(plan).items() if name != "starts_s"}
    return _Table(**per_video, starts_s=np.zeros(0))


class _Job(NamedTuple):
    """Some videos for one process: where they come from, where they go."""

    path: Path
    shards: Path
    settings: CacheSettings
    sound_offset: int
    plan: _Table


class _Filled(NamedTuple):
    """What was written of one video; no starts when it was left out, -1 samples without sound."""

    row: int
    starts_s: NDArray[np.float64]
    end_s: float
    samples: int


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
        cores = len(os.sched_getaffinity(0))
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


def _decode_one(job: _Job, data: Dataset, row: int, entry: int, file: BinaryIO) -> _Filled:
    source, settings, plan = data.read_video(row), job.settings, job.plan
    frames, starts_s, end_s = decode_all_frames(source, size=settings.size)
    track = decode_audio(source, sample_rate_hz=settings.sample_rate_hz)
    samples = -1 if track is None else len(track)
    if len(frames) > plan.frames[entry] or samples > plan.samples[entry]:
        raise DataError(f"{data.folder}: row {row}: longer than the index says")
    file.seek(int(plan.first_frame[entry]) * settings.frame_bytes)
    file.write(frames.data)
    if track is not None:
        file.seek(job.sound_offset + 2 * int(plan.first_sample[entry]))
        file.write(track.data)
    return _Filled(row, starts_s, end_s, samples)


@lru_cache(maxsize=1)
def _opened(folder: Path) -> Dataset:
    return Dataset.open(folder)
