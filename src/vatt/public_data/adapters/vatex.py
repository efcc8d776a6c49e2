"""VATEX: clips of 10 s of Kinetics-600 with ten English captions each.

`vatex_training_v1.0.json`, `vatex_validation_v1.0.json`, `vatex_public_test_english_v1.1.json`: a
list of `{videoID, enCap, chCap}`. `videoID` is `YouTubeID_StartTime_EndTime`
(eric-xw.github.io/vatex-website/download.html), times as six digits in the copies that we know.
Papers on retrieval mostly take 1,500 of the validation clips as test. That partition is not
official (github.com/cshizhe/hgr_v2t); it goes round as texts of one `videoID` a line,
`train_list.txt`, `val_list.txt`, `test_list.txt` (`test1k5_sec_list.txt` is another draw,
github.com/CryhanFang/CLIP2Video). Where a text of test is there, the texts say the splits of all
clips but those of training; one that they do not name is in none.
"""

from __future__ import annotations

import re

from vatt.public_data.listing import CAPTION, Lists, OfficialListing, PublicDataset
from vatt.public_data.official_files import (
    OfficialFiles,
    field_of,
    inside,
    lines,
    refuse,
    span,
    split_named_in,
)


def read(files: OfficialFiles) -> OfficialListing:
    """Every clip with its English captions; those of the private test have none."""
    tables, lists = files.json_lists(r"vatex.*\.json", "videoID"), Lists()
    if not tables:
        files.missing("vatex_training_v1.0.json, vatex_validation_v1.0.json …")
    named = _of_texts(files)
    known, judged = set[str](), "test" in named.values()
    for path, data in tables:
        split = split_named_in(path.stem.replace("without_annotations", ""), str(path))
        if not isinstance(data, list):
            refuse(str(path), data, "a list of objects")
        for number, entry in enumerate(data):
            where = f"{path}: [{number}]"
            name = inside(field_of(entry, "videoID", str, where), f"{where}: videoID")
            names: tuple[str, ...] = (f"{name}.mp4",)
            cut_from = None
            if timed := re.fullmatch(r"(.+)_(\d+)_(\d+)", name):
                cut_from = span(timed[2], timed[3], f"{where}: videoID")
                names = (*names, f"{timed[1]}_{int(timed[2])}_{int(timed[3])}", timed[1])
            known.add(name)
            one = named.get(name, None if judged and split != "train" else split)
            lists.add(names, one, cut_from=cut_from)
            for text in entry.get("enCap") or []:
                lists.add(names, one, {CAPTION: text})
    if absent := sorted(set(named) - known):
        refuse(f"{files.folder}: a text of ids", absent[0], "a videoID of the JSON files")
    return OfficialListing(files=lists.files())


def _of_texts(files: OfficialFiles) -> dict[str, str]:
    """VideoID → split, of the partition that is not official, where its texts are there."""
    found = dict[str, str]()
    for path in files.named(r"(train|val|test)\w*list\.txt"):
        split = split_named_in(re.split(r"[\d_]", path.stem)[0], str(path))
        for number, line in lines(path):
            where = f"{path}: line {number}"
            name = inside(line, where) if line.strip() else None
            if name is not None and found.setdefault(name, split) != split:
                refuse(where, name, f"ids that are not in {found[name]}, too")
    return found


VATEX = PublicDataset(
    name="vatex",
    title="clips of 10 s with ten captions each",
    kind="video",
    lists="vatex_training_v1.0.json, vatex_validation_v1.0.json, vatex_public_test_….json; "
    "test_list.txt (1,500)",
    read=read,
    published={"train": (25_991,), "val": (3000, 1500), "test": (6000, 1500)},
    short_side=224,
)
