"""Kinetics-400, -600 and -700: CSV lists of cut YouTube clips, one action each.

`label,youtube_id,time_start,time_end,split`; older lists end with `is_cc`, lists of test clips may
lack `label` (github.com/cvdfoundation/kinetics-dataset, #31, #12). Clips are named
`{id}_{start:06d}_{end:06d}.mp4`. Classes are numbered in the order of their labels as they are: a
loader that drops ' ( ) first moves a few of them.
"""

from __future__ import annotations

from functools import partial

from vatt.public_data.listing import LABEL, Lists, OfficialListing, PublicDataset
from vatt.public_data.official_files import (
    OfficialFiles,
    rows,
    span,
    split_named_in,
    youtube_id,
)

_NEEDED = ("youtube_id", "time_start", "time_end")


def read(files: OfficialFiles) -> OfficialListing:
    """All lists with the columns of Kinetics, whatever their names."""
    tables, lists, labels = files.tables(*_NEEDED), Lists(), set[str]()
    if not tables:
        files.missing("list of Kinetics (.csv: label, youtube_id, time_start, time_end, split)")
    for path in tables:
        for where, row in rows(path, _NEEDED):
            id_ = youtube_id(row["youtube_id"], where)
            start_s, end_s = span(row["time_start"], row["time_end"], where)
            first, last = int(start_s), int(end_s)
            names = (f"{id_}_{first:06d}_{last:06d}.mp4", f"{id_}_{first}_{last}", id_)
            split = split_named_in(row.get("split") or path.stem, where)
            label = row.get("label", "")
            labels |= {label} - {""}
            lists.add(names, split, {LABEL: label} if label else None, cut_from=(start_s, end_s))
    return OfficialListing(files=lists.files(), classes=tuple(sorted(labels)))


_kinetics = partial(
    PublicDataset,
    kind="video",
    lists="train.csv, validate.csv, test.csv (columns youtube_id, time_start, time_end, split)",
    read=read,
)
KINETICS400 = _kinetics(
    name="kinetics400", title="400 actions of people, clips of 10 s", classes=400,
    published={"train": (246_535, 240_436), "val": (19_907, 19_796)},
)  # fmt: skip
KINETICS600 = _kinetics(
    name="kinetics600", title="600 actions of people, clips of 10 s", classes=600,
    published={"train": (383_393,), "val": (27_910,)},
)  # fmt: skip
KINETICS700 = _kinetics(
    name="kinetics700", title="700 actions of people, clips of 10 s", classes=700,
    published={"train": (542_357,), "val": (34_824,)},
)  # fmt: skip
