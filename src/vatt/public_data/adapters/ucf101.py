"""UCF101: 101 actions, three splits into training and test.

`classInd.txt`: `1 ApplyEyeMakeup`, numbered from 1. `trainlist0N.txt`: `Class/v_Class_g08_c01.avi
1`; `testlist0N.txt`: the path alone. The lists say HandStandPushups, the class file and the folder
say HandstandPushups. The three splits share their videos: what trains on one may not be tested on
another.
"""

from __future__ import annotations

from vatt.public_data.listing import LABEL, Lists, OfficialListing, PublicDataset
from vatt.public_data.official_files import OfficialFiles, inside, lines, refuse


def read(files: OfficialFiles) -> OfficialListing:
    """The classes, then the lists of every split that is there."""
    index = files.one(r"classInd\.txt")
    tables = files.named(r"(train|test)list0?[123]\.txt")
    if index is None or not tables:
        files.missing("classInd.txt beside trainlist01.txt, testlist01.txt …")
    classes = list[str]()
    for at, line in lines(index):
        number, _, name = line.strip().partition(" ")
        if line.strip():
            if number != str(len(classes) + 1) or not name:
                refuse(f"{index}: line {at}", line, f"{len(classes) + 1} and a class")
            classes.append(name.strip())
    known, lists = {name.casefold(): name for name in classes}, Lists()
    for path in tables:
        split = f"{path.stem[: path.stem.index('list')].casefold()}{path.stem[-1]}"
        for at, line in lines(path):
            if not line.strip():
                continue
            where = f"{path}: line {at}"
            words = line.split()
            name = inside(words[0], where)
            label = known.get(name.split("/")[0].casefold())
            if label is None:
                refuse(where, line, f"a path that begins with a class of {index.name}")
            if words[1:] and words[1:] != [str(classes.index(label) + 1)]:
                refuse(where, line, f"class {classes.index(label) + 1}, {label}")
            lists.add((name,), split, {LABEL: label})
    return OfficialListing(files=lists.files(), classes=tuple(classes), loose=True)


UCF101 = PublicDataset(
    name="ucf101",
    title="101 actions, three splits",
    kind="video",
    lists="classInd.txt, trainlist01.txt … testlist03.txt",
    read=read,
    classes=101,
    published={
        "train1": (9537,), "test1": (3783,), "train2": (9586,), "test2": (3734,),
        "train3": (9624,), "test3": (3696,),
    },
)  # fmt: skip
