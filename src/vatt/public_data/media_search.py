"""Finding the media that lists name, anywhere below a folder, under the names that people use."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from unicodedata import normalize

from vatt.media.container import AUDIO_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES
from vatt.public_data.listing import Kind, ListedFile, OfficialListing, plain
from vatt.public_data.official_files import MEDIA_SUFFIXES

SUFFIXES: dict[Kind, frozenset[str]] = {
    "video": VIDEO_SUFFIXES,
    "audio": AUDIO_SUFFIXES | VIDEO_SUFFIXES,
    "image": IMAGE_SUFFIXES,
}


@dataclass(frozen=True, slots=True)
class Match:
    """Where a listed file was found: its path below the folder, by which of its names."""

    path: str
    by: int
    renamed: bool


def match_files(
    listing: OfficialListing, media: Sequence[str], kind: Kind
) -> tuple[list[Match | None], list[str]]:
    """Where each listed file is, and the media that no list names.

    A file may lie in any folder, but not in the folder of another class. Under its official name
    it is found; under another of its names, or with another suffix, it is found and renamed.

    Args:
        listing: what is looked for.
        media: paths below the folder.
        kind: of media; files of others are neither found nor left over.
    """
    search = _Search(listing, (one for one in media if _split(one)[2] in SUFFIXES[kind]))
    found = [search.find(one) for one in listing.files]
    if listing.loose:
        found = search.find_loosely(listing.files, found)
    return found, [one for one in search.media if one not in search.taken]


class _Search:
    def __init__(self, listing: OfficialListing, media: Iterable[str]) -> None:
        self.media = list(media)
        self.taken = set[str]()
        self._by_stem = defaultdict[str, list[str]](list)
        for path in self.media:
            self._by_stem[_split(path)[1]].append(path)
        above = {_split(n)[0] for one in listing.files for n in one.names if "/" in n}
        self._folders = {plain(folder) for folder in above if folder}

    def find(self, listed: ListedFile) -> Match | None:
        """The likeliest of the files with one of its names; all of these are taken."""
        for number, name in enumerate(listed.names):
            folder, stem, suffix = _split(name)
            here = [one for one in self._by_stem.get(stem, ()) if self._fits(one, folder)]
            if not here:
                continue
            self.taken.update(here)

            def order(path: str, folder: str = folder, suffix: str = suffix) -> tuple[object, ...]:
                return (
                    "replacement" not in path.casefold(),  # of corrupt files, by the publisher
                    plain(_split(path)[0]) != plain(folder),
                    bool(suffix) and _split(path)[2] != suffix,
                    path.count(os.sep),
                    path,
                )

            path = here[0] if len(here) == 1 else min(here, key=order)
            other_suffix = bool(suffix) and _split(path)[2] != suffix
            return Match(path, number, renamed=number > 0 or other_suffix)
        return None

    def find_loosely(
        self, files: Sequence[ListedFile], found: Sequence[Match | None]
    ) -> list[Match | None]:
        """By letters and digits alone, where that leaves one file for one name."""
        left, wanted = defaultdict[str, list[str]](list), defaultdict[str, list[ListedFile]](list)
        for path in self.media:
            if path not in self.taken:
                left[plain(_split(path)[1])].append(path)
        for one, match in zip(files, found, strict=True):
            if match is None:
                wanted[plain(_split(one.names[0])[1])].append(one)

        def matches() -> Iterator[Match | None]:
            for one, match in zip(files, found, strict=True):
                folder, stem, _ = _split(one.names[0])
                there = [path for path in left[plain(stem)] if self._fits(path, folder)]
                if match is None and len(there) == len(wanted[plain(stem)]) == 1:
                    self.taken.update(there)
                    yield Match(there[0], 0, renamed=True)
                else:
                    yield match

        return list(matches())

    def _fits(self, path: str, folder: str) -> bool:
        """Whether it lies in the folder that it should, or in one that means nothing."""
        if not folder:
            return True
        own = plain(_split(path)[0])
        return own == plain(folder) or own not in self._folders


def _split(name: str) -> tuple[str, str, str]:
    """The folder just above a file, its name without suffix, its suffix; of media alone."""
    above, _, base = (name if name.isascii() else normalize("NFC", name)).rpartition("/")
    stem, _, suffix = base.rpartition(".")
    suffix = f".{suffix.lower()}"
    if not stem or suffix not in MEDIA_SUFFIXES:
        stem, suffix = base, ""
    return above.rpartition("/")[2], stem, suffix
