"""Tars as video2dataset and webdataset write them become a folder that everything reads."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.data.scenes import SAID, Scene, film
from tests.media.clips import Recipe, write
from tests.media.test_remux import sound_of
from vatt.audit.check_shards import check_shard, indexed_shards, open_index
from vatt.cli.main import main
from vatt.errors import ConfigError, DataError
from vatt.media.captions.clean import Caption
from vatt.media.media_file import decode_audio, decode_frames, open_media
from vatt.media.planes import Box
from vatt.shards.read import ShardFolder
from vatt.tasks import audit
from vatt.tasks.index_shards import IndexShardsConfig, IndexShardsResult, run
from vatt.tasks.prepare import PrepareConfig
from vatt.tasks.prepare import run as prepare
from vatt.workers.process import TimeLimit

MUTANTS = 300  # tars with changed bytes, some of them cut
SCENE = Scene(seed=1)
SILENT = replace(SCENE, sound=None)
SEGMENTS = [{"start": 0.5, "end": 1.0, "text": "cook it"}]
CUE = (0.5, 1.0, "cook it")
CHUNKS = [{"timestamp": [0.5, 1.0], "text": "cook it"}]
VTT = "WEBVTT\n\n00:00.200 --> 00:01.000\n<c>cut the onions</c>\n"


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def video2dataset_json(key: str, **more: Any) -> bytes:
    """What video2dataset puts beside a video."""
    said = {
        "url": f"https://example.org/{key}",
        "key": key,
        "status": "success",
        "error_message": None,
    }
    return json.dumps(said | more, indent=4).encode()


def video2dataset_tar(path: Path, first: int, count: int) -> Path:
    """Videos with a caption for each, and the side files that it writes."""
    members: dict[str, bytes] = {}
    for number in range(first, first + count):
        key = f"{number:09d}"
        members[f"{key}.mp4"] = film(Scene(seed=number))
        members[f"{key}.txt"] = f"number {number}".encode()
        members[f"{key}.json"] = video2dataset_json(key, caption=f"number {number}")
    write_tar(path, members)
    path.with_suffix(".parquet").write_bytes(b"PAR1")
    path.with_name(f"{path.stem}_stats.json").write_text('{"successes": 3}')
    return path


def index(folder: Path, **changes: Any) -> IndexShardsResult:
    return run(
        replace(IndexShardsConfig(folder=folder, workers=1, max_bad_fraction=1.0), **changes)
    )


def captions_of(folder: Path, **members: bytes) -> tuple[Caption, ...]:
    named = {f"a.{ending.replace('_', '.')}": content for ending, content in members.items()}
    write_tar(folder / "00000.tar", {"a.mp4": film(SILENT), **named})
    index(folder)
    return ShardFolder.open(folder).read_record(0).captions


class Pipe(io.RawIOBase):
    """What a recorder writes to: it cannot go back to say how long the file became."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._file.write(data)

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self._file.close()


def without_duration(source: Path, path: Path) -> None:
    """The same packets in Matroska, as a browser records them."""
    file = Pipe(path)
    with av.open(str(source)) as whole, av.open(file, "w", format="matroska") as output:
        streams = {one.index: output.add_stream_from_template(one) for one in whole.streams}
        for packet in whole.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    file.close()


def test_tars_of_video2dataset_are_read_as_they_are(tmp_path: Path) -> None:
    tar = video2dataset_tar(tmp_path / "00000.tar", 0, 2)
    before = tar.read_bytes()
    result = index(tmp_path)
    assert (result.tars, result.read, result.videos) == (1, 1, 2)
    assert (result.skipped, result.other_members, result.problem) == ({}, {}, None)
    assert tar.read_bytes() == before
    data = ShardFolder.open(tmp_path)
    assert data.column("key").tolist() == ["000000000", "000000001"]
    assert data.column("has_audio").all()
    for row in range(2):
        assert data.read_video(row) == film(Scene(seed=row))
        data.verify(row)
        record = data.read_record(row)
        assert record.captions == (Caption(0.0, 2.0, f"number {row}"),)
        assert record.source == f"https://example.org/{row:09d}"


