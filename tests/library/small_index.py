"""A small index of synthetic windows: clustered unit rows, some without audio, video or caption."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from vatt.library.index_place import IndexPlace, Manifest
from vatt.library.index_writer import index_writer
from vatt.library.vector_index import (
    FileEntry,
    Index,
    open_index,
    vector_array,
    window_schema,
)

WIDTH, CLIP_S, EVERY_S = 16, 2.0, 1.0


def unit_rows(rng: np.random.Generator, rows: int, width: int = WIDTH) -> np.ndarray:
    """Random unit rows, each near the one before it, as the windows of a film are."""
    steps = rng.normal(size=(rows, width))
    values = np.cumsum(steps, axis=0)
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def manifest(width: int = WIDTH, model_hash: str = "0" * 64) -> Manifest:
    return Manifest(
        model="model",
        model_hash=model_hash,
        clip_s=CLIP_S,
        every_s=EVERY_S,
        dims={"vt": width, "va": width, "audio_va": width},
    )


def entry(path: str, windows: int = 10, *, audio: bool = True, **other: object) -> FileEntry:
    values: dict = {
        "file_id": hashlib.sha256(path.encode()).hexdigest(),
        "path": path,
        "size": 1000,
        "mtime_ns": 1,
        "duration_s": windows * EVERY_S + CLIP_S - EVERY_S,
        "width": 64,
        "height": 36,
        "has_audio": audio,
        "title": Path(path).stem,
        "n_windows": windows,
    }
    return FileEntry(**values | other)


def windows_of(
    file: FileEntry, seed: int = 0, width: int = WIDTH, *, video: bool = True
) -> pa.Table:
    """Windows of one file; every third has a caption."""
    rng = np.random.default_rng([seed, int(file.file_id[:8], 16)])
    rows = file.n_windows
    starts = np.arange(rows) * EVERY_S
    ids = [f"{file.file_id}:{round(1000 * start)}" for start in starts]
    captions = [f"{file.title} says {row}" if row % 3 == 0 else "" for row in range(rows)]
    has_video, has_audio = np.full(rows, video), np.full(rows, file.has_audio)
    vectors = [
        vector_array(unit_rows(rng, rows, width), present)
        for present in (has_video, has_video, has_audio)
    ]
    columns = [ids, [file.file_id] * rows, starts, starts + CLIP_S, has_audio, captions, *vectors]
    schema = window_schema(manifest(width).dims)
    return pa.table([pa.array(one) if not isinstance(one, pa.Array) else one for one in columns],
                    schema=schema)  # fmt: skip


def write_small_index(folder: Path, files: int = 3, windows: int = 10) -> Index:
    """An index of a few files; the second has no audio, the third no video."""
    with index_writer(IndexPlace(folder), manifest()) as writer:
        for number in range(files):
            file = entry(f"/films/film-{number}.mp4", windows, audio=number != 1)
            writer.add(windows_of(file, video=number != 2), [file])
    return open_index(folder)
