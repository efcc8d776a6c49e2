"""What a run may be evaluated on, and where a clip lies in a whole video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.public_data import official
from tests.public_data.official import write
from vatt.errors import ConfigError, DataError
from vatt.public_data.catalogue import DATASETS, read_folder
from vatt.public_data.checking import check
from vatt.public_data.choice import DatasetChoice, chosen_folder, found_files
from vatt.public_data.preparing import how_much, refuse_trained_on, split_with


def choice(folder: Path, name: str = "ucf101", **changes: Any) -> DatasetChoice:
    return DatasetChoice(dataset=name, dataset_dir=folder, **changes)


def trained(folder: Path, name: str, number: int) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text(f'dataset = "{name}"\ndataset_split = {number}\n')
    return folder


def test_a_run_is_not_tested_on_files_of_the_split_that_it_was_trained_on(tmp_path):
    folder = write(tmp_path / "ucf", official.UCF, official.UCF_MEDIA)
    one, two = choice(folder), choice(folder, dataset_split=2)
    run = trained(tmp_path / "run", "ucf101", 1)
    found = chosen_folder(one)
    refuse_trained_on(run, one, found, "test")
    with pytest.raises(DataError, match=r"1 files of test, split 2, .*ApplyEyeMakeup_g08_c01"):
        refuse_trained_on(run, two, found, "test")
    refuse_trained_on(run, choice(folder, dataset_split=2, allow_leak=True), found, "test")
    refuse_trained_on(trained(tmp_path / "run", "hmdb51", 1), two, found, "test")
    refuse_trained_on(tmp_path / "pretrained", two, found, "test")
    with pytest.raises(ConfigError, match=r"found 3, expected one of those .*: 1, 2"):
        chosen_folder(choice(folder, dataset_split=3))


def test_results_say_how_many_of_the_listed_files_were_there(tmp_path):
    folder = write(tmp_path, official.UCF, official.UCF_MEDIA[:3])
    assert how_much(chosen_folder(choice(folder)), 1, "test") == {
        "name": "ucf101", "split_number": 1, "files_listed": 2, "files_found": 1,
    }  # fmt: skip


def test_the_split_that_judges_is_one_with_labels_or_captions(tmp_path):
    folder = write(tmp_path, {"youcookii_annotations_trainval.json": official.YOUCOOK2})
    found = read_folder(DATASETS["youcook2"], folder)
    assert split_with(found, 1, "caption") == "val"
    with pytest.raises(DataError, match="no label in test or val"):
        split_with(found, 1, "label")


def test_a_whole_video_gives_its_clips_to_one_split_only(tmp_path):
    text = "label,youtube_id,time_start,time_end,split\n"
    rows = "x,a_1aaaaaaaa,1,2,train\ny,a_1aaaaaaaa,2,3,train\nz,a_1aaaaaaaa,3,4,val\n"
    write(tmp_path, {"t.csv": text + rows})
    (tmp_path / "a_1aaaaaaaa.mp4").write_bytes(official.video(5.0))
    found = found_files(read_folder(DATASETS["kinetics400"], tmp_path), 1)
    (item,) = found.items
    assert item.entry is not None
    assert [(one["label"], one["start_s"]) for one in item.entry.labels] == [("x", 1), ("y", 2)]
    assert [(one.cause, "train" in one.reason) for one in found.skipped] == [("duplicate", True)]


def test_files_of_a_hidden_test_are_prepared_only_where_nothing_needs_to_be_known(tmp_path):
    lists = {
        "train.csv": official.KINETICS,
        "test.csv": "youtube_id,time_start,time_end,split\nddddddddddd,0,10,test\n",
    }
    names = ("-KbXM0WRkYA_000049_000059.mp4", "ddddddddddd_000000_000010.mp4")
    found = read_folder(DATASETS["kinetics400"], write(tmp_path, lists, names))
    assert [one.split for one in found_files(found, 1).items] == ["train", "test"]
    assert [one.split for one in found_files(found, 1, known_only=True).items] == ["train"]


def test_captions_that_cannot_be_had_are_counted_because_recalls_depend_on_the_pool(tmp_path):
    write(tmp_path, {"MSRVTT_data.json": official.MSRVTT}, ("video2.mp4",))
    problems = check(read_folder(DATASETS["msrvtt"], tmp_path), workers=1).problems
    assert any(one.startswith("test: captions of files that are there: 2 of 4") for one in problems)


def test_audio_that_has_none_is_unreadable_and_odd_names_are_shown_escaped(tmp_path):
    write(tmp_path, {"esc50.csv": official.ESC50}, ("1-100-A-0.wav",))
    (tmp_path / "1-101-A-1.wav").write_bytes(official.wave()[:44])
    (tmp_path / "1-114-A-14.wav").write_bytes(b"no audio")
    (tmp_path / "odd\udcff\x07.wav").write_bytes(official.wave())
    found = check(read_folder(DATASETS["esc50"], tmp_path), workers=1)
    assert (found.splits["fold1"].found, found.splits["fold1"].unreadable) == (3, 2)
    assert any(r"odd\udcff\x07.wav" in one for one in found.problems)
