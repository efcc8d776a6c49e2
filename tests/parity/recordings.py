"""Where the recorded outputs of the official code are, if they are here at all."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(os.environ.get("VATT_PARITY_DIR", Path(__file__).parents[3] / "shared" / "parity"))

needs_recordings = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"no recordings of the official code at {FOLDER}"
)


def arrays(name: str) -> dict[str, torch.Tensor]:
    """All arrays of one .npz file; none where there are no recordings."""
    path = FOLDER / name
    if not path.is_file():
        return {}
    with np.load(path) as file:
        return {key: torch.from_numpy(np.array(file[key])) for key in file.files}
