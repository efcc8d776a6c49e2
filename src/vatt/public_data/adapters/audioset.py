"""AudioSet: 10 s of YouTube videos, any of 527 classes at once.

`balanced_train_segments.csv`, `unbalanced_train_segments.csv` (both training) and
`eval_segments.csv` (test): three lines of `#`, then `YTID, start_seconds, end_seconds,
"/m/..,/t/.."` with blanks after the commas. `class_labels_indices.csv`: `index,mid,display_name`,
names hold commas (research.google.com/audioset/download.html). The publisher names no files of
audio; archives that go around have `{id}`, `Y{id}` or `{id}_{start}_{end}`
(qiuqiangkong/audioset_tagging_cnn#57).
"""

from __future__ import annotations

from pathlib import Path

from vatt.public_data.listing import LABEL, Lists, OfficialListing, PublicDataset
from vatt.public_data.official_files import OfficialFiles, refuse, rows, span, youtube_id

_COLUMNS = ("ytid", "start_seconds", "end_seconds", "positive_labels")


def read(files: OfficialFiles) -> OfficialListing:
    """The classes, then the segments of every list that is there."""
    index = files.one(r"class_labels_indices\.csv")
    tables = {
        path: "test" if "eval" in path.name.casefold() else "train"
        for path in files.named(r"(balanced_train|unbalanced_train|eval)_segments\.csv")
    }
    if index is None or not tables:
        files.missing(
            "class_labels_indices.csv beside balanced_train_segments.csv or eval_segments.csv"
        )
    names, lists = _classes(index), Lists()
    for path, split in tables.items():
        for where, row in rows(path, _COLUMNS, header=_COLUMNS, comment="#"):
            id_ = youtube_id(row["ytid"], where)
            start_s, end_s = span(row["start_seconds"], row["end_seconds"], where)
            mids = [mid.strip() for mid in row["positive_labels"].split(",")]
            for mid in mids:
                if mid not in names:
                    refuse(where, mid, f"classes of {index.name}")
                lists.add(
                    (id_, f"Y{id_}", *timed_names(id_, start_s, end_s)), split,
                    {LABEL: names[mid]}, key=(id_, start_s), cut_from=(start_s, end_s),
                )  # fmt: skip
    return OfficialListing(files=lists.files(), classes=tuple(names.values()))


def timed_names(id_: str, start_s: float, end_s: float) -> tuple[str, ...]:
    """Names with the times of a segment: in seconds or milliseconds."""
    first, last = int(start_s), int(end_s)
    return (
        f"{id_}_{first}_{last}",
        f"{id_}_{start_s:.3f}_{end_s:.3f}",
        f"{id_}_{first * 1000}_{last * 1000}",
        f"Y{id_}_{first}_{last}",
    )


def _classes(path: Path) -> dict[str, str]:
    """Machine id → name, in the order of the index; two classes never share a name."""
    numbered = dict[int, tuple[str, str]]()
    for where, row in rows(path, ("index", "mid", "display_name")):
        if not row["index"].isdecimal() or int(row["index"]) in numbered:
            refuse(where, row["index"], "an index of its own")
        numbered[int(row["index"])] = row["mid"], row["display_name"]
    names = dict[str, str]()
    for _, (mid, name) in sorted(numbered.items()):
        names[mid] = f"{name} ({mid})" if name in names.values() else name
    return names


AUDIOSET = PublicDataset(
    name="audioset",
    title="527 classes of audio, several at once, 10 s",
    kind="audio",
    lists="class_labels_indices.csv, balanced_train_segments.csv, eval_segments.csv …",
    read=read,
    classes=527,
    published={"train": (22_160, 2_041_789, 2_063_949), "test": (20_371,)},
    fps=1.0,
    short_side=32,
)
