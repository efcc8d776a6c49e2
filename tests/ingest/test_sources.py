from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from vatt.errors import DataError
from vatt.ingest.manifest import ManifestEntry
from vatt.ingest.sources import Item, Skipped, find_items, printable, without_duplicates


def empty(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def item(name: str, path: Path = Path()) -> Item:
    return Item(path=path, name=name, split="train")


def names(folder: Path, *sources: str, manifest: str | None = None) -> list[str]:
    found = find_items(
        [folder / source for source in sources or ("",)], (manifest and folder / manifest) or None
    )
    return [one.name for one in found.items]


def causes(skipped: object) -> list[tuple[str, str]]:
    assert isinstance(skipped, list)
    return sorted((one.source, one.cause) for one in skipped)


def test_videos_are_found_in_folders_by_name_with_their_split(tmp_path: Path) -> None:
    empty(tmp_path, "test/b.mp4", "validation/c.MOV", "d.webm", "z/a.mp4", "a.srt", "labels.csv")
    assert [(one.name, one.split) for one in find_items([tmp_path], None).items] == [
        ("d.webm", "train"),
        ("test/b.mp4", "test"),
        ("validation/c.MOV", "val"),
        ("z/a.mp4", "train"),
    ]


def test_every_file_is_a_video_a_caption_or_counted_by_its_suffix(tmp_path: Path) -> None:
    empty(tmp_path, "talk.mp4", "talk.srt", "talk.en.vtt", "talk.info.json", "talk.txt", "README")
    empty(
        tmp_path,
        "song.mp3",
        "other.de.srt",
        "package.json",
        "words.tsv",
        "._talk.mp4",
        "b/talk.srt",
    )
    found = find_items([tmp_path], None)
    assert [one.name for one in found.items] == ["talk.mp4"]
    assert found.caption_files == 2  # talk.info.json holds none, by its name
    assert found.other_files == {
        "(none)": 1, "AppleDouble": 1, ".json": 2, ".mp3": 1, ".srt": 2, ".tsv": 1, ".txt": 1,
    }  # fmt: skip
    assert found.lone_captions == ["b/talk.srt", "other.de.srt"]


def test_the_manifest_wins_over_the_folder_and_missing_files_are_named(tmp_path: Path) -> None:
    empty(tmp_path, "clips/test/a.mp4", "clips/test/b.mp4", "clips/odd.bin", "elsewhere.mp4")
    manifest = tmp_path / "labels.csv"
    manifest.write_text(
        "file,split\nclips/test/a.mp4,val\nclips/gone.mp4,train\nclips/odd.bin,\nelsewhere.mp4,\n"
    )
    found = find_items([tmp_path / "clips"], manifest)
    assert [(one.name, one.split, one.entry is None) for one in found.items] == [
        ("odd.bin", "train", False),  # of another suffix, but listed
        ("test/a.mp4", "val", False),
        ("test/b.mp4", "test", True),
    ]
    assert causes(found.skipped) == [("clips/gone.mp4", "not found")]
    assert found.other_files == {}


def test_lists_name_files_relative_to_themselves(tmp_path: Path) -> None:
    empty(tmp_path, "a b.mp4", "sub/c.bin", "dir.mp4/x.mp4")
    (tmp_path / "list.txt").write_text("a b.mp4\n\nsub/../sub/c.bin\r\ngone.mp4\ndir.mp4\n")
    found = find_items([tmp_path / "list.txt"], None)
    assert [one.name for one in found.items] == ["a b.mp4", "sub/c.bin"]
    assert causes(found.skipped) == [("dir.mp4", "unreadable"), ("gone.mp4", "not found")]
    (tmp_path / "list.jsonl").write_text('{"file": "a b.mp4", "split": "val"}\n')
    (one,) = find_items([tmp_path / "list.jsonl"], None).items
    assert one.split == "val"


def test_several_sources_keep_their_names_apart(tmp_path: Path) -> None:
    empty(tmp_path, "one/a.mp4", "two/a.mp4", "b.mp4")
    assert names(tmp_path, "one", "two", "b.mp4") == ["b.mp4", "one/a.mp4", "two/a.mp4"]
    empty(tmp_path, "x/b.mp4")
    with pytest.raises(DataError, match=r"b\.mp4: two of the sources"):
        names(tmp_path, "b.mp4", "x/b.mp4")


def test_sources_without_videos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        names(tmp_path, "absent")
    with pytest.raises(DataError, match="holds no video"):
        find_items([empty(tmp_path, "a.pdf")], None)


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    empty(tmp_path, "library/real/a.mp4", "outside/b.mp4")
    (tmp_path / "library/0-link").symlink_to(tmp_path / "library/real")
    (tmp_path / "library/real/up").symlink_to(tmp_path / "library")
    (tmp_path / "library/self").symlink_to("self")
    (tmp_path / "library/more").symlink_to(tmp_path / "outside")
    (tmp_path / "library/gone.mp4").symlink_to("nowhere")
    os.mkfifo(tmp_path / "library/pipe.mp4")  # opening it would wait for ever
    found = find_items([tmp_path / "library"], None)
    assert [one.name for one in found.items] == ["more/b.mp4", "real/a.mp4"]
    assert causes(found.skipped) == [("gone.mp4", "not found"), ("pipe.mp4", "unreadable")]


def test_the_folder_of_the_shards_is_not_searched(tmp_path: Path) -> None:
    empty(tmp_path, "a.mp4", "shards/.work-x/b.mp4")
    assert [one.name for one in find_items([tmp_path], None, leave_out=tmp_path / "shards").items]


def test_any_name_that_a_disk_allows_has_a_key_and_can_be_printed(tmp_path: Path) -> None:
    odd = ["a b.mp4", "caf\u00e9.mp4", "cafe\u0301.mp4", "new\nline.mp4", "-dash.mp4", "日本.mp4"]
    odd += [os.fsdecode(b"latin\xff.mp4"), "\x1b[31mred.mp4", "12:30 talk.mp4", "x" * 250 + ".mp4"]
    found = find_items([empty(tmp_path, *odd)], None)
    assert {one.name for one in found.items} == set(odd)
    keys = [one.part_key(9999) for one in found.items]
    assert len(set(keys)) == len(odd)
    assert all(len(key) <= 90 and key.replace("-", "").isalnum() for key in keys)
    assert not any(key.startswith("-") for key in keys)
    for one in found.items:
        assert printable(one.name).isprintable()
        printable(one.name).encode()
    assert item("train/Ä talk.part.1.mp4").key.startswith("train-talk-part-1-")


def test_equal_content_is_found_and_the_listed_copy_kept(tmp_path: Path) -> None:
    for name, content in [("a", b"same"), ("b", b"same"), ("c", b"diff"), ("d", b""), ("e", b"")]:
        (tmp_path / name).write_bytes(content)
    items = [item(name, tmp_path / name) for name in "abcde"]
    kept, repeats = without_duplicates(items, {})
    assert [one.name for one in kept] == ["a", "c", "d", "e"]  # nothing is not equal to nothing
    reason = f"{tmp_path / 'b'}: duplicate of a"
    assert repeats == [Skipped(source="b", cause="duplicate", reason=reason)]

    listed = [replace(one, entry=ManifestEntry() if one.name == "b" else None) for one in items]
    kept, (repeat,) = without_duplicates(listed, {})
    assert ([one.name for one in kept], repeat.source) == (["b", "c", "d", "e"], "a")


def test_of_equal_files_the_one_with_captions_is_kept(tmp_path: Path) -> None:
    for name in ("a copy.mp4", "talk.mp4", "z.mp4"):
        (tmp_path / name).write_bytes(b"same")
    (tmp_path / "talk.en.vtt").write_text("WEBVTT")
    items = find_items([tmp_path], None).items
    kept, repeats = without_duplicates(items, {})
    assert [one.name for one in kept] == ["talk.mp4"]
    assert [one.source for one in repeats] == ["a copy.mp4", "z.mp4"]


def test_content_that_is_stored_already_is_found(tmp_path: Path) -> None:
    (tmp_path / "renamed").write_bytes(b"same")
    known = {(4, hashlib.sha256(b"same").hexdigest()): "before"}
    kept, (repeat,) = without_duplicates([item("renamed", tmp_path / "renamed")], known)
    assert (kept, repeat.reason.endswith("duplicate of before")) == ([], True)
