"""ESC-50: 2,000 recordings of 5 s, 50 classes, five folds.

`esc50.csv`: `filename,fold,target,category,esc10,src_file,take`; files are named
`{fold}-{clip}-{take}-{target}.wav`. Clips of one recording lie in one fold: folds that are drawn
anew leak. Licence: CC BY-NC. Some clips end in digital silence.
"""

from __future__ import annotations

import re
from collections import defaultdict

from vatt.public_data.listing import LABEL, Lists, OfficialListing, PublicDataset
from vatt.public_data.official_files import OfficialFiles, inside, refuse, rows

_NAME = re.compile(r"(?P<fold>\d)-\d+-[A-Z]-(?P<target>\d+)\.\w+$")
_COLUMNS = ("filename", "fold", "target", "category", "src_file")


def read(files: OfficialFiles) -> OfficialListing:
    """The one list; its numbers are compared with the names of the files."""
    path = files.one(r"esc50\.csv")
    if path is None:
        files.missing("esc50.csv")
    lists, classes, folds = Lists(), dict[int, str](), defaultdict[str, set[str]](set)
    leaks = list[str]()
    for where, row in rows(path, _COLUMNS):
        name, fold, target = inside(row["filename"], where), row["fold"], row["target"]
        if fold not in "12345" or len(fold) != 1 or not target.isdecimal() or int(target) > 49:
            refuse(where, f"fold {fold}, target {target}", "fold 1 to 5, target 0 to 49")
        if classes.setdefault(int(target), row["category"]) != row["category"]:
            refuse(where, row["category"], f"{classes[int(target)]!r}, as target {target} before")
        said = _NAME.search(name)
        if said and said["target"] != target:
            refuse(
                where, f"{name} with target {target}", f"target {said['target']}, as in its name"
            )
        if said and said["fold"] != fold and not leaks:
            leaks.append(
                f"{where}: {name} is in fold {fold}, by its name in fold {said['fold']}: the folds "
                "were drawn anew"
            )
        if said is None:  # else its name, which nobody changes, vouches for its fold
            folds[row["src_file"]].add(fold)
        lists.add((name,), f"fold{fold}", {LABEL: row["category"]})
    if split := sorted(source for source, of in folds.items() if len(of) > 1):
        leaks.append(f"clips of one recording are in several folds (first: {split[0]})")
    ordered = tuple(classes[target] for target in sorted(classes))
    return OfficialListing(files=lists.files(), classes=ordered, leaks=tuple(leaks))


ESC50 = PublicDataset(
    name="esc50",
    title="50 kinds of sounds of the environment, five folds",
    kind="audio",
    lists="esc50.csv",
    read=read,
    classes=50,
    published={f"fold{number}": (400,) for number in range(1, 6)},
    fps=1.0,
    short_side=32,
)
