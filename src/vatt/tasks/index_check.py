"""`vatt index check`: whether an index finds what is in it, and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tyro.conf import Positional

from vatt.errors import ConfigError
from vatt.library.index_check import ColumnCheck, check_index
from vatt.library.vector_index import open_index


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexCheckConfig:
    """Compare what an index finds with all that is in it."""

    index: Positional[str]
    """Folder or URL of an index."""
    queries: int = 200
    """Vectors that are drawn and looked for."""
    min_recall: float = 0.98
    """With less of the ten nearest windows found, the exit code is 1."""

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise ConfigError(f"queries: found {self.queries}, expected >= 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexCheckResult:
    """What was found, by column of vectors; see `ColumnCheck`."""

    index: str
    model: str
    files: int
    windows: int
    columns: Mapping[str, ColumnCheck]
    problem: str | None = None

    def shown(self) -> dict[str, Any]:
        """For people."""
        rows = {f"{name} {key}": value for name, one in self.columns.items()
                for key, value in asdict(one).items()}  # fmt: skip
        head = {"index": self.index, "model": self.model, "files": self.files}
        return head | {"windows": self.windows} | rows


def run(config: IndexCheckConfig) -> IndexCheckResult:
    """Check every column of vectors.

    Raises:
        DataError: there is no index, or it cannot be read.
    """
    index = open_index(config.index)
    columns = check_index(index, config.queries)
    problems = []
    for name, one in columns.items():
        if one.vectors and one.recall < config.min_recall:
            problems.append(f"{name}: recall@10 {one.recall:.3f}, expected {config.min_recall}")
        if one.vectors and one.find_themselves < 1:
            problems.append(f"{name}: only {one.find_themselves:.1%} of vectors find themselves")
        if not one.unit_rows:
            problems.append(f"{name}: rows of another length than 1")
    return IndexCheckResult(
        index=config.index,
        model=index.manifest.model,
        files=len(index.files()),
        windows=index.num_windows,
        columns=columns,
        problem=f"{config.index}: {'; '.join(problems)}" if problems else None,
    )
