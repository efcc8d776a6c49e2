"""Labelled files: folders of classes, tables, and the splits that they get."""

import json
from collections import Counter
from pathlib import Path

import pytest

from vatt.errors import DataError
from vatt.ingest.labelled import SUFFIXES, find_labelled, with_splits
from vatt.ingest.manifest import read_label_table
from vatt.ingest.sources import Found, Item

ALL = SUFFIXES["audio"] | SUFFIXES["image"]
SHARES = {"val": 0.2, "test": 0.2}


def found_in(source: Path, leave_out: Path = Path("o")) -> Found:
    return find_labelled(source, "label", leave_out=leave_out, suffixes=ALL)


def splits(found: Found, *lost: str) -> dict[str, str]:
    items = with_splits(found.items, "label", SHARES, lost)
    return {item.name: item.split for item in items}


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def labels(item: Item) -> list[str]:
    assert item.entry is not None
    return [label["label"] for label in item.entry.labels]


def test_sub_folders_are_the_classes_of_all_media_in_them(tmp_path):
    names = ("a/1.mp4", "a/deep/2.WAV", "b/3.jpg", "b/notes.txt", "top.mp4", ".hidden/4.mp4")
    found = found_in(touch(tmp_path, *names))
    assert {item.name: labels(item) for item in found.items} == {
        "a/1.mp4": ["a"], "a/deep/2.WAV": ["a"], "b/3.jpg": ["b"],
    }  # fmt: skip
    assert found.other_files == {".mp4": 1, ".txt": 1}


def test_the_folder_that_shards_are_written_to_is_no_class(tmp_path):
    found = found_in(touch(tmp_path, "a/1.mp4", "runs/x/2.mp4"), leave_out=tmp_path / "runs")
    assert [item.name for item in found.items] == ["a/1.mp4"]


def test_folders_named_like_splits_hold_the_classes(tmp_path):
    found = found_in(touch(tmp_path, "Train/a/1.mp4", "train2"[:5] + "/b/2.mp4", "Valid/a/3.mp4"))
    assert {(item.split, *labels(item)) for item in found.items} == {
        ("train", "a"), ("train", "b"), ("val", "a"),
    }  # fmt: skip


def test_every_class_keeps_a_file_to_train_on_and_gives_shares_of_the_others(tmp_path):
    files = [f"many/{n}.mp4" for n in range(10)] + ["two/0.mp4", "two/1.mp4", "alone/0.mp4"]
    found = splits(found_in(touch(tmp_path, *files)))
    assert Counter((name.split("/")[0], split) for name, split in found.items()) == {
        ("many", "train"): 6, ("many", "val"): 2, ("many", "test"): 2,
        ("two", "train"): 1, ("two", "val"): 1, ("alone", "train"): 1,
    }  # fmt: skip
    assert splits(found_in(tmp_path)) == found


def test_files_that_are_lost_count_in_no_share_and_keep_their_own_split(tmp_path):
    files = [f"many/{n}.mp4" for n in range(10)] + ["two/0.mp4", "two/1.mp4"]
    found = found_in(touch(tmp_path, *files))
    whole = splits(found)
    lost = [name for name, split in whole.items() if split == "val"]  # and the only one of `two`
    lost += [name for name in whole if name.startswith("two") and whole[name] == "train"]
    again = splits(found, *lost)
    assert {name: again[name] for name in lost} == {name: whole[name] for name in lost}
    left = Counter((name.split("/")[0], split) for name, split in again.items() if name not in lost)
    assert left == {("many", "train"): 4, ("many", "val"): 2, ("many", "test"): 2}
    one_lost = splits(found, "two/1.mp4")
    assert one_lost["two/0.mp4"] == "train"  # else the class had nothing to learn from


def test_a_table_names_files_labels_times_and_splits(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    table = tmp_path / "labels.csv"
    table.write_text(
        "Path,label,start,end,subset\na.mp4,x,0,1.5,train\na.mp4,y,,,train\nb.mp4,x,,,val\n"
    )
    found = found_in(table)
    assert {item.name: (item.split, labels(item)) for item in found.items} == {
        "a.mp4": ("train", ["x", "y"]), "b.mp4": ("val", ["x"]),
    }  # fmt: skip
    entry = found.items[0].entry
    assert entry is not None
    assert [(one["start_s"], one["end_s"]) for one in entry.labels] == [(0, 1.5), (0, 86_400)]


def test_several_labels_stand_in_a_list_or_are_parted_as_told(tmp_path):
    table = tmp_path / "l.jsonl"
    table.write_text(json.dumps({"file": "a.mp4", "label": ["x", "y"]}) + "\n")
    (entry,) = read_label_table(table, "label", None).values()
    assert [one["label"] for one in entry.labels] == ["x", "y"]
    table = tmp_path / "l.csv"
    table.write_text("file,label\na.mp4,x; y\n")
    (entry,) = read_label_table(table, "label", ";").values()
    assert [one["label"] for one in entry.labels] == ["x", "y"]
    (entry,) = read_label_table(table, "label", None).values()
    assert [one["label"] for one in entry.labels] == ["x; y"]


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    touch(tmp_path, "a/1.mp4")
    (tmp_path / "a" / "2.mp4").symlink_to("nowhere.mp4")
    (skipped,) = found_in(tmp_path).skipped
    assert (skipped.source, skipped.cause) == ("a/2.mp4", "not found")


def test_files_of_a_table_that_are_absent_are_named(tmp_path):
    (tmp_path / "l.csv").write_text("file,label\na.mp4,x\n")
    found = found_in(tmp_path / "l.csv")
    assert [(one.source, one.cause) for one in found.skipped] == [("a.mp4", "not found")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,sort\na,b\n", "no column 'label', found file, sort"),
        ("label\nx\n", "no column 'file'"),
    ],
)
def test_a_table_without_its_columns_is_refused(tmp_path, text, message):
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        found_in(tmp_path / "l.csv")


def test_a_folder_without_classes_and_what_is_neither_are_refused(tmp_path):
    with pytest.raises(DataError, match="found no labelled file"):
        found_in(touch(tmp_path / "flat", "1.mp4"))
    with pytest.raises(DataError, match="neither a folder nor a table"):
        found_in(tmp_path / "flat" / "1.mp4")
