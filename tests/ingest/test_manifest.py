from __future__ import annotations

import json
from pathlib import Path

import pytest

from vatt.errors import DataError
from vatt.ingest.manifest import read_list, read_manifest

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


# Tables as people have them: read by what they say, never to the letter; what is not understood
# is named. A test video must never be stored as train because of a blank or a capital.


@pytest.mark.parametrize(
    "table",
    [
        "file,split\na.mp4,test\n",
        "file, split, kind\na.mp4, test,\n",
        " File ,SPLIT\na.mp4,  Test \n",
        '"file", "Split"\r\n"a.mp4", "TESTING"\r\n',
        "file;split\na.mp4;test\n",
        "file\tsplit\na.mp4\ttest\n",
        "sep=;\nfile;split;\na.mp4;test;\n;;\n",
        "file,split\ra.mp4,test\r",
        "\n\nfile,split\n\na.mp4,test\n,\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_is_read_whatever_program_saved_it(
    table: str, encoding: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_bytes(table.encode(encoding))
    entries = read_manifest(tmp_path / "a.csv")
    assert {file: entry.split for file, entry in entries.items()} == {"a.mp4": "test"}


def test_splits_have_one_name_each(tmp_path: Path) -> None:
    rows = [("a", "Test"), ("b", "validation"), ("c", "TRAIN"), ("d", " valid"), ("e", "1k-A")]
    lines = "\n".join(json.dumps({"file": file, "Split": split}) for file, split in rows)
    entries = read_manifest(save(tmp_path / "a.jsonl", lines))
    splits = {file: entry.split for file, entry in entries.items()}
    assert splits == {"a": "test", "b": "val", "c": "train", "d": "val", "e": "1k-A"}


def test_labels_of_a_table_with_decimal_commas(tmp_path: Path) -> None:
    table = "File;Kind;Start_s;End s;action\na.mp4; Label;0,5;1,25;turn, 1,5 m \na.mp4;CUT;2;;\n"
    entry = read_manifest(save(tmp_path / "a.csv", table))["a.mp4"]
    assert entry.labels == [{"start_s": 0.5, "end_s": 1.25, "action": "turn, 1,5 m"}]
    assert entry.cuts == [2.0]


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("file,subset\na,test\n", r"column 'subset': not understood; it looks like split"),
        ("file,splits\na,test\n", r"column 'splits': not understood; it looks like split"),
        ("file,phase\na,Test\nb,train\n", r"column 'phase': not understood; .* like split"),
        ("file,start,end\na,1,2\n", r"column 'start': not understood; it looks like start_s"),
        ("filename,split\na,test\n", r"column 'filename': not understood; it looks like file"),
        ("file,Split,split\na,test,test\n", r"column 'Split': split is there twice"),
        ("file,start_s,end_s\na,1,2\n", r"line 2: kind: found nothing beside times"),
        ('file,kind,start_s,end_s\na,label,"1,000",2\n', r"line 2: start_s: found '1,000'"),
        ("file,\na,test\n", r"line 2: expected a row"),
    ],
)
def test_a_column_that_looks_like_a_setting_and_is_none_is_refused(
    table: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rf"labels\.csv: {reason}"):
        read_manifest(save(tmp_path / "labels.csv", table))


def test_columns_beside_ours_are_labels_and_named_where_nothing_reads_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = "file,kind,start_s,end_s,split,subset,phase\na,label,0,1,train,easy,train\n"
    assert read_manifest(save(tmp_path / "a.csv", table))["a"].labels == [
        {"start_s": 0.0, "end_s": 1.0, "subset": "easy", "phase": "train"}
    ]
    assert not caplog.records
    read_manifest(save(tmp_path / "b.csv", "file,split,title,action\na,train,Soup,cook\n"))
    assert "b.csv: not read: action, title; labels are in rows of the kind label" in caplog.text


def test_a_table_whose_first_line_is_a_file_is_told_to_name_its_columns(tmp_path: Path) -> None:
    (tmp_path / "clip 1.mp4").touch()
    path = save(tmp_path / "a.csv", "clip 1.mp4,test\nclip 2.mp4,train\n")
    with pytest.raises(DataError, match=r"a\.csv: line 1: found the file 'clip 1\.mp4', expected"):
        read_manifest(path)


def test_files_of_a_list_are_found_as_the_disk_has_them(tmp_path: Path) -> None:
    for name in ("clip 1.mp4", "sub/b.mp4", "café.mp4", "cafe\u0301 2.mp4", "blank .mp4 "):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    lines = ["clip 1.mp4 \t", '"sub\\b.mp4"', "cafe\u0301.mp4", "caf\u00e9 2.mp4", "blank .mp4 "]
    found = ["clip 1.mp4", "sub/b.mp4", "café.mp4", "cafe\u0301 2.mp4", "blank .mp4 "]
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "list.txt").write_bytes("\r\n".join([*lines, " ", ""]).encode(encoding))
        assert list(read_list(tmp_path / "list.txt")) == found
    (tmp_path / "list.txt").write_bytes("caf\u00e9.mp4\n".encode("cp1252"))
    assert list(read_list(tmp_path / "list.txt")) == ["café.mp4"]
    assert list(read_list(save(tmp_path / "list.txt", "absent.mp4 "))) == ["absent.mp4"]


@pytest.mark.parametrize(
    ("name", "encoding"),
    [("Küche", "cp1252"), ("кухня", "cp1251"), ("料理", "cp932"), ("Küche", "mac_roman")],
)
def test_a_table_in_an_old_encoding_is_read_by_the_files_it_names(
    name: str, encoding: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / f"{name}.mp4").touch()
    (tmp_path / "a.csv").write_bytes(f"file;split\n{name}.mp4;Test\n".encode(encoding))
    entries = read_manifest(tmp_path / "a.csv")
    assert {file: entry.split for file, entry in entries.items()} == {f"{name}.mp4": "test"}
    assert f"not in UTF-8; read as {encoding}" in caplog.text
