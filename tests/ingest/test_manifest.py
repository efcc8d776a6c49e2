from __future__ import annotations

import json
from pathlib import Path

import pytest

from vatt.errors import DataError
from vatt.ingest.manifest import read_manifest

HEADER = "file,kind,start_s,end_s,split,action,said\n"


def save(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_labels_cuts_and_splits_are_read_per_file(tmp_path: Path) -> None:
    table = (
        'a.mp4,label,2.0,4.5,test,"turn, left",\n'
        "a.mp4,label,0,2,test,stand,action:stand\n"
        "a.mp4,cut,2.0,2.0,test,,\n"
        "b/c.mp4,,,,val,,\n"
    )
    entries = read_manifest(save(tmp_path / "labels.csv", HEADER + table))
    assert list(entries) == ["a.mp4", "b/c.mp4"]
    assert entries["a.mp4"].split == "test"
    assert entries["a.mp4"].cuts == [2.0]
    assert entries["a.mp4"].labels == [
        {"start_s": 0.0, "end_s": 2.0, "action": "stand", "said": "action:stand"},
        {"start_s": 2.0, "end_s": 4.5, "action": "turn, left", "said": ""},
    ]
    assert (entries["b/c.mp4"].split, entries["b/c.mp4"].labels) == ("val", [])


def test_json_lines_say_the_same_as_csv(tmp_path: Path) -> None:
    rows = [
        {"file": "a.mp4", "kind": "label", "start_s": 1, "end_s": 2.5, "split": "val", "class": 7},
        {"file": "a.mp4", "kind": "cut", "start_s": 3},
    ]
    lines = "\n".join(json.dumps(row) for row in rows)
    from_json = read_manifest(save(tmp_path / "a.jsonl", lines + "\n\n"))
    table = "file,kind,start_s,end_s,split,class\na.mp4,label,1,2.5,val,7\na.mp4,cut,3,,,\n"
    assert from_json == read_manifest(save(tmp_path / "a.csv", table))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("a.mp4,label,soon,2,train,x,\n", r"line 2: start_s: found 'soon', expected seconds"),
        ("a.mp4,label,1,,train,x,\n", r"line 2: end_s: found ''"),
        ("a.mp4,label,nan,2,train,x,\n", r"line 2: start_s: found 'nan'"),
        ("a.mp4,cut,-1,,train,,\n", r"line 2: start_s: found '-1'"),
        ("a.mp4,label,3,2,train,x,\n", r"line 2: the label ends at 2.0 s, before its start"),
        ("a.mp4,lable,1,2,train,x,\n", r"line 2: kind: found 'lable'"),
        (",label,1,2,train,x,\n", r"line 2: expected a row with the columns file"),
        ("a.mp4,label,1,2,train,x,y,z\n", r"line 2: expected a row .* no more values than columns"),
        (
            "a.mp4,,,,train,,\na.mp4,,,,test,,\n",
            r"line 3: a.mp4 is in split 'test', but in 'train'",
        ),
    ],
)
def test_a_wrong_row_is_refused_with_its_line(rows: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"labels\.csv: {reason}"):
        read_manifest(save(tmp_path / "labels.csv", HEADER + rows))


def test_what_is_no_table_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv: cannot read"):
        read_manifest(tmp_path / "absent.csv")
    with pytest.raises(DataError, match=r"a\.jsonl: not a table"):
        read_manifest(save(tmp_path / "a.jsonl", "{not json}\n"))
    with pytest.raises(DataError, match=r"a\.jsonl: line 1: expected a row"):
        read_manifest(save(tmp_path / "a.jsonl", "[1, 2]\n"))
    binary = tmp_path / "a.csv"
    binary.write_bytes(b"\xff\xfe\x00file")
    with pytest.raises(DataError, match=r"a\.csv: not a table in UTF-8"):
        read_manifest(binary)
