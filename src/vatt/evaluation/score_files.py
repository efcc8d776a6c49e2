"""Files of scores and of features of examples: measures and figures need no model again."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from vatt.errors import DataError
from vatt.storage import atomic_file, refuse_newer

logger = logging.getLogger(__name__)

FORMAT_VERSION = "1.0"
FEATURES_FILE = Path("results") / "evaluate-features.npz"  # of a run folder
MOST_FEATURES = 500  # examples of which features are kept


@dataclass(frozen=True, slots=True)
class FeatureSample:
    """Features of examples of one class each, of some of all that were evaluated.

    ids: [n]; names: of the classes; classes: int [n], numbers among them; features: float32 [n, D],
    what the linear layer is given. about: JSON; "of" says how many examples there are.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    classes: NDArray[np.int64]
    features: NDArray[np.float32]
    about: Mapping[str, Any]

    @classmethod
    def drawn(
        cls, scores: ScoreFile, features: NDArray[np.float32], *, seed: int = 0
    ) -> FeatureSample:
        """At most `MOST_FEATURES` examples; which is a function of their number and the seed."""
        rows = np.flatnonzero(scores.true.sum(1) == 1)
        number = min(len(rows), MOST_FEATURES)
        drawn = np.sort(np.random.default_rng(seed).choice(rows, number, replace=False))
        return cls(
            tuple(scores.ids[row] for row in drawn.tolist()),
            scores.names,
            scores.true[drawn].argmax(1),
            features[drawn],
            {"of": len(rows), **{name: scores.about[name] for name in ("split", "model_hash")}},
        )

    def save(self, run: Path) -> None:
        """Write `FEATURES_FILE` of a run, atomically."""
        _save(
            run / FEATURES_FILE, self.ids, self.names, self.about,
            classes=self.classes, features=self.features,
        )  # fmt: skip

    @classmethod
    def load(cls, run: Path) -> FeatureSample | None:
        """Read what `save` wrote; None where it was not.

        Raises:
            DataError: it is something else, or of a newer format.
        """
        path = run / FEATURES_FILE
        return cls(*_load(path, "classes", "features")) if path.is_file() else None


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
        _save(path, self.ids, self.names, self.about, scores=self.scores, true=self.true)

    @classmethod
    def load(cls, path: Path) -> ScoreFile:
        """Read what `save` wrote.

        Raises:
            DataError: it is not such a file, or of a newer format.
        """
        return cls(*_load(path, "scores", "true"))


class FeatureParts:
    """Features of many clips on their way into one file.

    What is done lies beside it, in a folder of parts, until all is; a killed process goes on there.

    path: of the file.
    end: position of the first clip that no part holds.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._folder = path, path.with_suffix(".parts")
        self.end, self._parts = 0, list[dict[str, NDArray[Any]]]()
        for file in sorted(self._folder.glob("*.safetensors")):
            first, _, end = file.stem.partition("-")
            part = _arrays(file) if int(first) == self.end else None
            if part is None:
                break
            self._parts.append(part)
            self.end = int(end)

    def whole(self) -> dict[str, NDArray[Any]] | None:
        """What is in the file; None where it is not there, or damaged."""
        return _arrays(self.path) if self.path.is_file() else None

    def add(self, part: Mapping[str, NDArray[Any]], end: int) -> None:
        """Write the rows of the clips up to, not including, this position."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(self._folder / f"{self.end:09d}-{end:09d}.safetensors") as aside:
            save_file(dict(part), aside)
        self._parts.append(dict(part))
        self.end = end

    def joined(self, last: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
        """The rows of all parts, and of the last ones, which are not written."""
        every = [*self._parts, *last]
        names = dict.fromkeys(name for part in every for name in part)
        return {
            name: np.concatenate([part[name] for part in every if name in part]) for name in names
        }

    def finish(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write the file, and remove the parts."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.path) as aside:
            save_file(dict(arrays), aside)
        self.forget()

    def forget(self) -> None:
        """Remove the parts."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _arrays(path: Path) -> dict[str, NDArray[Any]] | None:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        logger.warning("%s: damaged (%s); extracting the features again", path, error)
        return None


def _save(
    path: Path,
    ids: Sequence[str],
    names: Sequence[str],
    about: Mapping[str, Any],
    **arrays: Any,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as aside, aside.open("wb") as file:
        np.savez_compressed(
            file,
            ids=np.array(ids, dtype=np.str_),
            names=np.array(names, dtype=np.str_),
            about=np.array(json.dumps({"format_version": FORMAT_VERSION, **about})),
            **arrays,
        )


def _load(path: Path, *arrays: str) -> tuple[Any, ...]:
    """Ids, names, the arrays, and what is said about them."""
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            refuse_newer(path, about.pop("format_version"), FORMAT_VERSION, DataError)
            ids, names = (tuple(map(str, file[name])) for name in ("ids", "names"))
            return ids, names, *(file[name] for name in arrays), about
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise DataError(f"{path}: not a file of scores ({error})") from error
