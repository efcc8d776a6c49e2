"""Does the approximate index find what comparing all finds, how fast; how soon is the first hit?

    python benchmarks/search.py [--windows 1000000]
    python benchmarks/search.py --windows 0 --index library.index --words "opening fire"
    python benchmarks/search.py --windows 0 --index test.index --clips runs/demo/clips

Makes an index of so many windows of 256 numbers in a temporary folder: unit rows around cluster
centres whose sizes are uneven, each near the one before it, as windows of films are. Asks for the
ten nearest of 200 windows with noise, and compares them with an exact search; beside it, a bare
query of LanceDB that reads ids alone. With `--words` it also times `vatt search` in fresh processes
(median of 5), to the first line of its answer and to its end, beside what importing PyTorch alone
takes. With `--clips`, the folder that the demo recorded, whose test recordings are in the index, it
says how many of the first ten moments are right by the recorder's labels: for words, and for
windows like a window of another recording (400 of them). Prints a line of JSON. Limits: recall
0.98, p95 50 ms, first result 2 s. Some minutes and 3 GB of disk at a million.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from timing import processor

from vatt.library.index_check import check_column
from vatt.library.index_place import IndexPlace, Manifest
from vatt.library.index_writer import index_writer
from vatt.library.moments import find_moments
from vatt.library.search import CONSIDERED
from vatt.library.search import open_index as open_library
from vatt.library.vector_index import (
    PROBES,
    WINDOWS,
    FileEntry,
    Term,
    Window,
    open_index,
    vector_array,
    window_schema,
)

WIDTH, CLUSTERS, OF_FILE, AT_ONCE = 256, 2000, 500, 50_000
CLIP_S, EVERY_S = 3.2, 1.6
REPEATS = 5
WORDS = {
    "weapon": {
        "pistol": "the pistol",
        "chainsaw": "the chainsaw",
        "shotgun": "the shotgun",
        "super_shotgun": "the double shotgun",
        "chaingun": "the minigun",
        "rocket_launcher": "the rocket launcher",
        "plasma_rifle": "the plasma gun",
        "bfg": "the big green gun",
    },
    "action": {
        "attack": "shooting",
        "forward": "walking forward",
        "backward": "walking backward",
        "strafe_left": "sliding to the left",
        "strafe_right": "sidestepping to the right",
        "turn_left": "turning left",
        "turn_right": "turning right",
        "stand": "standing still",
    },
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=1_000_000)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--words")
    parser.add_argument("--clips", type=Path)
    options = parser.parse_args()
    row: dict[str, Any] = {"machine": processor(), "windows": options.windows, "width": WIDTH}
    if options.windows:
        row |= large_index(options.windows)
    if options.words is not None:
        search = ["-m", "vatt", "search", str(options.index), options.words]
        imports = ["-c", "import torch; print(torch, flush=True)"]
        row["first_result_s"], row["search_s"] = fresh_process_s(search)
        row["import_torch_s"], row["torch_process_s"] = fresh_process_s(imports)
    if options.clips is not None:
        row |= right_moments(options.index, options.clips)
    print(json.dumps(row))


def large_index(windows: int) -> dict[str, Any]:
    """Recall and latency of an index of synthetic windows."""
    with TemporaryDirectory() as name:
        manifest = Manifest(
            model="none", model_hash="none", clip_s=CLIP_S, every_s=EVERY_S, dims={"vt": WIDTH}
        )
        began = time.perf_counter()
        rng = np.random.default_rng(0)
        centres = unit(rng.normal(size=(CLUSTERS, WIDTH)))
        with index_writer(IndexPlace(name), manifest) as writer:
            for first in range(0, windows, AT_ONCE):
                count = min(AT_ONCE, windows - first)
                writer.add(*some_windows(rng, centres, first, count))
        made_s = time.perf_counter() - began
        index = open_index(name)
        found = check_column(index, "vt")
        table = IndexPlace(name).connect().open_table(WINDOWS)
        bare_ms, times_ms = [], []
        for _ in range(30):
            vector = unit(centres[rng.integers(CLUSTERS)] + rng.normal(size=WIDTH) * 0.03)
            began = time.perf_counter()
            query = table.search(vector.astype(np.float32)).distance_type("cosine").nprobes(PROBES)
            query.limit(10).select(["window_id", "_distance"]).to_arrow()
            bare_ms.append((time.perf_counter() - began) * 1000)
            began = time.perf_counter()
            scored = index.scores([Term(vector.astype(np.float32), "vt")], limit=CONSIDERED)
            find_moments(scored, every_s=EVERY_S, top=10)
            times_ms.append((time.perf_counter() - began) * 1000)
    return {
        "made_s": round(made_s, 1),
        "exact": found.exact,
        "recall_at_10": round(found.recall, 4),
        "find_themselves": round(found.find_themselves, 4),
        "p50_ms": round(found.p50_ms, 1),
        "p95_ms": round(found.p95_ms, 1),
        "bare_lancedb_p50_ms": round(statistics.median(bare_ms), 1),
        "ten_moments_p50_ms": round(statistics.median(times_ms), 1),
    }


def some_windows(
    rng: np.random.Generator, centres: np.ndarray, first: int, count: int
) -> tuple[pa.Table, list[FileEntry]]:
    """Windows `first` to `first + count`, and the files that they are of."""
    number = np.arange(first, first + count)
    file, place = number // OF_FILE, number % OF_FILE
    # A film stays in a cluster for a while; some clusters are met far more often than others.
    scene = rng.zipf(1.3, size=count // 20 + 1) % CLUSTERS
    around = centres[np.repeat(scene, 20)[:count]]
    vectors = unit(around + rng.normal(size=(count, WIDTH)) * (0.6 / np.sqrt(WIDTH)))
    files = [
        FileEntry(
            file_id=f"{one:064x}", path=f"/films/{one}.mp4", size=1, mtime_ns=1,
            duration_s=OF_FILE * EVERY_S + CLIP_S, width=640, height=360, has_audio=False,
            title=f"film {one}", n_windows=int((file == one).sum()),
        )
        for one in np.unique(file)
    ]  # fmt: skip
    names = [f"{one:064x}" for one in file]
    starts_s = place * EVERY_S
    columns = [
        pa.array([f"{name}:{round(at * 1000)}" for name, at in zip(names, starts_s, strict=True)]),
        pa.array(names),
        pa.array(starts_s),
        pa.array(starts_s + CLIP_S),
        pa.array(np.zeros(count, bool)),
        pa.array([""] * count),
        vector_array(vectors.astype(np.float32), np.ones(count, bool)),
    ]
    return pa.Table.from_arrays(columns, schema=window_schema({"vt": WIDTH})), files


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows, or one, of length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def right_moments(folder: Path, clips: Path) -> dict[str, Any]:
    """The share of the first ten that are right, beside what chance would give."""
    with (clips / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "label"]
    of_file: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        of_file.setdefault(Path(row["file"]).name, []).append(row)
    library = open_library(folder)
    names = {one.file_id: Path(one.path).name for one in library.files()}

    def label(window: Window, column: str) -> str:
        middle_s = (window.start_s + window.end_s) / 2
        found = (
            row[column]
            for row in of_file.get(names[window.file_id], [])
            if float(row["start_s"]) <= middle_s < float(row["end_s"])
        )
        return next(found, "") or "none"

    by_words: dict[str, Any] = {}
    for column, asked in WORDS.items():
        counts = Counter(label(one, column) for one in library.all_vectors("vt")[0])
        labelled = sum(counts.values()) - counts["none"]
        for name, words in asked.items():
            hits = library.search(words, top=10, group_by="clip").data
            right = [label(library.window(hit.window_id), column) == name for hit in hits]
            by_words[words] = {
                "right": round(float(np.mean(right)), 2),
                "chance": round(counts[name] / labelled, 2),
            }
    alike: dict[str, Any] = {}
    for column in ("action", "weapon", "sound_event"):
        alike[column] = {
            one: right_of_like(library.all_vectors(one), lambda w, c=column: label(w, c))
            for one in ("vt", "va", "audio_va")
        }
    return {"words": by_words, "like": alike}


def right_of_like(
    stored: tuple[list[Window], np.ndarray], label: Callable[[Window], str]
) -> dict[str, float]:
    """Of the ten windows of other files nearest to a window, the share with its label."""
    windows, vectors = stored
    labels = np.array([label(one) for one in windows])
    files = np.array([one.file_id for one in windows])
    known = np.flatnonzero(labels != "none")
    chosen = np.random.default_rng(0).permutation(known)[:400]
    shares = []
    for row in chosen:
        others = known[files[known] != files[row]]
        nearest = others[np.argsort(-(vectors[others] @ vectors[row]))[:10]]
        shares.append(np.mean(labels[nearest] == labels[row]))
    counts = np.array(list(Counter(labels[known].tolist()).values()))
    chance = float(((counts / counts.sum()) ** 2).sum())
    return {"right": round(float(np.mean(shares)), 2), "chance": round(chance, 2)}


def fresh_process_s(arguments: list[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of Python with these arguments to the first line of its answer, and to its end.

    Once to compile what is imported, then five times.
    """
    times = []
    with TemporaryDirectory() as compiled:  # as an installed package has it
        own = {name: one for name, one in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        own["PYTHONPYCACHEPREFIX"] = compiled
        for _ in range(REPEATS + 1):
            began = time.perf_counter()
            with subprocess.Popen(
                [sys.executable, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=own,
            ) as process:
                assert process.stdout is not None
                if not process.stdout.readline():
                    raise SystemExit(f"{' '.join(arguments)}: gave no answer")
                first = time.perf_counter() - began
                process.stdout.read()
            times.append((first, time.perf_counter() - began))
    first_line, whole = zip(*times[1:], strict=True)
    return spread_of(first_line), spread_of(whole)


def spread_of(times: Sequence[float]) -> dict[str, float]:
    """Least, median and most."""
    named = {"min": min(times), "median": statistics.median(times), "max": max(times)}
    return {name: round(value, 2) for name, value in named.items()}


if __name__ == "__main__":
    main()