def test_the_writer_of_webdataset_itself_is_understood(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "00000.tar")) as writer:
        for number in range(2):
            writer.write(
                {
                    "__key__": f"some/folder/{number:05d}",
                    "mp4": film(Scene(seed=number)),
                    "txt": f"number {number}",
                    "json": {"caption": "another"},
                }
            )
    result = index(tmp_path)
    assert (result.videos, result.skipped) == (2, {})
    data = ShardFolder.open(tmp_path)
    assert data.column("key").tolist() == ["some/folder/00000", "some/folder/00001"]
    assert data.read_record(1).captions[0].text == "number 1"
    assert data.read_video(1) == film(Scene(seed=1))


def test_folders_are_splits_and_keys_stay_unique(tmp_path: Path) -> None:
    for name in ("train/00000", "train/00001", "val/00000"):
        write_tar(tmp_path / f"{name}.tar", {"0.mp4": film(SILENT)})
    index(tmp_path)
    data = ShardFolder.open(tmp_path)
    assert dict(zip(data.column("key"), data.column("split"), strict=True)) == {
        "train/0": "train",
        "train/00001/0": "train",
        "val/0": "val",
    }


def test_names_may_have_dots(tmp_path: Path) -> None:
    """No sample vanishes because of its name (webdataset/webdataset#237)."""
    video = film(SILENT)
    members = {
        "a.b.mp4": video, "a.txt": b"up to the first dot",
        "Track 2.0 (Clean).mp4": video, "Track 2.0 (Clean).txt": b"its own",
        "clip.720p.MP4": video, "clip.720p.en.vtt": VTT.encode(), "clip.720p.json": b"{}",
        "c.mp4": video, "c.caption.txt": b"webdataset's", "c.jpg": b"", "._c.mp4": b"",
        "x/v.left.mp4": video, "x/v.right.mp4": video, "x/v.txt": b"of both", "lone.txt": b"",
    }  # fmt: skip
    write_tar(tmp_path / "0.tar", members)
    result = index(tmp_path)
    data = ShardFolder.open(tmp_path)
    records = [data.read_record(row) for row in range(len(data))]
    assert {one.key: [caption.text for caption in one.captions] for one in records} == {
        "a.b": ["up to the first dot"],
        "Track 2.0 (Clean)": ["its own"],
        "clip.720p": ["cut the onions"],
        "c": ["webdataset's"],
        "x/v.left": ["of both"],
        "x/v.right": ["of both"],
    }
    assert result.other_members == {".jpg": 1, "hidden": 1, "without video": 1}
    shards = indexed_shards(open_index(tmp_path))
    findings = [one.kind for shard in shards for one in check_shard(shard, TimeLimit())]
    assert findings == []


def test_names_may_be_long_deep_and_written_in_either_form_of_unicode(tmp_path: Path) -> None:
    video, deep = film(SILENT), "/".join(["folder of a long name"] * 20)
    members = {
        "e\u0301te\u0301.mp4": video, "\u00e9t\u00e9.txt": b"of two forms",
        f"{deep}/a.mp4": video, f"{deep}/a.txt": b"far down",
        f"{'x' * 240}.mp4": video, f"{'x' * 240}.txt": b"long",
        "\u65e5\u672c.mp4": video, "\u65e5\u672c.txt": b"of other letters",
    }  # fmt: skip
    write_tar(tmp_path / "0.tar", members)
    assert index(tmp_path).skipped == {}
    data = ShardFolder.open(tmp_path)
    records = [data.read_record(row) for row in range(len(data))]
    assert {one.key: [caption.text for caption in one.captions] for one in records} == {
        "\u00e9t\u00e9": ["of two forms"],
        f"{deep}/a": ["far down"],
        "x" * 240: ["long"],
        "\u65e5\u672c": ["of other letters"],
    }
    (shard,) = indexed_shards(open_index(tmp_path))
    assert list(check_shard(shard, TimeLimit())) == []


