"""YouCook2: cooking videos with a sentence for each step.

`youcookii_annotations_trainval.json`: `database[id]` has `subset` (training, validation, testing),
`duration`, `recipe_type` and `annotations[{id, segment [s, s], sentence}]`; captions of the test
videos are not public. MIL-NCE's `validation_youcook.csv` (`end,start,task,text,video_id`, 3,350
rows) is the pool that most retrieval numbers are of; where it is there, its rows are those of
`val`. About 3,100 of them can still be had: a recall needs the size of its pool beside it.
"""

from __future__ import annotations

from vatt.public_data.listing import CAPTION, Lists, OfficialListing, PublicDataset
from vatt.public_data.official_files import (
    OfficialFiles,
    field_of,
    refuse,
    rows,
    span,
    split_named_in,
    youtube_id,
)

_POOL = ("video_id", "start", "end", "text")


def read(files: OfficialFiles) -> OfficialListing:
    """The annotations, and the pool of others in place of those of validation."""
    annotations = files.json_lists(r"youcookii_.*\.json", "database")
    pools, lists = files.tables(*_POOL), Lists()
    if not annotations and not pools:
        files.missing("youcookii_annotations_trainval.json, or MIL-NCE's validation_youcook.csv")
    for path, data in annotations:
        for id_, entry in field_of(data, "database", dict, str(path)).items():
            where = f"{path}: database[{id_!r}]"
            id_ = youtube_id(id_, where)
            split = split_named_in(field_of(entry, "subset", str, where), f"{where}: subset")
            lists.add((id_,), split)
            known = [] if pools and split == "val" else entry.get("annotations", [])
            if not isinstance(known, list):
                refuse(f"{where}: annotations", known, "a list")
            for number, one in enumerate(known):
                at = f"{where}: annotations[{number}]"
                times = field_of(one, "segment", list, at)
                if len(times) != 2:
                    refuse(f"{at}: segment", times, "a start and an end")
                start_s, end_s = span(times[0], times[1], f"{at}: segment")
                if split != "test" or "sentence" in one:  # of test only segments are public
                    text = field_of(one, "sentence", str, at)
                    lists.add((id_,), split, {"start_s": start_s, "end_s": end_s, CAPTION: text})
    for pool in pools:
        for where, row in rows(pool, _POOL):
            start_s, end_s = span(row["start"], row["end"], where)
            text = {"start_s": start_s, "end_s": end_s, CAPTION: row["text"]}
            lists.add((youtube_id(row["video_id"], where),), "val", text)
    return OfficialListing(files=lists.files())


YOUCOOK2 = PublicDataset(
    name="youcook2",
    title="cooking videos, a sentence for each step",
    kind="video",
    lists="youcookii_annotations_trainval.json; MIL-NCE's validation_youcook.csv",
    read=read,
    published={"train": (1333,), "val": (457,), "test": (210,)},
    short_side=224,
)
