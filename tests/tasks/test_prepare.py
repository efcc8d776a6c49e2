from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.media.clips import Recipe, numbers, write
from vatt.audit.check_shards import check_index, check_shard, indexed_shards, open_index
from vatt.errors import ConfigError, DataError
from vatt.media.media_file import decode_frames
from vatt.shards.read import ShardFolder
from vatt.tasks.prepare import PrepareConfig, PreparePreview, PrepareResult
from vatt.tasks.prepare import run as run_prepare
from vatt.workers.process import TimeLimit

FITS = Recipe(frames=20)
OTHER = replace(FITS, options={"bf": "2"}, sample_rate_hz=44_100)
SRT = "1\n00:00:00,500 --> 00:00:01,500\nslicing onions\n"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five good videos, one of them of another form and one without sound; one bad file."""
    folder = tmp_path_factory.mktemp("library")
    for split in ("train", "test"):
        (folder / split).mkdir()
    write(folder / "train/a.mp4", FITS)
    write(folder / "train/b.mkv", OTHER)
    write(folder / "train/c.mp4", replace(FITS, audio_codec=None))
    write(folder / "test/d.mp4", replace(FITS, flash=3))
    write(folder / "test/e.mp4", replace(FITS, frames=30))
    (folder / "train/bad.mp4").write_bytes(b"\0" * 5000)
    (folder / "train/a.srt").write_text(SRT)
    (folder / "labels.csv").write_text(
        "file,kind,start_s,end_s,split,action\n"
        "train/a.mp4,label,0,1,train,slice\ntrain/a.mp4,cut,1,1,train,\ntest/e.mp4,,,,val,\n"
    )
    return folder


def run(settings: PrepareConfig) -> PrepareResult:
    result = run_prepare(settings)
    assert isinstance(result, PrepareResult)
    return result


def config(library: Path, out: Path, **changes: object) -> PrepareConfig:
    values = PrepareConfig(
        src=(library,),
        out=out,
        manifest=library / "labels.csv",
        copy=True,
        workers=2,
        max_bad_fraction=0.5,
    )
    return replace(values, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def prepared(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared")
    run(config(library, out))
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard-*.tar"))}


def test_a_folder_becomes_a_dataset_with_captions_labels_cuts_and_splits(prepared: Path) -> None:
    data = ShardFolder.open(prepared)
    records = [data.read_record(row) for row in range(len(data))]
    assert [(one.source, one.split) for one in records] == [
        ("test/d.mp4", "test"),
        ("test/e.mp4", "val"),
        ("train/a.mp4", "train"),
        ("train/b.mkv", "train"),
        ("train/c.mp4", "train"),
    ]
    sliced = records[2]
    assert [caption.text for caption in sliced.captions] == ["slicing onions"]
    assert sliced.labels == ({"start_s": 0.0, "end_s": 1.0, "action": "slice"},)
    assert sliced.cuts == (1.0,)
    assert data.column("has_audio").tolist() == [True, True, True, True, False]
    for row in range(len(data)):
        data.verify(row)
        frames = decode_frames(data.read_video(row), np.arange(20) / 10, size=(48, 64))
        assert numbers(frames) == list(range(20))


def test_fitting_files_are_stored_byte_for_byte_and_only_those(
    library: Path, prepared: Path
) -> None:
    data = ShardFolder.open(prepared)
    for row in range(len(data)):
        record = data.read_record(row)
        source = (library / record.source).read_bytes()
        assert (data.read_video(row) == source) == (record.source != "train/b.mkv")
    encoded = data.read_record(3).facts
    assert encoded.audio is not None
    assert (encoded.audio.codec, encoded.audio.sample_rate_hz) == ("aac", 48_000)


def test_what_was_skipped_is_counted_and_named(prepared: Path) -> None:
    info = ShardFolder.open(prepared).info
    assert info["skipped"] == {"unreadable": 1}
    assert info["missing"] == {"audio": 1, "captions": 4}
    (skipped,) = map(json.loads, (prepared / "failures.jsonl").read_text().splitlines())
    assert skipped["source"] == "train/bad.mp4"
    assert "cannot be opened" in skipped["reason"]


def test_the_same_command_again_changes_nothing(library: Path, prepared: Path) -> None:
    before = contents(prepared)
    result = run(config(library, prepared))
    assert (result.videos, result.skipped) == (5, {"unreadable": 1})
    assert contents(prepared) == before


def padded(folder: Path, *names: str) -> Path:
    """Videos of 0.6 MB each, most of it an MP4 box that players skip: two fill a small shard."""
    folder.mkdir()
    for name in names:
        with write(folder / name, FITS).open("ab") as file:
            content = name.encode().ljust(600_000 - 8)  # no two files are equal
            file.write((600_000).to_bytes(4, "big") + b"free" + content)
    return folder


def test_an_interrupted_run_continues_to_the_same_shards(tmp_path: Path) -> None:
    source, out = padded(tmp_path / "videos", "a.mp4", "b.mp4", "c.mp4"), tmp_path / "out"
    settings = PrepareConfig(src=(source,), out=out, copy=True, shard_megabytes=1, workers=1)
    run(settings)
    whole = contents(out)
    assert ShardFolder.open(out).column("shard").tolist() == [
        "shard-000000.tar",
        "shard-000000.tar",
        "shard-000001.tar",
    ]
    # As a killed run leaves it: an unfinished shard, work files, no index.
    (out / "shard-000001.tar").rename(out / "shard-000001.tar.part")
    (out / ".work-x").mkdir()
    (out / ".work-x" / "a.mp4").touch()
    for name in ("index.parquet", "dataset.json"):
        (out / name).unlink()
    with pytest.raises(DataError, match="the same command finishes it"):
        ShardFolder.open(out)
    run(settings)
    assert contents(out) == whole
    assert not list(out.glob("*.part"))
    assert not list(out.glob(".work-*"))


def test_new_videos_are_added_in_new_shards(tmp_path: Path) -> None:
    source, out = tmp_path / "videos", tmp_path / "out"
    source.mkdir()
    write(source / "a.mp4", FITS)
    settings = PrepareConfig(src=(source,), out=out, copy=True, workers=1)
    run(settings)
    before = contents(out)
    write(source / "b.mp4", OTHER)
    assert run(settings).videos == 2
    after = contents(out)
    assert {name: after[name] for name in before} == before
    assert ShardFolder.open(out).column("shard").tolist() == sorted(after)


def test_what_was_skipped_is_tried_again_when_it_has_changed_or_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "videos", tmp_path / "out"
    source.mkdir()
    write(source / "a.mp4", FITS)
    (source / "b.mp4").write_bytes(b"half a download")
    settings = PrepareConfig(src=(source,), out=out, copy=True, workers=1, max_bad_fraction=0.5)
    assert run(settings).skipped == {"unreadable": 1}
    with monkeypatch.context() as patched:
        patched.setattr("vatt.ingest.run.prepare_item", print)  # would fail otherwise
        result = run(settings)
    assert (result.skipped, result.changed) == ({"unreadable": 1}, 0)
    assert run(replace(settings, retry_failed=True)).skipped == {"unreadable": 1}
    write(source / "b.mp4", OTHER)  # a copy that was finished since
    result = run(settings)
    assert (result.videos, result.skipped, result.changed) == (2, {}, 1)


def video(path: Path, frames: int, note: bytes = b"") -> Path:
    """A video with some bytes that players skip."""
    with write(path, replace(FITS, frames=frames)).open("ab") as file:
        file.write((16).to_bytes(4, "big") + b"free" + note.ljust(8))
    return path


@pytest.fixture
def second(tmp_path: Path) -> tuple[Path, PrepareConfig]:
    """A folder that was prepared once, and the command that prepared it."""
    source = tmp_path / "videos"
    source.mkdir()
    for number, name in enumerate(("a.mp4", "b.mp4", "c.mp4")):
        video(source / name, 20 + number)
    (source / "b.srt").write_text(SRT)
    settings = PrepareConfig(src=(source,), out=tmp_path / "out", copy=True, workers=1)
    assert run(settings).changed == 0
    return source, settings


def stored(folder: Path) -> dict[str, tuple[float, list[str], str]]:
    """Source → seconds, captions and split of what is stored of it; the audit finds no fault."""
    data = ShardFolder.open(folder)
    assert not list(check_index(open_index(folder)))
    assert not [
        one
        for shard in indexed_shards(open_index(folder))
        for one in check_shard(shard, TimeLimit())
    ]
    found = dict[str, tuple[float, list[str], str]]()
    for row in range(len(data)):
        data.verify(row)
        record = data.read_record(row)
        assert record.source not in found
        texts = [caption.text for caption in record.captions]
        found[record.source] = round(record.facts.duration_s, 1), texts, record.split
    return found


def test_what_has_changed_since_is_prepared_again_and_nothing_else(tmp_path: Path) -> None:
    """Done means these bytes, these captions and these words of the manifest, not this name."""
    source = tmp_path / "videos"
    source.mkdir()
    names = ("added", "bytes", "corrected", "manifest", "removed", "replaced", "same", "unread")
    for number, name in enumerate(names):
        video(source / f"{name}.mp4", 20 + number)
        if name in ("corrected", "removed", "same"):
            (source / f"{name}.srt").write_text(SRT)
    labels = source / "labels.csv"
    labels.write_text("file,split\nmanifest.mp4,train\n")
    settings = PrepareConfig(
        src=(source,), out=tmp_path / "out", copy=True, workers=1, manifest=labels
    )
    run(settings)
    before = stored(settings.out)

    (source / "added.en.srt").write_text(SRT)
    video(source / "bytes.mp4", 21, b"changed")  # of the same size
    (source / "corrected.srt").write_text(SRT.replace("slicing", "dicing"))
    labels.write_text("file,split\nmanifest.mp4,Test\n")
    (source / "removed.srt").unlink()
    video(source / "replaced.mp4", 35)
    (source / "unread.srt").write_text("no times at all")
    assert run(settings).changed == 7
    assert stored(settings.out) == {
        "added.mp4": (before["added.mp4"][0], ["slicing onions"], "train"),
        "bytes.mp4": before["bytes.mp4"],
        "corrected.mp4": (before["corrected.mp4"][0], ["dicing onions"], "train"),
        "manifest.mp4": (before["manifest.mp4"][0], [], "test"),
        "removed.mp4": (before["removed.mp4"][0], [], "train"),
        "replaced.mp4": (3.5, [], "train"),
        "same.mp4": before["same.mp4"],
        "unread.mp4": before["unread.mp4"],
    }
    after = contents(settings.out)
    assert run(settings).changed == 0
    assert contents(settings.out) == after
    moved = labels.rename(source / "moved.csv")
    assert run(replace(settings, manifest=moved)).changed == 0
    with pytest.raises(ConfigError, match=r"manifest: found 'none', expected '.*moved\.csv'"):
        run(replace(settings, manifest=None))


def test_caption_files_that_were_not_read_are_named_in_every_run(
    second: tuple[Path, PrepareConfig],
) -> None:
    source, settings = second
    (source / "a.scc").write_text("Scenarist_SCC V1.0")
    (source / "c.en.srt").write_text("no times at all")
    for changed in (2, 0):
        result = run(settings)
        assert (result.changed, result.caption_files) == (changed, 3)
        first, other = result.unread_captions
        assert first.startswith("a.scc: captions of a in a format that is not read (Scenarist)")
        assert other == "c.en.srt: found no timed text, expected captions in a known format"


def test_captions_of_a_duplicate_are_named_when_the_copy_without_them_is_stored(
    second: tuple[Path, PrepareConfig],
) -> None:
    source, settings = second
    (source / "z.mp4").write_bytes((source / "a.mp4").read_bytes())
    assert run(settings).unread_captions == []
    (source / "z.srt").write_text(SRT)
    for _ in range(2):
        result = run(settings)
        assert result.unread_captions == ["z.srt: of a duplicate: not read"]


def test_new_times_of_the_same_bytes_change_nothing(second: tuple[Path, PrepareConfig]) -> None:
    source, settings = second
    before = contents(settings.out)
    for path in source.iterdir():
        os.utime(path, ns=(1, 10**18))
    for _ in range(2):
        assert run(settings).changed == 0
        assert contents(settings.out) == before


def test_a_folder_of_an_earlier_version_goes_on_without_being_made_anew(
    second: tuple[Path, PrepareConfig],
) -> None:
    source, settings = second
    before = contents(settings.out)
    (settings.out / "sources.jsonl").unlink()  # earlier versions wrote none
    assert run(settings).changed == 0
    assert contents(settings.out) == before

    (settings.out / "sources.jsonl").unlink()
    (source / "a.srt").write_text(SRT)  # it had none
    write(source / "c.mp4", replace(FITS, frames=35))
    assert run(settings).changed == 2
    assert {name: texts for name, (_, texts, _) in stored(settings.out).items()} == {
        "a.mp4": ["slicing onions"], "b.mp4": ["slicing onions"], "c.mp4": [],
    }  # fmt: skip


def test_a_changed_file_that_cannot_be_read_is_named_and_no_longer_stored(
    second: tuple[Path, PrepareConfig],
) -> None:
    source, settings = second
    (source / "a.mp4").write_bytes(b"half a download")
    result = run(replace(settings, max_bad_fraction=0.5))
    assert (result.changed, result.videos, result.skipped) == (1, 2, {"unreadable": 1})
    assert sorted(stored(settings.out)) == ["b.mp4", "c.mp4"]
    write(source / "a.mp4", OTHER)
    assert run(settings).skipped == {}
    assert sorted(stored(settings.out)) == ["a.mp4", "b.mp4", "c.mp4"]


def test_a_copy_is_stored_once_the_other_is_another_video(
    second: tuple[Path, PrepareConfig],
) -> None:
    source, settings = second
    shutil.copy(source / "a.mp4", source / "d.mp4")
    assert run(settings).duplicates == 1
    assert run(settings).duplicates == 1
    video(source / "a.mp4", 35)
    result = run(settings)
    assert (result.videos, result.duplicates, result.changed) == (4, 0, 1)
    assert stored(settings.out)["a.mp4"][0] > stored(settings.out)["d.mp4"][0]


@pytest.mark.parametrize("stop", ["_store", "ShardWriter.copy", "ShardWriter.add", "write_index"])
def test_a_run_killed_over_changed_sources_goes_on(
    stop: str, second: tuple[Path, PrepareConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, settings = second
    write(source / "a.mp4", replace(FITS, frames=35))

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"vatt.ingest.run.{stop}", killed)
        with pytest.raises(KeyboardInterrupt):
            run(settings)
    run(settings)
    assert stored(settings.out)["a.mp4"][0] == 3.5
    assert len(stored(settings.out)) == 3


def test_parts_of_a_changed_video_are_all_replaced(tmp_path: Path) -> None:
    source = tmp_path / "videos"
    source.mkdir()
    write(source / "long.mp4", replace(FITS, frames=80))
    write(source / "other.mp4", FITS)
    settings = PrepareConfig(src=(source,), out=tmp_path / "out", part_minutes=0.05, workers=1)
    assert (run(settings).videos, run(settings).parts) == (2, 4)
    write(source / "long.mp4", replace(FITS, frames=50))
    result = run(settings)
    assert (result.videos, result.parts, result.changed) == (2, 3, 1)
    assert ShardFolder.open(settings.out).column("duration_s").sum() == pytest.approx(7, abs=0.1)


def test_too_many_bad_videos_fail_the_command_but_keep_the_good(
    library: Path, tmp_path: Path
) -> None:
    result = run(config(library, tmp_path, max_bad_fraction=0.1))
    words = r"1 of 6 videos were skipped \(1 unreadable; first: .*bad.*, expected at most 10%"
    assert result.problem
    assert re.search(words, result.problem)
    assert len(ShardFolder.open(tmp_path)) == 5


def test_equal_content_is_stored_once_and_is_no_fault(tmp_path: Path) -> None:
    source, out = tmp_path / "videos", tmp_path / "out"
    source.mkdir()
    first = write(source / "b.mp4", FITS)
    shutil.copy(first, source / "c.mp4")
    settings = PrepareConfig(src=(source,), out=out, workers=1, max_bad_fraction=0.0)
    result = run(settings)
    assert (result.sources, result.videos, result.duplicates, result.skipped) == (2, 1, 1, {})
    assert result.problem is None
    (line,) = map(json.loads, (out / "failures.jsonl").read_text().splitlines())
    assert (line["source"], line["cause"]) == ("c.mp4", "duplicate")
    assert line["reason"].endswith("duplicate of b.mp4")
    first.rename(source / "a.mp4")  # what is stored is known by its content
    result = run(settings)
    assert (result.videos, result.duplicates) == (1, 2)


def test_a_dry_run_says_what_is_to_do_and_writes_nothing(library: Path, tmp_path: Path) -> None:
    plan = run_prepare(config(library, tmp_path / "out", dry_run=True))
    assert isinstance(plan, PreparePreview)
    assert (plan.sources, plan.to_prepare, plan.stored) == (6, 5, 0)
    assert plan.skipped == {"unreadable": 1}
    assert plan.hours == pytest.approx((4 * 2.0 + 3.0) / 3600, rel=0.02)  # sound rounds up
    assert not (tmp_path / "out").exists()


def test_folders_of_other_programs_are_refused(library: Path, tmp_path: Path) -> None:
    (tmp_path / "00000.tar").touch()
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match=r"00000\.tar .* not written by `vatt prepare`"):
            run(config(library, tmp_path, overwrite=overwrite))
    (tmp_path / "config.toml").write_text("seed = 3\n")
    with pytest.raises(ConfigError, match="not of `vatt prepare`"):
        run(config(library, tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.tar", "config.toml"]


def test_other_settings_need_another_folder_or_overwrite(library: Path, prepared: Path) -> None:
    with pytest.raises(ConfigError, match=r"short_side: found 32, expected 256 as in .*; choose"):
        run(config(library, prepared, short_side=32))


def test_overwrite_begins_anew(tmp_path: Path) -> None:
    source, out = tmp_path / "videos", tmp_path / "out"
    source.mkdir()
    write(source / "a.mp4", FITS)
    settings = PrepareConfig(src=(source,), out=out, copy=True, workers=1)
    run(settings)
    assert run(replace(settings, short_side=32, overwrite=True)).videos == 1
    assert ShardFolder.open(out).column("height").tolist() == [32]


def test_the_number_of_processes_changes_no_bytes(
    library: Path, prepared: Path, tmp_path: Path
) -> None:
    run(config(library, tmp_path, workers=1))
    assert contents(tmp_path) == contents(prepared)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"src": ()}, "src: found nothing"),
        ({"gop": 0}, "gop: found 0, expected >= 1"),
        ({"fps": 0.0}, 'fps: found 0.0, expected 0 < fps <= 240, or "source"'),
        ({"short_side": 2}, "short_side: found 2"),
        ({"max_bad_fraction": 2.0}, "max_bad_fraction: found 2.0"),
    ],
)
def test_impossible_settings_are_refused(
    changes: dict[str, object], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=reason):
        config(tmp_path, tmp_path, **changes)
