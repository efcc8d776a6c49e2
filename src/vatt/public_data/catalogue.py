"""The public data sets that are known by name, and reading what a folder holds of one."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vatt.errors import ConfigError, DataError
from vatt.public_data.adapters.audio_captions import AUDIOCAPS, CLOTHO
from vatt.public_data.adapters.audioset import AUDIOSET
from vatt.public_data.adapters.charades import CHARADES
from vatt.public_data.adapters.didemo import DIDEMO
from vatt.public_data.adapters.esc50 import ESC50
from vatt.public_data.adapters.hmdb51 import HMDB51
from vatt.public_data.adapters.imagenet import IMAGENET
from vatt.public_data.adapters.kinetics import KINETICS400, KINETICS600, KINETICS700
from vatt.public_data.adapters.moments_in_time import MOMENTS_IN_TIME
from vatt.public_data.adapters.msrvtt import MSRVTT
from vatt.public_data.adapters.ucf101 import UCF101
from vatt.public_data.adapters.vatex import VATEX
from vatt.public_data.adapters.youcook2 import YOUCOOK2
from vatt.public_data.listing import OfficialListing, PublicDataset, split_counts
from vatt.public_data.media_search import Match, match_files
from vatt.public_data.official_files import OfficialFiles

DATASETS = {
    one.name: one
    for one in (
        KINETICS400, KINETICS600, KINETICS700, MOMENTS_IN_TIME, UCF101, HMDB51, ESC50, AUDIOSET,
        IMAGENET, YOUCOOK2, MSRVTT, AUDIOCAPS, CLOTHO, VATEX, DIDEMO, CHARADES,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class DatasetFolder:
    """What a folder holds of a data set.

    matches: where each file of the listing is, in their order; extra: media that no list names.
    """

    dataset: PublicDataset
    files: OfficialFiles
    listing: OfficialListing
    matches: list[Match | None]
    extra: list[str]


def dataset_named(name: str) -> PublicDataset:
    """The data set of a name.

    Raises:
        ConfigError: there is none; says which is near.
    """
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"; perhaps you meant {near[0]}" if near else ""
        raise ConfigError(f"dataset: found {name!r}, expected one of {' '.join(DATASETS)}{hint}")
    return DATASETS[name]


def read_folder(dataset: PublicDataset, folder: Path) -> DatasetFolder:
    """Read the official lists, and find the media that they name.

    Raises:
        DataError: lists are missing, or wrong.
    """
    files = OfficialFiles(folder)
    listing = dataset.read(files)
    if not listing.files:
        raise DataError(
            f"{folder}: the lists of {dataset.name} name no file; get the official ones"
        )
    matches, extra = match_files(listing, files.media, dataset.kind)
    return DatasetFolder(dataset, files, listing, matches, extra)


def official_classes(found: DatasetFolder, labels: Sequence[str]) -> tuple[str, ...]:
    """The classes in their official order, also those that no label names.

    Args:
        found: the folder.
        labels: what the shards are labelled with.

    Raises:
        ConfigError: the data set has captions and no classes.
        DataError: there are labels of something else.
    """
    classes = found.listing.classes
    if classes is None:
        raise ConfigError(f"dataset: {found.dataset.name} has captions, expected one with classes")
    if unknown := sorted(set(labels) - set(classes)):
        raise DataError(
            f"{found.files.folder}: the shards are labelled with {unknown[0]!r}, which is no class "
            f"of {found.dataset.name}; prepare them from this data set"
        )
    return classes


def problems_of_lists(found: DatasetFolder) -> list[str]:
    """What the lists themselves leave to be said, each a sentence."""
    dataset, listing = found.dataset, found.listing
    problems = [*listing.problems, *listing.leaks]
    if dataset.classes is not None and len(listing.classes or ()) != dataset.classes:
        problems.append(
            f"classes in the lists here {len(listing.classes or ()):,}, in the published ones "
            f"{dataset.classes:,}; a class does not have its official number"
        )
    other = defaultdict[tuple[int, tuple[int, ...]], list[str]](list)
    for split, count in split_counts(listing.files).items():
        if (known := dataset.published.get(split)) and count not in known:
            other[count, known].append(split)
    for (count, known), splits in other.items():
        problems.append(
            f"{', '.join(splits)}: files in the lists here {count:,}, in the published ones "
            f"{' or '.join(f'{one:,}' for one in known)}; it is a part, or another version"
        )
    return problems
