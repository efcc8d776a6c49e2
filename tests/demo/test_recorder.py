import csv
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pysubs2
import pytest

from tests.demo.needs_game import needs_game
from vatt.errors import ConfigError
from vatt_demo.recorder import RecordConfig, RecordResult, run
from vatt_demo.weapons import SOUND_EVENTS

pytestmark = needs_game
VIDEO_S = 4.0


def config(out: Path, **changes) -> RecordConfig:
    """Two training videos, one for validation, two for test, of four seconds each."""
    hour = VIDEO_S / 3600
    values = {"hours": 2 * hour, "val_hours": hour, "test_hours": 2 * hour, "video_s": VIDEO_S}
    return RecordConfig(out=out, **(values | {"workers": 1} | changes))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> RecordResult:
    return run(config(tmp_path_factory.mktemp("recorded")))


@pytest.fixture(scope="module")
def long(tmp_path_factory) -> Path:
    """One test video of 80 seconds."""
    out = tmp_path_factory.mktemp("long")
    run(config(out, hours=0.0, val_hours=0.0, test_hours=80 / 3600, video_s=80.0))
    return out


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def pictures_of(path: Path) -> np.ndarray:
    with av.open(path) as file:
        return np.stack([one.to_ndarray(format="gray") for one in file.decode(video=0)])


def sound_of(path: Path) -> np.ndarray:
    with av.open(path) as file:
        return np.concatenate([one.to_ndarray() for one in file.decode(audio=0)], 1)[0]


def content(out: Path) -> dict[str, str]:
    """File → hash of its decoded pictures and sound, or of its text."""
    found = {}
    for path in sorted(out.rglob("*.mp4")):
        data = pictures_of(path).tobytes() + sound_of(path).tobytes()
        found[path.relative_to(out).as_posix()] = hashlib.sha256(data).hexdigest()
    for path in sorted([*out.rglob("*.srt"), out / "labels.csv"]):
        found[path.relative_to(out).as_posix()] = path.read_text()
    return found


@pytest.mark.slow
def test_content_is_the_same_with_any_number_of_workers(recorded, tmp_path):
    run(config(tmp_path, workers=2))
    assert content(tmp_path) == content(recorded.out)


def test_another_seed_records_something_else(recorded, tmp_path):
    other = run(config(tmp_path, val_hours=0.0, test_hours=0.0, seed=1))
    assert not set(content(other.out).values()) & set(content(recorded.out).values())


