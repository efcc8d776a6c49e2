"""The settings `--dataset NAME --dataset_dir DIR` of several commands, and the files chosen."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vatt.errors import ConfigError, DataError, MediaError
from vatt.ingest.manifest import ManifestEntry
from vatt.ingest.sources import DUPLICATE, Found, Item, Skipped
from vatt.media.media_file import open_media
from vatt.public_data.catalogue import DatasetFolder, dataset_named, read_folder
from vatt.public_data.listing import ListedFile, PublicDataset, leaks_of, numbers, roles
from vatt.public_data.media_search import Match
from vatt.shards.read import ShardFolder

OTHER_SPLIT = "other"
_LONGER_S = 2.0  # than its clip is a file that is the whole video


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetChoice:
    """A public data set in a folder."""

    dataset: str | None = None
    """A public data set by name (`vatt datasets list`): its lists give files, labels and splits."""
    dataset_dir: Path | None = None
    """Holds its official annotation files, and its media anywhere below."""
    dataset_split: int = 1
    """Of numbered splits (UCF101, HMDB51) the one, of folds (ESC-50) the one that is tested on."""
    allow_leak: bool = False
    """Go on where training and test share files; the numbers then say nothing of new files."""

    @property
    def public(self) -> PublicDataset | None:
        """The data set.

        Raises:
            ConfigError: there is none of this name, or its folder is not given.
        """
        if self.dataset is None:
            if self.dataset_dir is not None:
                raise ConfigError("dataset_dir: found without dataset; see `vatt datasets list`")
            return None
        if self.dataset_dir is None:
            raise ConfigError(f"dataset_dir: found none, expected the folder of {self.dataset}")
        return dataset_named(self.dataset)


NOT_CHOSEN = {"dataset": "none", "dataset_dir": "none", "dataset_split": 1, "allow_leak": False}
FREE_OF_CHOICE = ("dataset_dir", "allow_leak")  # where a continued run finds the same files


def chosen_folder(choice: DatasetChoice, *, every_number: bool = False) -> DatasetFolder:
    """The folder of the chosen data set, whose split, or every numbered one, can be trusted.

    Raises:
        ConfigError: it has no such number of a split.
        DataError: lists are missing or wrong; or training and test share files.
    """
    public = choice.public
    assert public is not None
    assert choice.dataset_dir is not None
    found = read_folder(public, choice.dataset_dir)
    known = numbers(found.listing.files)
    if known and choice.dataset_split not in known:
        raise ConfigError(
            f"dataset_split: found {choice.dataset_split}, expected one of those that the lists "
            f"have: {', '.join(map(str, known))}"
        )
    looked_at = known if every_number and known else [choice.dataset_split]
    leaks = [leak for number in looked_at for leak in leaks_of(found.listing, number)]
    if leaks and not choice.allow_leak:
        raise DataError(
            f"{choice.dataset_dir}: {'; '.join(leaks)}; a number on test would flatter: get the "
            "official lists, or --allow_leak"
        )
    return found


def found_files(found: DatasetFolder, number: int, *, known_only: bool = False) -> Found:
    """The files of a data set as `vatt prepare` takes them: with splits, labels and captions.

    Files that only other numbered splits use are in split "other", so that one prepared folder
    serves all of them.

    Args:
        found: the folder.
        number: of numbered splits, as `listing.role` takes it.
        known_only: leave out files without labels and captions, such as those of hidden tests.

    Raises:
        DataError: none of the listed files is there.
    """
    items, skipped = dict[str, Item](), list[Skipped]()
    for one, match in zip(found.listing.files, found.matches, strict=True):
        split = next(iter(roles(one, number)), OTHER_SPLIT if one.splits else None)
        if split is None or (known_only and not one.rows):
            continue
        if match is None:
            reason = f"{found.files.folder}: the lists of {found.dataset.name} name it; not there"
            skipped.append(Skipped(source=one.names[0], cause="not found", reason=reason))
            continue
        path = (found.files.folder / match.path).absolute()
        rows = [{**row, **_memberships(one)} for row in _on_clock(one, match, path)]
        before = items.get(match.path)  # another clip of a whole video
        if before is not None and before.split != split:
            reason = f"{path}: another clip of it is in {before.split}"
            skipped.append(Skipped(source=one.names[0], cause=DUPLICATE, reason=reason))
            continue
        if before is not None and before.entry is not None:
            rows = [*before.entry.labels, *rows]
        entry = ManifestEntry(split=split, labels=rows)
        items[match.path] = Item(path=path, name=match.path, split=split, entry=entry)
    if not items:
        raise DataError(
            f"{found.files.folder}: none of the {len(skipped)} files that the lists name is there; "
            f"see what is expected: vatt datasets check {found.dataset.name} {found.files.folder}"
        )
    ordered = sorted(items.values(), key=lambda item: os.fsencode(item.name))
    return Found(items=ordered, skipped=skipped)


def _memberships(one: ListedFile) -> dict[str, str]:
    """Columns that say in which numbered splits a file is: split1 = train …, fold = 3."""
    columns = dict[str, str]()
    for split in one.splits:
        name = split.rstrip("0123456789")
        if name == "fold":
            columns["fold"] = split.removeprefix(name)
        elif name != split:
            columns[f"split{split.removeprefix(name)}"] = name
    return columns


def _on_clock(one: ListedFile, match: Match, path: Path) -> Sequence[Mapping[str, Any]]:
    """The rows of a file; moved to where its clip lies, where the file is the whole video."""
    bare = min(one.names, key=len)  # its id
    if one.cut_from is None or one.names[match.by] not in (bare, f"Y{bare}"):
        return one.rows  # its times are in its name
    start_s, end_s = one.cut_from
    try:
        with open_media(path, damaged=True, sparsely=True) as media:
            duration_s = (media.container.duration or 0) / 1e6
    except MediaError:
        return one.rows  # preparing it will say what is wrong
    if duration_s <= end_s - start_s + _LONGER_S:
        return one.rows
    return [
        {**row, "start_s": start_s + row["start_s"], "end_s": min(end_s, start_s + row["end_s"])}
        for row in one.rows
    ]


def prepared_for(shards: Sequence[Path]) -> int:
    """The number of the split that shards were prepared for; 1 where there are none."""
    settings = (ShardFolder.load(one).info.get("made", {}).get("settings", {}) for one in shards)
    return next((int(one.get("dataset_split", 1)) for one in settings), 1)


def refuse_below(
    shards: ShardFolder, choice: DatasetChoice, *, fps: float, short_side: int
) -> None:
    """Stop where shards are of another data set, or hold less than a protocol needs.

    Args:
        shards: an opened folder.
        choice: what they should hold.
        fps: frames per second that are needed; shards of files with fewer are as good.
        short_side: of the frames, the same.

    Raises:
        DataError: says what was found.
    """
    made = shards.info.get("made", {}).get("settings", {})
    own = made.get("dataset"), made.get("dataset_split")
    if own != (choice.dataset, choice.dataset_split):
        raise DataError(
            f"{shards.folder}: found shards of {own[0] or 'no data set'}, split {own[1]}, expected "
            f"of {choice.dataset}, split {choice.dataset_split}; make them with vatt prepare "
            f"--dataset {choice.dataset} --dataset_split {choice.dataset_split}"
        )
    refuse_low(shards, fps=fps, short_side=short_side)


def refuse_low(shards: ShardFolder, *, fps: float, short_side: int) -> None:
    """Stop where shards hold less than a protocol needs.

    What `vatt prepare` made says what it was to hold: a file that had less is as good. Of shards by
    others that is not known, and each of their videos counts.

    Args:
        shards: an opened folder.
        fps: frames per second that are needed.
        short_side: of the frames.

    Raises:
        DataError: says what was found.
    """
    made = shards.info.get("made", {}).get("settings", {})
    stored, side = made.get("fps"), made.get("short_side")
    if "short_side" not in made and len(shards.column("fps")):
        stored = float(shards.column("fps").min())
        side = int(np.minimum(shards.column("width"), shards.column("height")).min())
    low = isinstance(stored, int | float) and stored < fps - 1e-6
    if low or (isinstance(side, int) and side < short_side):
        raise DataError(
            f"{shards.folder}: found {stored} fps and a short side of {side}, expected {fps:g} "
            f"fps and {short_side} or more; prepare them again with --fps {fps:g} --short_side "
            f"{short_side}"
        )
