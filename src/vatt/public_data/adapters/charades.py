"""Charades: people at home, 157 actions, several at once and with times.

`Charades_v1_train.csv`, `Charades_v1_test.csv`: `id,…,script,objects,descriptions,actions,length`;
`actions` is `c092 11.90 21.20;c147 0.00 12.60`, or empty. `Charades_v1_classes.txt`, `c000 Holding
some clothes`, gives the names; without it the classes are called c000 … c156.
"""

from __future__ import annotations

import re

from vatt.public_data.listing import LABEL, Lists, OfficialListing, PublicDataset
from vatt.public_data.official_files import OfficialFiles, inside, lines, refuse, rows, span

_NEEDED = ("id", "actions")


def read(files: OfficialFiles) -> OfficialListing:
    """The classes, then every action of both lists."""
    tables, lists, names = files.tables(*_NEEDED), Lists(), _classes(files)
    tables = [path for path in tables if re.search(r"train|test", path.stem, re.IGNORECASE)]
    if not tables:
        files.missing("Charades_v1_train.csv or Charades_v1_test.csv")
    for path in tables:
        split = "train" if "train" in path.stem.casefold() else "test"
        for where, row in rows(path, _NEEDED):
            file = (f"{inside(row['id'], where)}.mp4",)
            lists.add(file, split)
            for action in filter(None, (one.strip() for one in row["actions"].split(";"))):
                number, *times = action.split()
                if number not in names or len(times) != 2:
                    refuse(where, action, "c000 to c156 with a start and an end")
                start_s, end_s = span(times[0], times[1], where)
                label = {"start_s": start_s, "end_s": end_s, LABEL: names[number]}
                lists.add(file, split, label)
    unnamed = sum(number == name for number, name in names.items())
    said = (
        f"{unnamed} of {len(names)} classes have no name in Charades_v1_classes.txt; they are "
        "called by number, as c001"
    )
    return OfficialListing(
        files=lists.files(), classes=tuple(names.values()), problems=(said,) * bool(unnamed)
    )


def _classes(files: OfficialFiles) -> dict[str, str]:
    path = files.one(r"Charades_v1_classes\.txt")
    names = {f"c{number:03d}": f"c{number:03d}" for number in range(157)}
    for at, line in lines(path) if path else ():
        number, _, name = line.strip().partition(" ")
        if line.strip() and number not in names:
            refuse(f"{path}: line {at}", line, "c000 to c156 and a name")
        if line.strip():
            names[number] = name or number
    return names


CHARADES = PublicDataset(
    name="charades",
    title="157 actions at home, several at once, with times",
    kind="video",
    lists="Charades_v1_train.csv, Charades_v1_test.csv, Charades_v1_classes.txt",
    read=read,
    classes=157,
    published={"train": (7985,), "test": (1863,)},
)