@pytest.mark.slow
def test_an_interrupted_recording_goes_on_to_the_same_content(recorded, tmp_path):
    arguments = {name: getattr(config(tmp_path), name) for name in ("hours", "val_hours")}
    code = (
        "from pathlib import Path; from vatt_demo.recorder import *\n"
        "if __name__ == '__main__':\n"
        f"    run(RecordConfig(out=Path({str(tmp_path)!r}), workers=1, video_s={VIDEO_S}, "
        f"test_hours={2 * VIDEO_S / 3600}, **{arguments!r}))"
    )
    script = tmp_path.parent / "recorder.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL)
    rows = tmp_path / "rows"
    deadline = time.monotonic() + 60
    while len(list(rows.glob("*-*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # what the killed one had at work ends with it
    kept = len(list(rows.glob("*-*.json")))
    result = run(config(tmp_path))
    assert 2 <= kept < result.videos
    assert result.kept == kept
    assert content(tmp_path) == content(recorded.out)
    assert not list(tmp_path.rglob("*.part"))


def test_repeating_the_command_records_nothing_again(recorded):
    times = {path: path.stat().st_mtime_ns for path in recorded.out.rglob("*.mp4")}
    again = run(config(recorded.out))
    assert again.kept == again.videos == 5
    assert {path: path.stat().st_mtime_ns for path in recorded.out.rglob("*.mp4")} == times


def test_a_folder_recorded_with_other_settings_is_refused(recorded):
    with pytest.raises(ConfigError, match="choose another folder"):
        run(config(recorded.out, seed=7))


def test_splits_share_no_map(recorded):
    maps = {split: {r["map"] for r in rows_of(recorded.out) if r["split"] == split} for split in
            ("train", "val", "test")}  # fmt: skip
    assert all(maps.values())
    assert (
        not maps["train"] & maps["val"] | maps["train"] & maps["test"] | maps["val"] & maps["test"]
    )


def test_summary_counts_what_the_labels_hold(recorded):
    summary = json.loads((recorded.out / "recording.json").read_text())
    rows = [r for r in rows_of(recorded.out) if r["kind"] == "label" and r["split"] == "test"]
    counted = summary["result"]["totals"]["test"]["weapon"]
    assert sum(counted.values()) == len(rows) > 0
    assert counted == recorded.totals["test"]["weapon"]
    assert summary["config"]["seed"] == 0
    assert summary["versions"]["vizdoom"]


def test_rows_are_in_order_and_no_segment_crosses_a_cut(long):
    rows = rows_of(long)
    cuts = [float(row["start_s"]) for row in rows if row["kind"] == "cut"]
    labels = [row for row in rows if row["kind"] == "label"]
    assert len(cuts) >= 8
    assert len(labels) >= 20
    for row in labels:
        start, end = float(row["start_s"]), float(row["end_s"])
        assert 16 / 8.75 < end - start < 25 / 8.75
        assert not any(start < cut < end for cut in cuts)
        assert row["sound_event"] in (*SOUND_EVENTS, "")
        assert set(row["said"].split()) <= set(row["facts"].split())
    ends = [(float(row["start_s"]), float(row["end_s"])) for row in labels]
    assert all(a[1] <= b[0] + 1e-6 for a, b in itertools.pairwise(ends))


def test_pictures_jump_at_cuts(long):
    rows = rows_of(long)
    pictures = pictures_of(long / rows[0]["file"]).astype(int)
    change = np.abs(np.diff(pictures, axis=0)).mean((1, 2))  # [i]: from frame i to i + 1
    cuts = [round(float(row["start_s"]) * 8.75) - 1 for row in rows if row["kind"] == "cut"]
    jumps = [change[i] > max(change[i - 1], change[i + 1]) for i in cuts if i + 1 < len(change)]
    assert np.mean(jumps) >= 0.8  # a flash or a fast blow may change a picture as much


def test_turns_move_the_picture_the_other_way(long):
    """Labels against pixels: what was measured in the game's state is there to be seen."""
    rows = [r for r in rows_of(long) if r["action"].startswith("turn_")]
    pictures = pictures_of(long / rows[0]["file"])[:, :70].astype(float)
    right = {row["start_s"]: shift(pictures, row) * (1 if "left" in row["action"] else -1)
             for row in rows}  # fmt: skip
    assert len(rows) >= 4
    assert np.mean([moved > 0 for moved in right.values()]) >= 0.8  # fights may cover the view


def shift(pictures: np.ndarray, row: dict[str, str]) -> float:
    """Mean movement to the right, in pixels per frame, of the columns of a segment's pictures."""
    first, last = (round(float(row[name]) * 8.75) for name in ("start_s", "end_s"))
    columns = pictures[first:last].mean(1)
    columns -= columns.mean(1, keepdims=True)
    moved = []
    for before, after in itertools.pairwise(columns):
        matches = {
            by: float((np.roll(after, -by)[16:-16] * before[16:-16]).sum()) for by in range(-15, 16)
        }
        moved.append(max(matches, key=lambda by: matches[by]))
    return float(np.mean(moved))


def test_shots_are_heard_where_the_labels_say_so(long):
    rows = [r for r in rows_of(long) if r["kind"] == "label"]
    sound = sound_of(long / rows[0]["file"])

    def loudness(row: dict[str, str]) -> float:
        first, last = (int(float(row[name]) * 48_000) for name in ("start_s", "end_s"))
        return float(sound[first:last].std())

    shots = [loudness(r) for r in rows if r["sound_event"] not in ("none", "pain", "")]
    calm = [loudness(r) for r in rows if r["sound_event"] == "none"]
    assert len(shots) >= 4
    assert min(shots) > 0.08
    assert np.median(shots) > 2 * np.median(calm)


def test_each_sentence_is_said_about_when_it_is_true(long):
    rows = [r for r in rows_of(long) if r["caption"]]
    captions = pysubs2.load(str((long / rows[0]["file"]).with_suffix(".srt")))
    for row in rows:
        near = [
            one for one in captions
            if one.text == row["caption"] and abs(one.start / 1000 - float(row["start_s"])) <= 0.401
        ]  # fmt: skip
        assert near, row
    assert len(captions) > len(rows)  # and remarks, chatter and the game's own messages


@pytest.mark.parametrize("change", [{"hours": -1.0}, {"workers": 0}, {"video_s": 0.0}])
def test_impossible_amounts_are_refused(change, tmp_path):
    with pytest.raises(ConfigError, match=next(iter(change))):
        config(tmp_path, **change)
