from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import tarfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vatt.errors import DataError
from vatt.media.captions.clean import Caption
from vatt.media.facts import AudioFacts, MediaFacts, VideoFacts
from vatt.shards.read import ShardFolder, read_shard
from vatt.shards.record import SampleRecord
from vatt.shards.write import ShardWriter, write_index

VIDEO = VideoFacts(
    codec="h264",
    width=64,
    height=48,
    fps=Fraction(35, 4),
    frames=20,
    rotation=0,
    pix_fmt="yuv420p",
    sample_aspect=Fraction(1),
)
AUDIO = AudioFacts(codec="aac", sample_rate_hz=48_000, channels=1)


def content(number: int) -> bytes:
    return np.random.default_rng(number).bytes(1000 + 700 * number)


def record(number: int, *, split: str = "train", sound: bool = True) -> SampleRecord:
    facts = MediaFacts(
        duration_s=2.0 + number, start_s=0.0, video=VIDEO, audio=AUDIO if sound else None
    )
    return SampleRecord(
        key=f"clip-{number}",
        source=f"folder/clip {number}.mkv",
        split=split,
        facts=facts,
        source_facts=facts,
        captions=(Caption(0.0, 1.0, "Äpfel schälen"), Caption(1.0, 1.5, "then cut"))[:number],
        labels=({"start_s": 0.0, "end_s": 1.0, "action": "peel"},),
        cuts=(0.5 * number,),
        missing={} if sound else {"audio": "no sound track"},
    )


def dataset(folder: Path) -> Path:
    """Two shards: clips 0 and 1 (train, with sound), clip 2 (test, silent)."""
    with ShardWriter(folder / "shard-000000.tar") as shard:
        shard.add(record(0), content(0))
        shard.add(record(1), content(1))
    with ShardWriter(folder / "shard-000001.tar") as shard:
        (folder / "2.mp4").write_bytes(content(2))
        shard.add(record(2, split="test", sound=False), folder / "2.mp4")
    skipped = [{"source": "bad.mp4", "cause": "damaged", "reason": "bad.mp4: …"}]
    write_index(folder, made={"by": "a test"}, skipped=skipped)
    return folder


def test_what_is_stored_is_read_back(tmp_path: Path) -> None:
    data = ShardFolder.open(dataset(tmp_path))
    assert len(data) == 3
    for row in range(3):
        stored = data.read_record(row)
        expected = record(row, split="test" if row == 2 else "train", sound=row != 2)
        assert stored == replace(expected, sha256=hashlib.sha256(content(row)).hexdigest())
        assert data.read_video(row) == content(row)
        data.verify(row)


def test_the_index_knows_what_a_sampler_needs(tmp_path: Path) -> None:
    data = ShardFolder.open(dataset(tmp_path))
    assert data.column("key").tolist() == ["clip-0", "clip-1", "clip-2"]
    np.testing.assert_array_equal(data.column("duration_s"), [2.0, 3.0, 4.0])
    np.testing.assert_array_equal(data.column("fps"), [8.75] * 3)
    np.testing.assert_array_equal(data.column("has_audio"), [True, True, False])
    np.testing.assert_array_equal(data.column("captions"), [0, 1, 2])
    assert [list(cuts) for cuts in data.column("cuts")] == [[0.0], [0.5], [1.0]]
    np.testing.assert_array_equal(data.rows(), [0, 1, 2])
    np.testing.assert_array_equal(data.rows("train"), [0, 1])
    np.testing.assert_array_equal(data.rows("test"), [2])
    with pytest.raises(DataError, match=r"no video in split 'val'; it has \['test', 'train'\]"):
        data.rows("val")


def test_totals_and_skipped_files_are_written_beside_the_shards(tmp_path: Path) -> None:
    info = ShardFolder.open(dataset(tmp_path)).info
    assert (info["format_version"], info["shards"], info["videos"]) == ("1.2", 2, 3)
    assert info["hours"] == pytest.approx(9 / 3600)
    assert info["bytes"] == sum(len(content(number)) for number in range(3))
    assert info["splits"]["train"]["videos"] == 2
    assert info["missing"] == {"audio": 1}
    assert info["skipped"] == {"damaged": 1}
    assert info["made"] == {"by": "a test"}
    lines = (tmp_path / "failures.jsonl").read_text().splitlines()
    assert [json.loads(line)["source"] for line in lines] == ["bad.mp4"]


def test_any_tar_tool_reads_a_shard(tmp_path: Path) -> None:
    with tarfile.open(dataset(tmp_path) / "shard-000000.tar") as tar:
        assert tar.getnames() == ["clip-0.mp4", "clip-0.json", "clip-1.mp4", "clip-1.json"]
        member = tar.extractfile("clip-1.mp4")
        assert member is not None
        assert member.read() == content(1)
        assert all(info.mtime == 0 for info in tar)  # the same videos, the same bytes


