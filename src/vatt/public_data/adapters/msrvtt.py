"""MSR-VTT: 10,000 videos with 20 sentences each, in several partitions.

JSON `videos[{video_id, split, …}]`, `sentences[{sen_id, video_id, caption}]`: train 6,513, val 497,
test 2,990. Retrieval is mostly reported on 1k-A, a CSV `key,vid_key,video_id,sentence` (also parted
by semicolons) with 1,000 of the test videos and one sentence each. Where it is there, these are
`test`, with that sentence alone: the 20 of each would make another task
(OpenGVLab/InternVideo#273). The other 1,990 are then in no split, unless a table of `video_id`
alone (`MSRVTT_train.9k.csv`, `.7k.csv`) puts them into `train`. A caption that several videos have
ties. 879 of the 1,000 have audio.
"""

from __future__ import annotations

from typing import Any

from vatt.public_data.listing import CAPTION, Lists, OfficialListing, PublicDataset
from vatt.public_data.official_files import (
    OfficialFiles,
    field_of,
    inside,
    refuse,
    rows,
    split_named_in,
)

_1K = ("video_id", "sentence")


def read(files: OfficialFiles) -> OfficialListing:
    """Videos and sentences of the JSON files, then the partitions of the tables."""
    split_of, captions = dict[str, str | None](), list[tuple[str, str]]()
    for path, data in files.json_lists(r".*_videodatainfo\.json", "videos", "sentences"):
        _add(data, str(path), split_of, captions)
    pools, lists = files.tables(*_1K), Lists()
    if not split_of and not pools:
        files.missing("train_val_videodatainfo.json, or MSRVTT_JSFUSION_test.csv (1k-A)")
    tested = [
        (_id(row["video_id"], at), row["sentence"]) for one in pools for at, row in rows(one, _1K)
    ]
    training = [one for one in files.tables("video_id") if "train" in one.stem.casefold()]
    replaced = {"test"} if pools else set()
    replaced |= {"train"} if training else set()
    for id_, split in split_of.items():
        lists.add((f"{id_}.mp4",), None if split in replaced else split)
    for where, row in (pair for one in training for pair in rows(one, ("video_id",))):
        lists.add((f"{_id(row['video_id'], where)}.mp4",), "train")
    in_pool = {id_ for id_, _ in tested}
    for id_, text in captions:
        if id_ not in in_pool:
            lists.add((f"{id_}.mp4",), None, {CAPTION: text})
    for id_, text in tested:
        lists.add((f"{id_}.mp4",), "test", {CAPTION: text})
    return OfficialListing(files=lists.files())


def _add(
    data: Any,
    where: str,
    split_of: dict[str, str | None],
    captions: list[tuple[str, str]],
) -> None:
    for number, one in enumerate(field_of(data, "videos", list, where)):
        at = f"{where}: videos[{number}]"
        id_ = _id(field_of(one, "video_id", str, at), at)
        split_of[id_] = split_named_in(field_of(one, "split", str, at), f"{at}: split")
    for number, one in enumerate(field_of(data, "sentences", list, where)):
        at = f"{where}: sentences[{number}]"
        id_ = _id(field_of(one, "video_id", str, at), at)
        if id_ not in split_of:
            refuse(at, id_, "a video_id that `videos` has")
        captions.append((id_, field_of(one, "caption", str, at)))


def _id(value: str, where: str) -> str:
    name = inside(value, where)
    return name if "/" not in name else refuse(where, value, "a video_id such as video7010")


MSRVTT = PublicDataset(
    name="msrvtt",
    title="10,000 videos with 20 sentences each; 1k-A: 1,000 with one",
    kind="video",
    lists="train_val_videodatainfo.json, test_videodatainfo.json; MSRVTT_JSFUSION_test.csv (1k-A)",
    read=read,
    published={"train": (6513, 7010, 9000), "val": (497,), "test": (2990, 1000)},
    short_side=224,
)
