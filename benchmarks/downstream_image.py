"""Which of 8 kinds of things does a drawing show? Fine-tuned, from scratch, and from raw pixels.

The drawings are Open Clip Art's (Debian package openclipart-png): 8 of its folders, each file once,
files of two classes left out; 15 % are for validation and 15 % for the test, by a hash of their
content. Seeds change fresh weights, order and augmentation, not the split. The recipe is the preset
finetune-small-image with a higher rate, wider crops, mirrored drawings, 64 x 64 pixels and more
steps, as validation chose; the test has three crops of each.
From scratch it takes as many steps as validation asks for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from trials import (
    SPLITS,
    LabelledFile,
    best_linear,
    best_validation,
    different_files,
    mean_and_spread,
    print_table,
    shortest_of_the_best,
    spread,
    trial,
    write_table,
)

from vatt.errors import DataError
from vatt.evaluation.examples import find_examples
from vatt.media.media_file import open_media
from vatt.shards.layout import FAILURES_FILE
from vatt.shards.read import ShardFolder

CLASSES = ("animals", "buildings", "food", "people", "plants", "recreation", "tools",
           "transportation")  # fmt: skip
SIDE, PIXELS = 64, 16  # of drawings for the model, and for the baseline
STEPS, SCRATCH = 2400, (1200, 2400)


def measure(
    *, run: Path, data: Path | None, out: Path, seeds: Sequence[int], quick: bool
) -> Mapping[str, float]:
    """Print the table; accuracies in [0, 1]."""
    files = drawings(data or Path())[:: 4 if quick else 1]
    table = write_table(out / "drawings.csv", files)
    usual, lengths = (40, (40,)) if quick else (STEPS, SCRATCH)
    first = out / f"finetuned-{usual}-seed-{seeds[0]}"  # it prepares the files for all

    def result(name: str, steps: int, seed: int) -> Mapping[str, Any]:
        folder = out / f"{name}-{steps}-seed-{seed}"
        changes = {
            "start_from": str(run),
            "scratch": name == "scratch",
            "clip": {"height": SIDE, "width": SIDE},
            "optim": {"learning_rate": 1e-3},
            "augment": {"flip": True, "crop_area": [0.5, 1.0]},
            "train": {"steps": steps},
            "eval_every": max(20, steps // 6),
            "seed": seed,
        }
        shards = {"shards": [str(first / "shards")]}
        source = {"src": [str(table)]} if folder == first else {"data": shards}
        return trial(folder, "finetune-small-image", {**changes, **source}, crops=3)

    tuned = [result("finetuned", usual, seed) for seed in seeds]
    for steps in lengths:
        result("scratch", steps, seeds[0])
    validated = [best_validation(out / f"scratch-{steps}-seed-{seeds[0]}") for steps in lengths]
    chosen = lengths[shortest_of_the_best(validated)]
    scratch = [result("scratch", chosen, seed) for seed in seeds]
    shards = ShardFolder.open(first / "shards")
    pixels = best_linear(*(raw_pixels(shards, split) for split in SPLITS))
    classes = Counter(one.label for one in files if one.split == "test")
    majority = max(classes.values()) / sum(classes.values())
    accuracies = {
        f"fine-tuned from the run, {usual} steps": [one["measures"]["top1"] for one in tuned],
        f"from scratch, {chosen} steps": [one["measures"]["top1"] for one in scratch],
        f"raw pixels ({PIXELS} x {PIXELS}), logistic regression": [pixels],
        "most frequent class": [majority],
    }
    print_table(
        (f"{len(CLASSES)} kinds of drawings", "accuracy"),
        [(name, mean_and_spread(values)) for name, values in accuracies.items()],
    )
    tried = ", ".join(f"{n} steps {one:.3f}" for n, one in zip(lengths, validated, strict=True))
    print(
        f"\n{len(files)} different drawings; test: {tuned[0]['n_evaluated']} of "
        f"{sum(classes.values())} evaluated; {tuned[0]['skipped_in_preparation']} of all could not "
        f"be prepared ({first / 'shards' / FAILURES_FILE}). From scratch, validation: {tried}\n"
    )
    finetuned, fresh, *_ = accuracies.values()
    return {
        "finetuned": mean(finetuned),
        "scratch": mean(fresh),
        "pixels": pixels,
        "majority": majority,
        "spread": spread(finetuned),
    }


def drawings(folder: Path) -> list[LabelledFile]:
    """The different drawings of the classes, each with its split."""
    folder = folder / "png" if (folder / "png").is_dir() else folder
    absent = [name for name in CLASSES if not (folder / name).is_dir()]
    if absent:
        raise DataError(
            f"{folder}: has no folder {absent[0]!r}; give the folder where Debian's package "
            f"openclipart-png is: --data /usr/share/openclipart (apt-get install openclipart-png)"
        )
    found = [(path, name) for name in CLASSES for path in sorted((folder / name).rglob("*.png"))]
    files = list[LabelledFile]()
    for digest, (path, label) in different_files(found).items():
        place = int(digest[:8], 16) / 16**8
        split = "test" if place < 0.15 else "val" if place < 0.3 else "train"
        files.append(LabelledFile(path, label, split))
    return files


def raw_pixels(shards: ShardFolder, split: str) -> tuple[NDArray[np.float32], list[str]]:
    """Pixels in [0, 1] and the class of each drawing."""
    rows, labels = list[NDArray[np.uint8]](), list[str]()
    for example in find_examples(shards, split, "label"):
        with open_media(shards.source(example.row)) as media:
            rows.append(media.frames(np.zeros(1), size=(PIXELS, PIXELS)).ravel())
        labels += example.labels
    return np.stack(rows).astype(np.float32) / 255, labels