def test_texts_of_a_sample_are_read_as_those_beside_a_file(tmp_path: Path) -> None:
    """Those with times first; without times they are of the whole video."""
    utf_16 = b"\xff\xfe" + "cook it".encode("utf-16-le")
    samples: dict[str, tuple[dict[str, Any], list[Any]]] = {
        "tsv": ({"tsv": b"start\tend\ttext\n500\t1000\tcook it\n", "txt": b"no"}, [CUE]),
        "whisper": ({"json": {"segments": SEGMENTS}, "txt": b"no"}, [CUE]),
        "list": ({"json": SEGMENTS}, [CUE]),
        "chunks": ({"json": {"chunks": CHUNKS}}, [CUE]),
        "other": ({"json": {"segments": 3, "caption": "cook it"}}, ["cook it"]),
        "several": ({"0.txt": b"cook it", "1.txt": b"stir"}, ["cook it", "stir"]),
        "languages": ({"de.txt": b"koch es", "en.txt": b"cook it"}, ["cook it"]),
        "utf-16": ({"txt": utf_16}, ["cook it"]),
    }
    members, video = dict[str, bytes](), film(SILENT)
    for name, (texts, _) in samples.items():
        members[f"{name}.mp4"] = video
        for ending, value in texts.items():
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            members[f"{name}.{ending}"] = content
    write_tar(tmp_path / "0.tar", members)
    index(tmp_path)
    data = ShardFolder.open(tmp_path)
    for row in range(len(data)):
        record = data.read_record(row)
        found = [
            one.text if one.end_s == record.facts.duration_s else (one.start_s, one.end_s, one.text)
            for one in record.captions
        ]
        assert found == samples[record.key][1], record.key


@pytest.mark.parametrize(
    ("content", "texts", "reason"),
    [
        ({"caption": ["stir the soup", "cook it", "cook it"]}, ["stir the soup", "cook it"], ""),
        ({"caption": None, "text": "cook it"}, ["cook it"], ""),
        ({"captions": [{"caption": "cook it"}, {"text": "stir"}]}, ["cook it", "stir"], ""),
        ({"caption": {"de": "koch es", "en": "cook it"}}, ["cook it"], ""),
        (["cook it"], ["cook it"], ""),
        ("cook it", [], "its .json cannot be read"),
        (None, [], "its .json is empty"),
        (42, [], "its .json: found 42, expected a text or a list of texts"),
        ({"caption": None}, [], "caption in its .json is empty"),
        ({"caption": []}, [], "caption in its .json is empty"),
        ({"caption": 7}, [], "caption in its .json: found 7, expected a text or a list of texts"),
        ({"title": "x"}, [], "no text in .json"),
        ("{broken", [], "its .json cannot be read"),
    ],
)
def test_captions_of_a_json_are_read_or_it_says_why_not(
    content: object, texts: list[str], reason: str, tmp_path: Path
) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    write_tar(tmp_path / "0.tar", {"a.mp4": film(SILENT), "a.json": text.encode()})
    index(tmp_path)
    record = ShardFolder.open(tmp_path).read_record(0)
    assert [caption.text for caption in record.captions] == texts
    assert record.missing.get("captions", "").startswith(reason)
    assert ("captions" in record.missing) == (not texts)


