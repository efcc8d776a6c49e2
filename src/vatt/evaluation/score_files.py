"""Files of scores: ids, labels and scores of examples; every measure can be taken of them again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vatt.errors import DataError
from vatt.storage import atomic_file, refuse_newer

FORMAT_VERSION = "1.0"


@dataclass(frozen=True, slots=True)
class ScoreFile:
    """ids: [N]; names: of the classes; scores: float32 [N, classes]; true: bool [N, classes].

    about: what else stands in a result file; JSON.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    scores: NDArray[np.float32]
    true: NDArray[np.bool_]
    about: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Write an .npz file, atomically."""
        with atomic_file(path) as aside, aside.open("wb") as file:
            np.savez_compressed(
                file,
                ids=np.array(self.ids, dtype=np.str_),
                names=np.array(self.names, dtype=np.str_),
                scores=self.scores,
                true=self.true,
                about=np.array(json.dumps({"format_version": FORMAT_VERSION, **self.about})),
            )

    @classmethod
    def load(cls, path: Path) -> ScoreFile:
        """Read what `save` wrote.

        Raises:
            DataError: it is not such a file, or of a newer format.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                refuse_newer(path, about.pop("format_version"), FORMAT_VERSION, DataError)
                ids, names = (tuple(map(str, file[name])) for name in ("ids", "names"))
                return cls(ids, names, file["scores"], file["true"], about)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path}: not a file of scores ({error})") from error
