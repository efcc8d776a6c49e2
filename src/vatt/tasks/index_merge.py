"""`vatt index merge`: several indexes of one model become one."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from vatt.errors import ConfigError
from vatt.library.index_copies import merge


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexMergeConfig:
    """Join indexes of one model; a file that several hold is taken once."""

    indexes: Positional[tuple[str, ...]]
    """Folders or URLs of indexes."""
    out: str
    """Folder or URL of the new one, or of one to which the others are added."""

    def __post_init__(self) -> None:
        if not self.indexes:
            raise ConfigError("indexes: found nothing, expected one or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexMergeResult:
    """What the new index holds."""

    out: str
    files: int
    windows: int
    hours: float


def run(config: IndexMergeConfig) -> IndexMergeResult:
    """Merge.

    Raises:
        ConfigError: the indexes are of several models, or have other windows.
        DataError: one of them cannot be read.
    """
    found = merge(list(config.indexes), config.out)
    return IndexMergeResult(
        out=config.out, files=found.files, windows=found.windows, hours=found.hours
    )
