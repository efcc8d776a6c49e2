"""Makes the reduced recordings in tests/parity/data of the full ones.

    VATT_PARITY_DIR=… python -m tests.parity.reduce

At most 8 MB that still hold each kind of comparison: what one set shows, another need not repeat.
"""

import json
import shutil
from pathlib import Path

import numpy as np

from tests.parity.recordings import FULL, REDUCED

MOST_BYTES = 8_000_000
WHOLE_FOLDERS = ("misc", "schedules", "tx_fac_spectrogram", "finetune_audio_spectrogram")
FILES = {
    "tx_fac": ("forward_eval_ckpt0", "droptoken_train_ckpt0"),
    "ut_fac": ("forward_eval_ckpt0", "droptoken_train_ckpt0", "forward_train_ckpt0"),
    "finetune_audio": ("forward_eval_ckpt0", "forward_train_ckpt0"),
    "finetune_video_from_agnostic": ("forward_multiview_ckpt0",),
}
CHECKPOINT = ("ckpt-0.index", "ckpt-0.data-00000-of-00001", "config.json")
FIRST_STEP = ("tx_fac", "ut_fac", "finetune_audio")  # of the training: input of the other files
FULL_SIZES = "case04"  # of the losses: most of their bytes
NOT_READ = ("keras_names.json",)  # what else lies beside a checkpoint


def reduce(source: Path, target: Path) -> int:
    """Write the reduced recordings; returns their bytes."""
    shutil.rmtree(target, ignore_errors=True)
    for folder in WHOLE_FOLDERS:
        for path in sorted((source / folder).iterdir()):
            if path.name not in NOT_READ and not path.name.startswith("variables_"):
                copy(path, target / folder)
    for folder, names in FILES.items():
        for name in (*CHECKPOINT, *(f"{name}.npz" for name in names)):
            copy(source / folder / name, target / folder)
    for folder in FIRST_STEP:
        path = source / folder / "train_trajectory.npz"
        with np.load(path) as file:
            inputs = {key: file[key][:1] for key in file.files if key.startswith("in/")}
        save(target / folder / path.name, inputs)
    cases = json.loads((source / "losses" / "losses.json").read_text())
    del cases[FULL_SIZES]
    with np.load(source / "losses" / "losses.npz") as file:
        kept = {key: file[key] for key in file.files if not key.startswith(FULL_SIZES)}
    save(target / "losses" / "losses.npz", kept)
    (target / "losses" / "losses.json").write_text(json.dumps(cases, indent=1))
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())


def copy(path: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, folder / path.name)


def save(path: Path, values: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **values)


if __name__ == "__main__":
    total = reduce(FULL, REDUCED)
    assert total <= MOST_BYTES, f"{total} bytes, expected at most {MOST_BYTES}"
