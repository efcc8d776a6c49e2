"""HMDB51: 51 actions, three splits, each of 70 training and 30 test videos of every class.

`<class>_test_splitN.txt`: `name flag`, 1 for training, 2 for test, 0 for neither. There is no file
of classes: they are in the order of their names. Videos come in a .rar for each class, inside of
one more; names have `#`, `&`, `(` and `;`, which some programs change when they unpack.
"""

from __future__ import annotations

import re

from vatt.public_data.listing import LABEL, Lists, OfficialListing, PublicDataset
from vatt.public_data.official_files import OfficialFiles, inside, lines, refuse

_SPLIT = {"0": None, "1": "train", "2": "test"}


def read(files: OfficialFiles) -> OfficialListing:
    """The list of every class and split that is there."""
    tables = files.named(r".+_test_split[123]\.txt")
    if not tables:
        files.missing("<class>_test_split1.txt …")
    lists, classes, read_already = Lists(), set[str](), set[str]()
    for path in tables:
        if path.name in read_already:
            continue
        read_already.add(path.name)
        label, number = re.fullmatch(r"(.+)_test_split(\d)", path.stem).groups()  # type: ignore[union-attr]
        classes.add(label)
        for at, line in lines(path):
            if not line.strip():
                continue
            where = f"{path}: line {at}"
            *before, flag = line.rsplit(None, 1)
            name = "".join(before).strip()
            if flag not in _SPLIT or not name:
                refuse(where, line, "a name and 0, 1 or 2")
            split = _SPLIT[flag]
            name = inside(f"{label}/{name}", where)
            lists.add((name,), split and f"{split}{number}", {LABEL: label})
    return OfficialListing(files=lists.files(), classes=tuple(sorted(classes)), loose=True)


HMDB51 = PublicDataset(
    name="hmdb51",
    title="51 actions, three splits",
    kind="video",
    lists="<class>_test_split1.txt …3.txt of each class",
    read=read,
    classes=51,
    published={f"{name}{n}": (size,) for n in (1, 2, 3)
               for name, size in (("train", 3570), ("test", 1530))},
)  # fmt: skip