def test_the_index_can_be_made_again_from_the_shards(tmp_path: Path) -> None:
    before = ShardFolder.open(dataset(tmp_path))
    (tmp_path / "index.parquet").unlink()
    with pytest.raises(DataError, match=r"index\.parquet: cannot be read"):
        ShardFolder.open(tmp_path)
    write_index(tmp_path, made={})
    assert ShardFolder.open(tmp_path).index.equals(before.index)


def test_a_dataset_can_be_sent_to_another_process(tmp_path: Path) -> None:
    data = pickle.loads(pickle.dumps(ShardFolder.open(dataset(tmp_path))))
    assert data.read_video(2) == content(2)


def test_an_error_while_writing_leaves_no_shard(tmp_path: Path) -> None:
    def write_two(second: Path) -> None:
        with ShardWriter(tmp_path / "shard-000000.tar") as shard:
            shard.add(record(0), content(0))
            shard.add(record(1), second)

    with pytest.raises(FileNotFoundError):
        write_two(tmp_path / "absent.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_at_the_end_of_a_shard_leaves_no_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    def write_one() -> None:
        with ShardWriter(tmp_path / "shard-000000.tar") as shard:
            shard.add(record(0), content(0))
            monkeypatch.setattr(tarfile.TarFile, "close", full)

    with pytest.raises(OSError, match="No space left"):
        write_one()
    assert list(tmp_path.iterdir()) == []


def test_a_shard_does_not_appear_before_it_is_whole(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "shard-000000.tar") as shard:
        shard.add(record(0), content(0))
        assert list(tmp_path.glob("*.tar")) == []
    assert [path.name for path in tmp_path.iterdir()] == ["shard-000000.tar"]


def test_a_folder_that_is_not_prepared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dataset\.json: missing; .*the same command finishes it"):
        ShardFolder.open(tmp_path)
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(DataError, match=r"dataset\.json: not the description"):
        ShardFolder.open(tmp_path)


@pytest.mark.parametrize(("version", "readable"), [("1.7", True), ("2.0", False), ("x", False)])
def test_only_a_newer_major_version_is_refused(
    version: str, readable: bool, tmp_path: Path
) -> None:
    path = dataset(tmp_path) / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": version}))
    if readable:
        assert len(ShardFolder.open(tmp_path)) == 3
    else:
        with pytest.raises(DataError, match=r"dataset\.json: "):
            ShardFolder.open(tmp_path)


def test_a_missing_or_short_shard_is_found_when_opening(tmp_path: Path) -> None:
    data = ShardFolder.open(dataset(tmp_path))
    path = tmp_path / "shard-000001.tar"
    os.truncate(path, 2000)
    with pytest.raises(DataError, match=r"shard-000001\.tar: found 2,000 bytes, expected at least"):
        ShardFolder.open(tmp_path)
    with pytest.raises(DataError, match="ends within clip-2"):  # it shrank after opening
        data.read_video(2)
    with pytest.raises(DataError, match="not a whole tar file"):
        list(read_shard(path))
    path.unlink()
    with pytest.raises(DataError, match=r"shard-000001\.tar: found missing"):
        ShardFolder.open(tmp_path)
    with pytest.raises(DataError, match=r"shard-000001\.tar: cannot be read"):
        data.read_video(2)


def test_changed_bytes_are_found_by_the_checksum(tmp_path: Path) -> None:
    data = ShardFolder.open(dataset(tmp_path))
    with (tmp_path / "shard-000000.tar").open("r+b") as file:
        file.seek(int(data.column("video_offset")[1]) + 5)
        file.write(b"\0")
    data.verify(0)
    with pytest.raises(DataError, match=r"clip-1\.mp4: checksum"):
        data.verify(1)


def test_an_index_cannot_point_outside_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.mkdir()
    index = ShardFolder.open(dataset(path)).index
    (tmp_path / "secret.tar").write_bytes(bytes(100_000))
    rows = [row | {"shard": "../secret.tar"} for row in index.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, index.schema), path / "index.parquet")
    with pytest.raises(DataError, match="is no name of a shard"):
        ShardFolder.open(path)


@pytest.mark.parametrize("name", ["../a.mp4", "/etc/a.mp4", "a/b.mp4", "a.b.mp4", "a.txt"])
def test_members_with_strange_names_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "shard-000000.tar"
    with tarfile.open(path, "w") as tar:
        for member in (name, name.replace(".mp4", ".json")):
            tar.addfile(tarfile.TarInfo(member), io.BytesIO())
    with pytest.raises(DataError, match="was not written by `vatt prepare`"):
        list(read_shard(path))


def test_links_and_broken_records_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "shard-000000.tar"
    link = tarfile.TarInfo("a.mp4")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    for video, text, reason in (
        (link, b"{}", "expected a pair of plain files"),
        (tarfile.TarInfo("a.mp4"), b"{}", r"a\.json: not a record of a prepared video"),
        (tarfile.TarInfo("a.mp4"), b'{"key": 1', r"a\.json: not a record of a prepared video"),
    ):
        with tarfile.open(path, "w") as tar:
            tar.addfile(video)
            info = tarfile.TarInfo("a.json")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
        with pytest.raises(DataError, match=reason):
            list(read_shard(path))
