"""ImageNet (ILSVRC 2012): 1,000 classes, a folder for each, named by its WordNet id.

Classes are in the order of these ids (rwightman/pytorch-image-models#107), not in that of the
devkit, and are called by them: "crane" and "maillot" each name two (pytorch/vision#1734). There is
no list of files: the folders are the list. Training images lie below `train`, those of validation
below `val`. The folders 0 … 999 of ImageNetV2 count the sorted ids; they are the split test.
`LOC_synset_mapping.txt` (`n01440764 tench, Tinca tinca`), if it is there, names all ids.
"""

from __future__ import annotations

import re
from collections import Counter

from vatt.errors import DataError
from vatt.public_data.listing import LABEL, Lists, OfficialListing, PublicDataset
from vatt.public_data.official_files import OfficialFiles, lines, refuse

_SPLITS = {"train": "train", "val": "val", "validation": "val", "valid": "val"}
_WNID = re.compile(r"n\d{8}")


def read(files: OfficialFiles) -> OfficialListing:
    """Every image in a folder of a class."""
    placed = list[tuple[str, str, str]]()
    elsewhere = Counter[str]()
    for path in files.media:
        above = path.split("/")[:-1]
        folder = above[-1] if above else ""
        if _WNID.fullmatch(folder):
            split = next((_SPLITS[one] for one in reversed(above) if one in _SPLITS), "train")
            placed.append((path, split, folder))
        elif re.fullmatch(r"\d{1,3}", folder):
            placed.append((path, "test", folder))
        else:
            elsewhere[folder] += 1
    if not placed:
        first = next(iter(elsewhere), None)
        files.missing(
            "folder named by a WordNet id such as n01440764"
            + (f"; found images in {first!r}: names of classes are not unique" if first else "")
        )
    numbers = {folder for *_, folder in placed if folder.isdecimal()}
    wnids = _wnids(files) or sorted({folder for *_, folder in placed} - numbers)
    if numbers and wnids and len(wnids) != IMAGENET.classes:
        raise DataError(
            f"{files.folder}: found the numbered folders of ImageNetV2, and {len(wnids)} WordNet "
            "ids, expected all 1000, which the numbers count: put LOC_synset_mapping.txt there"
        )
    classes = wnids or sorted(numbers, key=int)
    lists, known = Lists(), set(classes)
    for path, split, folder in placed:
        label = classes[int(folder)] if folder in numbers and wnids else folder
        if label not in known:
            refuse(str(files.folder / path), label, "a WordNet id of LOC_synset_mapping.txt")
        lists.add((path,), split, {LABEL: label})
    problems = []
    if flat := sum(elsewhere.values()):
        problems.append(
            f"{flat} images lie in no folder of a class: sort those of validation into folders "
            "named by their WordNet ids"
        )
    return OfficialListing(files=lists.files(), classes=tuple(classes), problems=tuple(problems))


def _wnids(files: OfficialFiles) -> list[str]:
    path = files.one(r"LOC_synset_mapping\.txt")
    found = list[str]()
    for at, line in lines(path) if path else ():
        if line.strip():
            wnid = line.split()[0]
            if not _WNID.fullmatch(wnid):
                refuse(f"{path}: line {at}", line, "a WordNet id and the names of its class")
            found.append(wnid)
    return sorted(found)


IMAGENET = PublicDataset(
    name="imagenet",
    title="1,000 classes of images, named by their WordNet ids",
    kind="image",
    lists="none: train/<wnid>/ and val/<wnid>/",
    read=read,
    classes=1000,
    published={"train": (1_281_167,), "val": (50_000,), "test": (10_000,)},
    short_side=384,
)
