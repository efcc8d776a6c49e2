"""DiDeMo: videos of up to 30 s, sentences about moments of them.

`train_data.json`, `val_data.json`, `test_data.json`: a list of `{video, description, times}`;
`times` has a pair for each annotator, in pieces of 5 s: (1, 4) is 5 s to 25 s
(github.com/LisaAnne/LocalizingMoments). Each sentence is a caption of the moment that most
annotators chose, the first of equals. Paragraph retrieval joins all sentences of a video: the
column `paragraph` of a row over the whole of it.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict

from vatt.public_data.listing import CAPTION, Lists, OfficialListing, PublicDataset
from vatt.public_data.official_files import (
    OfficialFiles,
    field_of,
    inside,
    refuse,
    seconds,
    split_named_in,
)

_PIECE_S = 5.0


def read(files: OfficialFiles) -> OfficialListing:
    """Moments with their sentences, and the paragraphs of whole videos."""
    tables = files.json_lists(r"(train|val|test)_data\.json", "video", "description", "times")
    lists = Lists()
    if not tables:
        files.missing("train_data.json, val_data.json, test_data.json")
    for path, data in tables:
        split, said = split_named_in(path.stem, str(path)), defaultdict[str, list[str]](list)
        if not isinstance(data, list):
            refuse(str(path), data, "a list of objects")
        for number, entry in enumerate(data):
            where = f"{path}: [{number}]"
            name = inside(field_of(entry, "video", str, where), f"{where}: video")
            text = field_of(entry, "description", str, where)
            start_s, end_s = _moment(field_of(entry, "times", list, where), f"{where}: times")
            lists.add((name,), split, {"start_s": start_s, "end_s": end_s, CAPTION: text})
            said[name].append(text)
        for name, texts in said.items():
            lists.add((name,), split, {"paragraph": " ".join(texts)})
    return OfficialListing(files=lists.files())


def _moment(times: list[object], where: str) -> tuple[float, float]:
    if not times or not all(isinstance(one, list) and len(one) == 2 for one in times):
        refuse(where, times, "pairs of a first and a last piece of 5 s")
    first, last = json.loads(Counter(map(json.dumps, times)).most_common(1)[0][0])
    start_s, end_s = (seconds(one, where) * _PIECE_S for one in (first, last))
    if end_s < start_s:
        refuse(where, [first, last], "a last piece after the first")
    return start_s, end_s + _PIECE_S


DIDEMO = PublicDataset(
    name="didemo",
    title="sentences about moments of videos of 30 s",
    kind="video",
    lists="train_data.json, val_data.json, test_data.json",
    read=read,
    published={"train": (8395,), "val": (1065,), "test": (1004,)},
    short_side=224,
)