def test_videos_are_as_long_as_their_frames_are_shown(tmp_path: Path) -> None:
    """The audio may be longer, and the file may not say how long it is."""
    longer, silent = Recipe(frames=20, sound_s=6.0), Recipe(frames=20, audio_codec=None)
    (tmp_path / "files").mkdir()
    for name, recipe in (("a.mkv", longer), ("b.mp4", longer), ("c.mkv", silent)):
        write(tmp_path / "files" / name, recipe)
    without_duration(tmp_path / "files/a.mkv", tmp_path / "files/d.mkv")
    members = {path.name: path.read_bytes() for path in sorted((tmp_path / "files").iterdir())}
    write_tar(tmp_path / "tars/0.tar", members)
    assert index(tmp_path / "tars").skipped == {}
    data = ShardFolder.open(tmp_path / "tars")
    assert data.column("duration_s").tolist() == pytest.approx([2.0] * 4, abs=0.01)


def test_shapes_are_those_that_are_shown(tmp_path: Path) -> None:
    """Turned videos and those with wide pixels: no box of training is sideways or squeezed."""
    shapes = {"turned": (64, 48), "wide": (24, 64), "plain": (48, 64)}
    write(tmp_path / "plain.mp4", Recipe())
    write(tmp_path / "turned.mp4", Recipe(rotation=90))
    with av.open(str(tmp_path / "wide.mkv"), "w") as output:
        stream = output.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.sample_aspect_ratio = Fraction(2)
        for _ in range(10):
            output.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        output.mux(stream.encode(None))
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    write_tar(tmp_path / "tars/0.tar", {path.name: path.read_bytes() for path in files})
    index(tmp_path / "tars")
    data = ShardFolder.open(tmp_path / "tars")
    sizes = zip(data.column("height").tolist(), data.column("width").tolist(), strict=True)
    assert dict(zip(data.column("key").tolist(), sizes, strict=True)) == shapes
    for row, key in enumerate(data.column("key").tolist()):
        with open_media(data.source(row)) as media:
            planes = media.planes(np.zeros(1), lambda height, width: Box(0, 0, height, width))
        assert planes.form[:2] == shapes[key]


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_sound_beside_the_video_is_joined_when_it_is_read(container: str, tmp_path: Path) -> None:
    both = film(SCENE)
    video = film(SILENT, container=container)
    ending = {"mp4": "mp4", "matroska": "mkv"}[container]
    write_tar(tmp_path / "0.tar", {f"a.{ending}": video, "a.m4a": sound_of(both)})
    index(tmp_path)
    data = ShardFolder.open(tmp_path)
    assert data.column("has_audio").tolist() == [True]
    assert data.read_stored_video(0) == video
    data.verify(0)
    heard = decode_audio(data.read_video(0), sample_rate_hz=48_000)
    expected = decode_audio(both, sample_rate_hz=48_000)
    assert heard is not None
    assert expected is not None
    assert heard.std() == pytest.approx(expected.std(), rel=0.01)
    assert audit.run(audit.AuditConfig(folders=(tmp_path,), workers=1)).problem is None


