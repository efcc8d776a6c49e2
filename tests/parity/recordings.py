"""Where the recorded outputs of the official code are: the full set, or the one in this folder."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.testing import assert_close

REDUCED = Path(__file__).parent / "data"
FULL = Path(os.environ.get("VATT_PARITY_DIR", Path(__file__).parents[3] / "shared" / "parity"))
FOLDER = FULL if FULL.is_dir() else REDUCED


class Recording(dict[str, torch.Tensor]):
    """The arrays of one file; notes which were looked at (`read`), for the test of coverage."""

    def __init__(self, name: str) -> None:
        with np.load(FOLDER / name) as file:
            values = {key: np.array(file[key]) for key in file.files}
        self._texts = {key: list(map(str, v)) for key, v in values.items() if v.dtype.kind == "U"}
        numbers = values.keys() - self._texts.keys()
        super().__init__({key: torch.from_numpy(values[key]) for key in values if key in numbers})
        self.read = READ.setdefault(name, set())

    def texts(self, key: str) -> list[str]:
        """An array of strings; those are not among the others."""
        self.read.add(key)
        return self._texts[key]

    def __getitem__(self, key: str) -> torch.Tensor:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401 (get itself)


READ: dict[str, set[str]] = {}  # file → its arrays that some test looked at, in this process


@cache
def arrays(name: str) -> Recording:
    """All arrays of one .npz file."""
    return Recording(name)


def assert_near(
    found: torch.Tensor, recorded: torch.Tensor, what: str, *, atol: float, rtol: float
) -> None:
    """Equal within the tolerance; the failure names the array and says by how much they differ."""
    assert_close(found, recorded, atol=atol, rtol=rtol, msg=lambda text: f"{what}: {text}")
