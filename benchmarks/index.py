"""Does a run over 100 million clips start at once, at any step, and do its workers stay small?

    python benchmarks/index.py [--videos 1000000]

An index of that many videos of 320 s is made, each with room for 100 clips; the shards are empty
files of the right size, because nothing is decoded. Prints a JSON line: seconds to open the index
and lay out the clips, seconds until the places of a batch of 2,048 clips in the middle of the run
are known, and megabytes that one worker process has for itself beyond those of an idle one, forked
and spawned. The limits are 2 s and 200 MB.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vatt.contracts import ClipSpec
from vatt.data.augment import AugmentConfig
from vatt.data.data_config import DataConfig
from vatt.data.datasets import ClipDataset
from vatt.shards.index import ALL_COLUMNS
from vatt.shards.layout import DATASET_FILE, FORMAT_VERSION, INDEX_FILE

DURATION_S, VIDEO_BYTES, VIDEOS_PER_SHARD, BATCH = 320.0, 20_000_000, 10_000, 2048


def write_folder(folder: Path, videos: int) -> None:
    """An index as `vatt prepare` writes it, and shards without content."""
    number = np.arange(videos)
    shard, place = number // VIDEOS_PER_SHARD, number % VIDEOS_PER_SHARD
    names = np.array([f"shard-{n:06d}.tar" for n in range(int(shard[-1]) + 1)])
    no_cuts = pa.array([[]], ALL_COLUMNS.field("cuts").type)
    known: dict[str, Any] = {
        "key": [f"video-{n:09d}" for n in range(videos)],
        "shard": names[shard],
        "video_offset": place * VIDEO_BYTES,
        "video_size": np.full(videos, VIDEO_BYTES - 4096),
        "json_offset": (place + 1) * VIDEO_BYTES - 4096,
        "json_size": np.full(videos, 4096),
        "duration_s": np.full(videos, DURATION_S),
        "fps": np.full(videos, 10.0),
        "width": np.full(videos, 456),
        "height": np.full(videos, 256),
        "has_audio": np.ones(videos, bool),
        "split": pa.repeat("train", videos),
        "cuts": no_cuts.take(pa.array(np.zeros(videos, int))),
    }
    columns = {
        field.name: as_column(known[field.name], field.type)
        if field.name in known
        else pa.nulls(videos, field.type)
        for field in ALL_COLUMNS
    }
    pq.write_table(pa.table(columns, schema=ALL_COLUMNS), folder / INDEX_FILE)
    for name in names:
        with (folder / name).open("wb") as file:
            file.truncate(VIDEOS_PER_SHARD * VIDEO_BYTES)
    info = {"format": "vatt-shards", "format_version": FORMAT_VERSION, "splits": {"train": {}}}
    (folder / DATASET_FILE).write_text(json.dumps(info))


def as_column(values: Any, kind: pa.DataType) -> pa.Array:
    """An arrow array of values that may be one already."""
    return values if isinstance(values, pa.Array) else pa.array(values, kind)


def own_megabytes() -> float:
    """Memory of this process that it shares with no other."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(kb) for kb in re.findall(r"Private_\w+: +(\d+) kB", text)) / 1024


def worker(dataset: ClipDataset | None, out: Any) -> None:
    """Ask for the places of some batches, as a loader's process does, and tell the memory."""
    if dataset is not None:
        for position in range(3 * BATCH):
            dataset.place(position)
    out.put(own_megabytes())


def megabytes_per_worker(dataset: ClipDataset, method: str) -> float:
    """Beyond an idle process that was started the same way."""
    context = multiprocessing.get_context(method)
    found = []
    for given in (None, dataset):
        out = context.Queue()
        process = context.Process(target=worker, args=(given, out))
        process.start()
        found.append(out.get())
        process.join()
    return round(found[1] - found[0], 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=1_000_000)
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        write_folder(Path(name), options.videos)
        started = time.perf_counter()
        data = DataConfig(shards=(Path(name),), batch_size=BATCH)
        dataset = ClipDataset(data, ClipSpec(), AugmentConfig(), None, seed=0)
        opened = time.perf_counter()
        middle = dataset.num_clips // 2
        places = {dataset.place(middle + slot)[1:] for slot in range(BATCH)}
        planned = time.perf_counter()
        assert len(places) == BATCH  # all different
        row = {
            "clips": dataset.num_clips,
            "open_s": round(opened - started, 2),
            "batch_places_s": round(planned - opened, 3),
            "forked_worker_mb": megabytes_per_worker(dataset, "fork"),
            "spawned_worker_mb": megabytes_per_worker(dataset, "spawn"),
        }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
