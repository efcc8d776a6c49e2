"""ImageNet (ILSVRC 2012): 1,000 classes, a folder for each, named by its WordNet id.

Classes are in the order of these ids (rwightman/pytorch-image-models#107), not in that of the
devkit, and are called by them: "crane" and "maillot" each name two (pytorch/vision#1734). There is
no list of files: the folders are the list. Training images lie below `train`, those of validation
below `val`. The folders 0 … 999 of ImageNetV2 count the sorted ids; they are the split test.
`LOC_synset_mapping.txt` (`n01440764 tench, Tinca tinca`), if it is there, names all ids.
`LOC_val_solution.csv` (`ImageId,PredictionString`) gives the classes of validation images that lie
in no such folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from vatt.errors import DataError
from vatt.media.container import IMAGE_SUFFIXES
from vatt.public_data.listing import LABEL, Lists, OfficialListing, PublicDataset
from vatt.public_data.official_files import OfficialFiles, lines, refuse, rows

_SPLITS = {"train": "train", "val": "val", "validation": "val", "valid": "val"}
_WNID = re.compile(r"n\d{8}")


def read(files: OfficialFiles) -> OfficialListing:
    """Every image in a folder of a class, and those that a list of validation names."""
    of_flat = _flat(files)
    placed, elsewhere = _placed(files, of_flat)
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
    there = {Path(path).stem for path, *_ in placed}
    for image in sorted(of_flat.keys() - there):  # missing
        lists.add((f"{image}.JPEG",), "val", {LABEL: of_flat[image]})
    problem = (
        f"{elsewhere} images lie in no folder of a class: sort those of validation into folders "
        "named by their WordNet ids, or put LOC_val_solution.csv there"
    )
    problems = (problem,) if elsewhere else ()
    return OfficialListing(files=lists.files(), classes=tuple(classes), problems=problems)


def _placed(
    files: OfficialFiles, of_flat: Mapping[str, str]
) -> tuple[list[tuple[str, str, str]], int]:
    """Path, split and class (a WordNet id, or a number of V2) of each image; how many have none."""
    placed, elsewhere = list[tuple[str, str, str]](), list[str]()
    for path in (one for one in files.media if Path(one).suffix.lower() in IMAGE_SUFFIXES):
        *above, folder = ["", *path.split("/")[:-1]]
        if _WNID.fullmatch(folder):
            split = next((_SPLITS[one] for one in reversed(above) if one in _SPLITS), "train")
            placed.append((path, split, folder))
        elif re.fullmatch(r"\d{1,3}", folder):
            placed.append((path, "test", folder))
        elif wnid := of_flat.get(Path(path).stem):
            placed.append((path, "val", wnid))
        else:
            elsewhere.append(folder)
    if not placed:
        said = f"; found images in {elsewhere[0]!r}" if elsewhere else ""
        files.missing(
            f"folder named by a WordNet id such as n01440764{said}: names of classes are not unique"
        )
    return placed, len(elsewhere)


def _flat(files: OfficialFiles) -> dict[str, str]:
    """Image of validation → its WordNet id, the first word of `n01751748 111 108 249 287`."""
    path, found = files.one(r"LOC_val_solution\.csv"), dict[str, str]()
    for where, row in rows(path, ("imageid", "predictionstring")) if path else ():
        wnid = row["predictionstring"].partition(" ")[0]
        if not _WNID.fullmatch(wnid):
            refuse(where, row["predictionstring"], "a WordNet id and a box")
        found[row["imageid"]] = wnid
    return found


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
    lists="none: train/<wnid>/ and val/<wnid>/; LOC_val_solution.csv for images in val/",
    read=read,
    classes=1000,
    published={"train": (1_281_167,), "val": (50_000,), "test": (10_000,)},
    short_side=384,
)
