"""Recorded outputs of the official code, where this machine has them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

BESIDE = Path(__file__).parents[2].parent / "shared" / "parity"
FOLDER = Path(os.environ.get("VATT_PARITY_DIR", BESIDE))


def official(name: str) -> dict[str, np.ndarray]:
    """The arrays of a recorded file; the test is skipped where the folder is absent."""
    if not FOLDER.is_dir():
        pytest.skip(f"no recordings of the official code in {FOLDER}; set VATT_PARITY_DIR")
    with np.load(FOLDER / name) as arrays:
        return dict(arrays)