def test_a_video_whose_sound_beside_it_is_broken_has_no_sound_and_says_why(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.mp4": film(SILENT), "a.mp3": b"no sound" * 99})
    assert index(tmp_path).missing == {"audio": 1, "captions": 1}
    data = ShardFolder.open(tmp_path)
    assert data.read_record(0).missing["audio"].startswith("a.mp3: ")
    assert data.read_video(0) == film(SILENT)


def test_timed_captions_win_over_one_text_for_the_whole(tmp_path: Path) -> None:
    found = captions_of(tmp_path, txt=b"a title", vtt=VTT.encode(), json=b'{"caption": "another"}')
    assert found == (Caption(0.2, 1.0, "cut the onions"),)


def test_subtitles_in_the_json_are_moved_to_the_clip_that_was_cut(tmp_path: Path) -> None:
    cues = [
        {"start": "00:01:00.000", "end": "00:01:03.000", "lines": ["before and", "into the clip"]},
        {"start": "00:01:03.500", "end": "00:01:03.900", "lines": ["in it"]},
        {"start": "00:01:09.000", "end": "00:01:10.000", "lines": ["behind it"]},
    ]
    said = {
        "clips": [["00:01:02.000", "00:01:04.000"]],
        "yt_meta_dict": {"subtitles": {"en": cues}},
    }
    found = captions_of(tmp_path, json=json.dumps(said).encode(), txt=b"a title")
    assert [one.text for one in found] == ["before and into the clip", "in it"]
    times = [time for one in found for time in (one.start_s, one.end_s)]
    assert times == pytest.approx([0.0, 1.0, 1.5, 1.9])


@pytest.mark.parametrize(
    "said",
    [
        b"[1, 2]",
        b"{",
        b"\xff\xfe",
        b'{"clip_subtitles": [{"start": "x"}]}',
        b'{"clips": 3}',
        b'{"clips": [[]], "subtitles": [{"start": 0, "end": 1, "lines": "x"}]}',
        b'{"subtitles": [{"start": "' + b"1:" * 300 + b'1", "end": 1, "lines": "x"}]}',
        b'{"url": "\\ud800", "caption": ["x"]}',
        b"[" * 10**5,
    ],
)
def test_a_strange_json_costs_no_more_than_its_captions(said: bytes, tmp_path: Path) -> None:
    assert captions_of(tmp_path, json=said, txt=b"a title") == (Caption(0.0, 2.0, "a title"),)


def test_captions_move_to_the_clock_of_the_frames(tmp_path: Path) -> None:
    """In a file whose frames start 0.5 s after its audio, a player's zero is the audio's."""
    late = replace(SCENE, times=[number + 5 for number in range(20)], sound=(0.0, 2.5))
    write_tar(
        tmp_path / "0.tar", {"a.mkv": film(late, container="matroska"), "a.vtt": VTT.encode()}
    )
    index(tmp_path)
    (caption,) = ShardFolder.open(tmp_path).read_record(0).captions
    assert (caption.start_s, caption.end_s) == pytest.approx((0.0, 0.5), abs=0.03)


def test_what_is_refused_is_counted_by_cause_and_named(tmp_path: Path) -> None:
    good = film(SILENT)
    path = write_tar(
        tmp_path / "00000.tar",
        {
            "a.mp4": good,
            "../../etc/b.mp4": good,
            "/c.mp4": good,
            "d.mp4": b"no video",
            "e.mp4": b"",
            "f.m4a": sound_of(film(SCENE)),
        },
    )
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("l.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    (tmp_path / "00001.tar.gz").write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / "00002.tar").write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / "00003.tar").write_bytes(path.read_bytes()[: len(good)])
    result = index(tmp_path)
    assert result.videos == 1
    assert result.skipped == {
        "compressed tar": 2,
        "damaged tar": 1,
        "strange member": 3,
        "unreadable": 2,
    }
    lines = [json.loads(line) for line in (tmp_path / "failures.jsonl").read_text().splitlines()]
    reasons = "\n".join(line["reason"] for line in lines)
    for words in ("'../../etc/b.mp4'", "'/c.mp4'", "symbolic link", "d.mp4", "unpack it"):
        assert words in reasons
    assert ShardFolder.open(tmp_path).column("key").tolist() == ["a"]
    kinds = {row["kind"] for row in audit.run(audit.AuditConfig(folders=(tmp_path,))).found}
    assert "not in the index" not in kinds


def test_too_much_refused_is_exit_code_1(tmp_path: Path, capfd) -> None:
    write_tar(tmp_path / "0.tar", {"a.mp4": film(SILENT), "b.mp4": b"no video"})
    command = ["index-shards", str(tmp_path), "--workers", "1", "--json"]
    assert main(command) == 1
    out, err = capfd.readouterr()
    assert json.loads(out)["videos"] == 1
    assert "1 of 2 were refused (1 unreadable" in " ".join(err.split())
    assert main([*command, "--max_bad_fraction", "0.5"]) == 0


def test_a_second_run_reads_only_new_and_changed_tars(tmp_path: Path) -> None:
    video2dataset_tar(tmp_path / "00000.tar", 0, 2)
    write_tar(tmp_path / "00001.tar", {"b.mp4": b"no video"})
    assert index(tmp_path).read == 2
    first = (tmp_path / "records.jsonl").read_bytes()
    again = index(tmp_path)
    assert (again.read, again.videos, again.skipped) == (0, 2, {"unreadable": 1})
    video2dataset_tar(tmp_path / "00002.tar", 2, 1)
    added = index(tmp_path)
    assert (added.read, added.videos) == (1, 3)
    assert (tmp_path / "records.jsonl").read_bytes().startswith(first)
    write_tar(tmp_path / "00001.tar", {"b.mp4": film(SILENT)})
    changed = index(tmp_path)
    assert (changed.read, changed.videos, changed.skipped) == (1, 4, {})
    (tmp_path / "00002.tar").unlink()
    assert index(tmp_path).videos == 3
    data = ShardFolder.open(tmp_path)
    assert sorted(data.column("key")) == ["000000000", "000000001", "b"]
    for row in range(3):
        assert data.read_record(row).key == data.column("key")[row]


@pytest.mark.parametrize("name", ["dataset.json", "index.parquet", "failures.jsonl"])
def test_damage_of_what_an_earlier_run_wrote_only_means_reading_anew(name, tmp_path) -> None:
    write_tar(tmp_path / "0.tar", {"a.mp4": film(SILENT)})
    index(tmp_path)
    (tmp_path / name).write_bytes(b"{")
    result = index(tmp_path)
    assert (result.read, result.videos) == (1, 1)
    assert ShardFolder.open(tmp_path).read_record(0).key == "a"


def test_a_run_that_was_killed_leaves_the_old_index_good_and_the_next_run_goes_on(tmp_path) -> None:
    video2dataset_tar(tmp_path / "00000.tar", 0, 2)
    index(tmp_path)
    with (tmp_path / "records.jsonl").open("ab") as file:
        file.write(b'{"key": "00000')  # what was being written when it was killed
    assert ShardFolder.open(tmp_path).read_record(1).key == "000000001"
    video2dataset_tar(tmp_path / "00001.tar", 2, 1)
    assert index(tmp_path).read == 1
    data = ShardFolder.open(tmp_path)
    assert [data.read_record(row).key for row in range(3)] == data.column("key").tolist()


def test_records_that_are_gone_are_missed_when_opening(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.mp4": film(SILENT)})
    index(tmp_path)
    (tmp_path / "records.jsonl").unlink()
    with pytest.raises(DataError, match=r"records\.jsonl: found missing"):
        ShardFolder.open(tmp_path)


def test_folders_without_tars_or_of_prepare_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        index(tmp_path / "absent")
    with pytest.raises(DataError, match=r"holds no \.tar"):
        index(tmp_path)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(film(SILENT))
    prepare(PrepareConfig(src=(tmp_path / "clips",), out=tmp_path / "shards", workers=1))
    with pytest.raises(ConfigError, match="made by `vatt prepare`"):
        index(tmp_path / "shards")
    (tmp_path / "shards" / "config.toml").unlink()
    with pytest.raises(ConfigError, match="has an index already"):
        index(tmp_path / "shards")


def test_records_cannot_be_read_from_elsewhere(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.mp4": film(SILENT)})
    index(tmp_path)
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"records": "../secret"}))
    with pytest.raises(DataError, match=r"records in '\.\./secret'"):
        ShardFolder.open(tmp_path)


@pytest.mark.slow
def test_an_audit_of_foreign_tars_finds_damage_and_nothing_else(tmp_path: Path) -> None:
    videos = {f"{n}.mp4": film(Scene(seed=n)) for n in range(3)}
    texts = {f"{n}.txt": SAID.encode() for n in range(3)}
    odd = {"../x.mp4": videos["0.mp4"]}
    path = write_tar(tmp_path / "train" / "00000.tar", videos | texts | odd)
    index(tmp_path)
    config = audit.AuditConfig(folders=(tmp_path,), workers=1)
    result = audit.run(config)
    assert {row["kind"] for row in result.found} - {"not looked at"} == {"refused member"}
    assert result.problem is None
    data = ShardFolder.open(tmp_path)
    with path.open("r+b") as file:
        file.seek(int(data.column("video_offset")[1]) + 900)
        file.write(b"\0\0\0\0")
    result = audit.run(config)
    assert {row["kind"] for row in result.found} >= {"checksum", "refused member"}
    assert result.problem is not None


def test_a_model_trains_on_foreign_tars(tmp_path: Path) -> None:
    video2dataset_tar(tmp_path / "shards" / "00000.tar", 0, 4)
    write_tar(
        tmp_path / "shards" / "00001.tar",
        {"v.webm": film(SILENT, container="matroska"), "v.m4a": sound_of(film(SCENE))},
    )
    index(tmp_path / "shards")
    command = ["pretrain", "--preset", "tiny", "--data.shards", str(tmp_path / "shards")]
    options = ["--data.workers", "0", "--train.threads", "1", "--train.steps", "2"]
    assert main([*command, *options, "--data.batch_size", "4", "--out", str(tmp_path / "run")]) == 0
    *_, line = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = json.loads(line)
    assert np.isfinite([losses["loss"], losses["video_audio"], losses["video_text"]]).all()


def test_frames_of_a_foreign_video_are_those_of_the_file(tmp_path: Path) -> None:
    scene = replace(SCENE, options={"bf": "2", "g": "50"})
    write_tar(tmp_path / "0.tar", {"a.mkv": film(scene, container="matroska")})
    index(tmp_path)
    times = np.arange(20) / 10
    stored = decode_frames(ShardFolder.open(tmp_path).read_video(0), times, size=(48, 64))
    own = decode_frames(film(scene, container="matroska"), times, size=(48, 64))
    np.testing.assert_array_equal(stored, own)


@pytest.mark.slow
def test_mutated_tars_stop_neither_the_index_nor_the_audit(tmp_path: Path) -> None:
    """Each has two videos: what is not in the index afterwards is named, by its tar."""
    members = {
        "a.mp4": film(replace(SCENE, frames=5, sound=(0.0, 0.5))),
        "a.json": video2dataset_json("a", caption=SAID),
        "b.mkv": film(replace(SCENE, frames=5, sound=None), container="matroska"),
        "b.vtt": VTT.encode(),
    }
    content = write_tar(tmp_path / "good.tar", members).read_bytes()
    (tmp_path / "good.tar").unlink()
    rng = np.random.default_rng(0)
    for number in range(MUTANTS):
        changed = np.frombuffer(content, np.uint8).copy()
        for place in rng.integers(len(changed), size=rng.integers(1, 20)):
            changed[place] = rng.integers(256)
        end = rng.integers(len(changed)) if number % 4 == 0 else len(changed)
        (tmp_path / f"{number:05d}.tar").write_bytes(changed[:end].tobytes())
    result = index(tmp_path, workers=2)
    data = ShardFolder.open(tmp_path)
    tars = data.column("shard").tolist()
    lines = (tmp_path / "failures.jsonl").read_text().splitlines()
    failed = [json.loads(line)["tar"] for line in lines]
    for number in range(MUTANTS):
        name = f"{number:05d}.tar"
        assert tars.count(name) == 2 or name in failed
    for row in range(result.videos):
        data.verify(row)
        assert data.read_record(row).key == data.column("key")[row]
    checked = audit.run(audit.AuditConfig(folders=(tmp_path,), workers=2)).checked
    assert checked["videos"] == {"expected": result.videos, "checked": result.videos}
