"""What the official lists of a public data set say: files, splits, labels, captions, classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vatt.errors import ConfigError
from vatt.public_data.official_files import OfficialFiles

FOREVER_S = 86_400.0  # a row without times holds in all of a file
LABEL, CAPTION = "label", "caption"  # columns of the rows
Kind = Literal["video", "audio", "image"]


@dataclass(slots=True)
class ListedFile:
    """A file of media that the official lists name.

    names: accepted names, the official one first: with its suffix if it has an official one, and
        with the folder before it where there is one ("class/file.mp4").
    splits: those that it is in; none: listed, but in no split.
    rows: start_s, end_s on the file's clock, and what is true from then to then.
    cut_from: start and end in the video that the official file was cut from, if it was.
    """

    names: tuple[str, ...]
    splits: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    cut_from: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficialListing:
    """What the lists say.

    classes: in the official order; None for captions.
    problems: what the user should know of the lists; leaks: why their splits must not be trusted.
    loose: names differ from those on the disk in punctuation: compared without it, if need be.
    """

    files: Sequence[ListedFile]
    classes: tuple[str, ...] | None = None
    problems: tuple[str, ...] = ()
    leaks: tuple[str, ...] = ()
    loose: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicDataset:
    """A data set, and how its official lists are read.

    lists: the annotation files that are looked for, for messages.
    published: split → how many files its published list names, of each version that we know.
    fps, short_side: what the paper's protocol asks of shards (§4.3).
    """

    name: str
    title: str
    kind: Kind
    lists: str
    read: Callable[[OfficialFiles], OfficialListing]
    classes: int | None = None
    published: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    fps: float = 25.0
    short_side: int = 320

    def refuse_kind(self, kind: str) -> None:
        """Stop where its media are not what a command classifies; a video has audio, too.

        Raises:
            ConfigError: they are not.
        """
        if kind != self.kind and (self.kind, kind) != ("video", "audio"):
            raise ConfigError(f"kind: found {kind}, expected {self.kind}, as {self.name} is")


class Lists:
    """Gathers what the lists say of each file, row by row."""

    def __init__(self) -> None:
        self._files: dict[Hashable, ListedFile] = {}

    def add(
        self,
        names: Iterable[str],
        split: str | None,
        row: Mapping[str, Any] | None = None,
        *,
        key: Hashable = None,
        cut_from: tuple[float, float] | None = None,
    ) -> None:
        """What one row says.

        Args:
            names: as in `ListedFile`.
            split: that the file is in; None: it is only known.
            row: a label or caption, without times if it holds in all of the file.
            key: what two rows of one file share; its official name if left out.
            cut_from: as in `ListedFile`.
        """
        names = tuple(names)
        one = self._files.setdefault(key or names[0], ListedFile(names, cut_from=cut_from))
        if split is not None and split not in one.splits:
            one.splits.append(split)
        if row is not None:
            whole = {"start_s": 0.0, "end_s": FOREVER_S, **row}
            if whole not in one.rows:
                one.rows.append(whole)

    def files(self) -> list[ListedFile]:
        """All files, in the order of the lists."""
        return list(self._files.values())


def plain(name: str) -> str:
    """Without case, blanks and punctuation: "adult+female+singing" is "Adult female singing"."""
    return re.sub(r"[\W_]+", "", name).casefold()


def role(split: str, number: int) -> str | None:
    """What the files of a split are for: train, val or test; None: nothing.

    Args:
        split: "test"; one of several numbered ones ("test2"); or a fold ("fold3").
        number: of the numbered splits that counts; of folds the one that is tested on.
    """
    name, digits = re.fullmatch(r"(.*?)(\d*)", split).groups()  # type: ignore[union-attr]
    if not digits:
        return split
    if name == "fold":
        return "test" if int(digits) == number else "train"
    return str(name) if int(digits) == number else None


def roles(file: ListedFile, number: int) -> list[str]:
    """What a file is for; it should be one thing at most."""
    found = (role(split, number) for split in file.splits)
    return [one for one in dict.fromkeys(found) if one is not None]


def numbers(files: Sequence[ListedFile]) -> list[int]:
    """The numbers of numbered splits or folds; none where splits have no number."""
    splits = {split for one in files for split in one.splits}
    return sorted({int(digits[0]) for one in splits if (digits := re.search(r"\d+$", one))})


def leaks_of(listing: OfficialListing, number: int) -> list[str]:
    """Why training and testing on these splits would share files, each a sentence; else none."""
    found = list(listing.leaks)
    shared = [(one, of) for one in listing.files if len(of := roles(one, number)) > 1]
    for splits, count in Counter(tuple(of) for _, of in shared).items():
        first = next(one.names[0] for one, of in shared if tuple(of) == splits)
        found.append(f"files in {' and in '.join(splits)}: {count} (first: {first})")
    return found


def split_counts(files: Sequence[ListedFile]) -> dict[str, int]:
    """Split → how many files it lists; train, val, test, and by number."""
    count = Counter(split for one in files for split in one.splits)
    rank = {"train": 0, "val": 1, "test": 2}

    def place(split: str) -> tuple[int, int, str]:
        name, digits = re.fullmatch(r"(.*?)(\d*)", split).groups()  # type: ignore[union-attr]
        return int(digits or 0), rank.get(name, 3), split

    return {split: count[split] for split in sorted(count, key=place)}
