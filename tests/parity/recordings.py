"""Where the recorded outputs of the official code are: the full set, or the one in this folder."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

REDUCED = Path(__file__).parent / "data"
FULL = Path(os.environ.get("VATT_PARITY_DIR", Path(__file__).parents[3] / "shared" / "parity"))
FOLDER = FULL if FULL.is_dir() else REDUCED

needs_full_recordings = pytest.mark.skipif(
    not FULL.is_dir(),
    reason=f"not in the reduced recordings; the full ones are not at {FULL}: set VATT_PARITY_DIR",
)


def arrays(name: str) -> dict[str, torch.Tensor]:
    """All arrays of one .npz file."""
    with np.load(FOLDER / name) as file:
        return {key: torch.from_numpy(np.array(file[key])) for key in file.files}
