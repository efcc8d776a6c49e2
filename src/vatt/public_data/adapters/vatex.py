"""VATEX: clips of 10 s of Kinetics-600 with ten English captions each.

`vatex_training_v1.0.json`, `vatex_validation_v1.0.json`, `vatex_public_test_english_v1.1.json`: a
list of `{videoID, enCap, chCap}`. `videoID` is `YouTubeID_StartTime_EndTime`
(eric-xw.github.io/vatex-website/download.html), times as six digits in the copies that we know.
Papers on retrieval mostly take 1,500 of the validation clips as test; that list is not official and
not read.
"""

from __future__ import annotations

import re

from vatt.public_data.listing import CAPTION, Lists, OfficialListing, PublicDataset
from vatt.public_data.official_files import (
    OfficialFiles,
    field_of,
    inside,
    refuse,
    span,
    split_named_in,
)


def read(files: OfficialFiles) -> OfficialListing:
    """Every clip with its English captions; those of the private test have none."""
    tables, lists = files.json_lists(r"vatex.*\.json", "videoID"), Lists()
    if not tables:
        files.missing("vatex_training_v1.0.json, vatex_validation_v1.0.json …")
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
            lists.add(names, split, cut_from=cut_from)
            for text in entry.get("enCap") or []:
                lists.add(names, split, {CAPTION: text})
    return OfficialListing(files=lists.files())


VATEX = PublicDataset(
    name="vatex",
    title="clips of 10 s with ten captions each",
    kind="video",
    lists="vatex_training_v1.0.json, vatex_validation_v1.0.json, vatex_public_test_….json",
    read=read,
    published={"train": (25_991,), "val": (3000,), "test": (6000,)},
    short_side=224,
)
