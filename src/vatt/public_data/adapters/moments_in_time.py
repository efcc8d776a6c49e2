"""Moments in Time: videos of 3 s, one of 339 actions each, in a folder for each action.

`moments_categories.txt` has `name,id`, which is the order of the classes: not alphabetical in every
copy. `trainingSet.csv` and `validationSet.csv` have no header:
`class/file.mp4,class,agree,disagree` (the data set's own README.txt).
"""

from __future__ import annotations

from pathlib import Path

from vatt.errors import DataError
from vatt.public_data.listing import LABEL, Lists, OfficialListing, PublicDataset, plain
from vatt.public_data.official_files import OfficialFiles, inside, lines, refuse, rows


def read(files: OfficialFiles) -> OfficialListing:
    """The classes, then both lists."""
    categories = files.one(r"moments_categories\.txt")
    tables = {"train": files.one(r"trainingSet\.csv"), "val": files.one(r"validationSet\.csv")}
    if categories is None or not any(tables.values()):
        files.missing("moments_categories.txt beside trainingSet.csv or validationSet.csv")
    classes, lists = _classes(categories), Lists()
    known = {plain(name): name for name in classes}
    for split, path in tables.items():
        if path is None:
            continue
        for where, row in rows(path, ("file",), header=("file", "label", "agree", "disagree")):
            name = inside(row["file"], where)
            label = known.get(plain(row.get("label") or name.split("/")[0]))
            if label is None:
                refuse(where, name, f"one of the {len(classes)} classes of {categories.name}")
            lists.add((name,), split, {LABEL: label})
    return OfficialListing(files=lists.files(), classes=classes)


def _classes(path: Path) -> tuple[str, ...]:
    numbered = dict[int, str]()
    for at, line in lines(path):
        name, _, number = line.rpartition(",")
        if not line.strip():
            continue
        if not name or not number.strip().isdecimal() or int(number) in numbered:
            refuse(f"{path}: line {at}", line, "name,id with an id of its own")
        numbered[int(number)] = name.strip()
    if set(numbered) != set(range(len(numbered))):
        raise DataError(
            f"{path}: found ids {min(numbered, default=0)} to {max(numbered, default=0)} for "
            f"{len(numbered)} classes, expected 0 to {len(numbered) - 1}; get the official file"
        )
    return tuple(numbered[number] for number in range(len(numbered)))


MOMENTS_IN_TIME = PublicDataset(
    name="moments-in-time",
    title="339 actions and events, videos of 3 s",
    kind="video",
    lists="moments_categories.txt, trainingSet.csv, validationSet.csv",
    read=read,
    classes=339,
    published={"train": (802_264,), "val": (33_900,)},
)
