"""`vatt index export`: an index as Parquet files, for databases and notebooks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from vatt.library.index_copies import export


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexExportConfig:
    """Write files.parquet, windows.parquet and manifest.json."""

    index: Positional[str]
    """Folder or URL of an index."""
    out: Path
    """A new folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexExportResult:
    """Where the index is now, and how many megabytes it takes."""

    out: Path
    megabytes: float


def run(config: IndexExportConfig) -> IndexExportResult:
    """Export.

    Raises:
        ConfigError: `out` exists.
        DataError: the index cannot be read.
    """
    export(config.index, config.out)
    size = sum(one.stat().st_size for one in config.out.iterdir())
    return IndexExportResult(out=config.out, megabytes=size / 1e6)
