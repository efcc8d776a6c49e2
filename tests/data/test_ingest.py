from __future__ import annotations

import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from tests.media.clips import Recipe, write
from vatt.data.ingest import Failure, Item, Prepared, find_items, outcomes, prepare_item
from vatt.data.manifest import ManifestEntry
from vatt.errors import DataError
from vatt.media.captions import Caption
from vatt.media.encode import StoredForm

FORM = StoredForm(short_side=256, fps=Fraction(10), gop=16)
PLAIN = Recipe(frames=20)


def empty(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def item(path: Path, **changes: object) -> Item:
    return replace(Item(path=path, name=path.name, split="train"), **changes)  # type: ignore[arg-type]


def prepared(one: Item, folder: Path, *, copy: bool = True) -> Prepared:
    outcome = prepare_item(one, form=FORM, copy=copy, folder=folder)
    assert isinstance(outcome, Prepared), outcome
    return outcome


def test_videos_are_found_in_folders_by_name_with_their_split(tmp_path: Path) -> None:
    names = ("test/b.mp4", "validation/c.MOV", "d.webm", "z/a.mp4", "a.srt", "labels.csv")
    items, absent = find_items([empty(tmp_path, *names)], None)
    assert [(one.name, one.split) for one in items] == [
        ("d.webm", "train"),
        ("test/b.mp4", "test"),
        ("validation/c.MOV", "val"),
        ("z/a.mp4", "train"),
    ]
    assert absent == []


def test_the_manifest_wins_over_the_folder_and_missing_files_are_named(tmp_path: Path) -> None:
    empty(tmp_path, "clips/test/a.mp4", "clips/test/b.mp4")
    manifest = tmp_path / "labels.csv"
    manifest.write_text("file,split\nclips/test/a.mp4,val\nclips/gone.mp4,train\n")
    items, absent = find_items([tmp_path / "clips"], manifest)
    assert [(one.name, one.split) for one in items] == [
        ("test/a.mp4", "val"),
        ("test/b.mp4", "test"),
    ]
    assert [(one.entry is None) for one in items] == [False, True]
    assert [(failure.source, failure.cause) for failure in absent] == [
        ("clips/gone.mp4", "not found")
    ]


def test_several_sources_keep_their_names_apart(tmp_path: Path) -> None:
    empty(tmp_path, "one/a.mp4", "two/a.mp4", "b.mp4")
    items, _ = find_items([tmp_path / "one", tmp_path / "two", tmp_path / "b.mp4"], None)
    assert [one.name for one in items] == ["b.mp4", "one/a.mp4", "two/a.mp4"]
    with pytest.raises(DataError, match=r"b\.mp4: two of the sources"):
        find_items([tmp_path / "b.mp4", tmp_path / "b.mp4"], None)


def test_sources_without_videos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        find_items([tmp_path / "absent"], None)
    with pytest.raises(DataError, match="holds no video"):
        find_items([empty(tmp_path, "a.txt")], None)


def test_keys_are_readable_unique_and_fit_for_tar_members() -> None:
    names = ["train/Ä talk.part.1.mp4", "train/B talk.part.1.mp4", "x" * 300 + ".mp4", "日本.mp4"]
    keys = [Item(path=Path(name), name=name, split="train").key for name in names]
    assert len(set(keys)) == len(names)
    assert keys[0].startswith("train-talk-part-1-")
    assert all(len(key) <= 90 and key.replace("-", "").isalnum() for key in keys)


def test_a_fitting_file_is_kept_and_others_are_encoded(tmp_path: Path) -> None:
    fits = write(tmp_path / "fits.mp4", PLAIN)
    other = write(tmp_path / "other.mp4", replace(PLAIN, options={"bf": "2"}))
    kept = prepared(item(fits), tmp_path)
    assert (kept.video, kept.temporary) == (fits, False)
    for one, copy in ((item(fits), False), (item(other), True)):
        encoded = prepared(one, tmp_path, copy=copy)
        assert encoded.temporary
        assert encoded.video.name == f"{one.key}.mp4"
        assert encoded.record.facts.duration_s == pytest.approx(2.0)


def test_times_move_from_the_players_clock_to_the_videos(tmp_path: Path) -> None:
    # The sound starts at once, the first frame 0.7 s later: a player's zero is the sound's.
    path = write(tmp_path / "a.mkv", replace(PLAIN, video_starts_s=0.7))
    (tmp_path / "a.vtt").write_text(
        "WEBVTT\n\n00:00.200 --> 00:00.600\ngone\n\n00:00.500 --> 00:01.700\ncut at the start\n\n"
        "00:02.500 --> 00:09.000\ncut at the end\n"
    )
    labels = [
        {"start_s": 1.0, "end_s": 2.0, "action": "stand"},
        {"start_s": 8.0, "end_s": 9.0, "action": "after the end"},
    ]
    entry = ManifestEntry(labels=labels, cuts=[0.5, 1.7, 5.0])
    record = prepared(item(path, entry=entry), tmp_path).record
    assert [(c.text, round(c.start_s, 3), round(c.end_s, 3)) for c in record.captions] == [
        ("cut at the start", 0.0, 1.0),
        ("cut at the end", 1.8, 2.0),
    ]
    (label,) = record.labels
    assert label["action"] == "stand"
    assert (label["start_s"], label["end_s"]) == pytest.approx((0.3, 1.3))
    assert record.cuts == pytest.approx((1.0,))


def test_what_is_missing_is_said_with_its_reason(tmp_path: Path) -> None:
    silent = write(tmp_path / "silent.mp4", replace(PLAIN, audio_codec=None))
    (tmp_path / "silent.srt").write_text("no timed text")
    missing = prepared(item(silent), tmp_path).record.missing
    assert missing["audio"] == "no sound track"
    assert "silent.srt: found no timed text" in missing["captions"]

    (tmp_path / "silent.en.vtt").write_text("WEBVTT\n\n00:00.500 --> 00:01.000\nhello\n")
    record = prepared(item(silent), tmp_path).record  # the next sidecar is taken instead
    assert record.captions == (Caption(0.5, 1.0, "hello"),)
    assert list(record.missing) == ["audio"]


def test_bad_files_fail_with_a_cause_to_count_and_a_reason_to_read(tmp_path: Path) -> None:
    good = write(tmp_path / "good.mp4", replace(PLAIN, frames=100, audio_codec=None)).read_bytes()
    unreadable, cut = tmp_path / "unreadable.mp4", tmp_path / "cut.mp4"
    unreadable.write_bytes(b"\0" * 1000)
    cut.write_bytes(good[: len(good) * 3 // 4])
    causes = {}
    for path in (unreadable, cut):
        for copy in (True, False):
            failure = prepare_item(item(path), form=FORM, copy=copy, folder=tmp_path)
            assert isinstance(failure, Failure)
            assert path.name in failure.reason
            causes[path.name] = failure.cause
    assert causes == {"unreadable.mp4": "unreadable", "cut.mp4": "damaged"}


def name_or_die(one: Item) -> Failure:
    """A job for the pool: some items end their process, as a crashing decoder does."""
    if one.name.startswith("crash"):
        os._exit(11)
    return Failure(source=one.name, cause="seen", reason="")


def test_a_dying_process_costs_only_its_item_and_the_order_is_kept() -> None:
    names = ["a", "crash", "b", "c"]
    items = [Item(path=Path(name), name=name, split="train") for name in names]
    found = list(outcomes(items, name_or_die, workers=2))
    assert [outcome.source for outcome in found if isinstance(outcome, Failure)] == names
    causes = [outcome.cause for outcome in found if isinstance(outcome, Failure)]
    assert causes == ["seen", "crashed the decoder", "seen", "seen"]
