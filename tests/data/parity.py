"""Recorded outputs of the official code."""

from __future__ import annotations

import numpy as np

from tests.parity.recordings import FOLDER


def official(name: str) -> dict[str, np.ndarray]:
    """The arrays of a recorded file."""
    with np.load(FOLDER / name) as arrays:
        return dict(arrays)
