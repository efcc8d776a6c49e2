"""`vatt datasets`: the public data sets known by name; how much of one is in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from vatt.errors import ConfigError
from vatt.public_data.catalogue import DATASETS, dataset_named, read_folder
from vatt.public_data.checking import DatasetCheck, SplitCount, check

_SHOWN = 12  # classes that the table names


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetsConfig:
    """List the public data sets, or check what is there of one; nothing is downloaded."""

    action: Positional[Literal["list", "check"]]
    """list: all names; check: compare a folder with the official lists in it."""
    name: Positional[str | None] = None
    """Of the data set to check."""
    folder: Positional[Path | None] = None
    """Holds its official annotation files, and its media anywhere below."""
    workers: int = 0
    """Processes that open files; 0 takes one per core."""

    def __post_init__(self) -> None:
        if self.action == "check" and (self.name is None or self.folder is None):
            raise ConfigError("check: expected the name of a data set and its folder")
        if self.action == "list" and self.name is not None:
            raise ConfigError(f"list: found {self.name!r}, expected nothing after it")
        if self.workers < 0:
            raise ConfigError(f"workers: found {self.workers}, expected 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetsList:
    """Every data set: what it is, and which annotation files are read."""

    datasets: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetsCheck:
    """What is there of a data set, in files of each split."""

    dataset: str
    classes: tuple[str, ...] | None
    splits: Mapping[str, SplitCount]
    extra: int
    problems: Sequence[str]

    @property
    def problem(self) -> str | None:
        """Why the exit code is 1."""
        lost = [
            f"{name}: {one.missing} missing, {one.unreadable} unreadable of {one.expected}"
            for name, one in self.splits.items()
            if one.missing or one.unreadable
        ]
        return f"{self.dataset}: not all of it is there: {'; '.join(lost)}" if lost else None

    def shown(self) -> dict[str, Any]:
        """For people: a row for each split, then what to do."""
        names = self.classes or ()
        more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
        return {
            "dataset": self.dataset,
            "classes": f"{len(names):,}: {', '.join(names[:_SHOWN])}{more}" if names else "none",
            "extra": self.extra,
            "splits": self.splits,
            "what_to_know": [{"": number, "problem": text}
                             for number, text in enumerate(self.problems, start=1)],
        }  # fmt: skip


def run(config: DatasetsConfig) -> DatasetsList | DatasetsCheck:
    """List the data sets, or count what is there of one.

    Raises:
        ConfigError: there is no data set of this name.
        DataError: its lists are missing, or wrong.
    """
    if config.action == "list":
        return DatasetsList(
            datasets={
                name: {"what": one.title, "kind": one.kind, "annotation_files": one.lists}
                for name, one in DATASETS.items()
            }
        )
    assert config.name is not None
    assert config.folder is not None
    dataset = dataset_named(config.name)
    found: DatasetCheck = check(read_folder(dataset, config.folder), workers=config.workers)
    return DatasetsCheck(
        dataset=dataset.name,
        classes=found.classes,
        splits=found.splits,
        extra=found.extra,
        problems=found.problems,
    )
