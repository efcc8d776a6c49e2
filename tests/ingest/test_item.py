from __future__ import annotations

import struct
from dataclasses import replace
from fractions import Fraction
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av.container import InputContainer
from av.video.frame import VideoFrame
from PIL import Image

from tests.media.clips import Recipe, numbers, write
from vatt.ingest.item import Making, Prepared, prepare_item
from vatt.ingest.manifest import ManifestEntry
from vatt.ingest.sources import Item, Skipped
from vatt.media.captions.clean import Caption
from vatt.media.container import MediaSource, open_container
from vatt.media.frame_filters import FrameConverter
from vatt.media.media_file import decode_frames
from vatt.media.stored_form import StoredForm
from vatt.shards.record import PartOf, SampleRecord
from vatt.workers.process import TimeLimit

FORM = StoredForm(short_side=256, fps=Fraction(10), gop=16)
PLAIN = Recipe(frames=20)


def item(path: Path, entry: ManifestEntry | None = None) -> Item:
    return Item(path=path, name=path.name, split="train", entry=entry)


def prepared(one: Item, folder: Path, *, copy: bool = True, part_s: float = 300.0) -> Prepared:
    making = Making(form=FORM, copy=copy, folder=folder, part_s=part_s)
    outcome = prepare_item(one, TimeLimit(), making)
    assert isinstance(outcome, Prepared), outcome
    return outcome


def record(one: Item, folder: Path) -> SampleRecord:
    ((record, _),) = prepared(one, folder).parts
    return record


def test_a_fitting_file_is_kept_and_others_are_encoded(tmp_path: Path) -> None:
    fits = write(tmp_path / "fits.mp4", PLAIN)
    other = write(tmp_path / "other.mp4", replace(PLAIN, options={"bf": "2"}))
    kept = prepared(item(fits), tmp_path)
    assert ([path for _, path in kept.parts], kept.folder) == ([fits], None)
    for one, copy in ((item(fits), False), (item(other), True)):
        encoded = prepared(one, tmp_path, copy=copy)
        assert encoded.folder == tmp_path / one.key
        ((record, path),) = encoded.parts
        assert path.parent == encoded.folder
        assert record.facts.duration_s == pytest.approx(2.0)
        assert record.part is None
        assert record.source_bytes == one.path.stat().st_size


def test_a_long_video_becomes_parts_with_what_belongs_to_each(tmp_path: Path) -> None:
    """Seven seconds in parts of two: captions, labels and cuts move to the clock of their part."""
    path = write(tmp_path / "long.mkv", replace(PLAIN, frames=70, video_starts_s=0.5))
    (tmp_path / "long.srt").write_text(
        "1\n00:00:00,600 --> 00:00:01,500\nin the first\n\n"
        "2\n00:00:05,500 --> 00:00:06,000\nin the third\n"
    )
    label = {"start_s": 2.0, "end_s": 3.0, "action": "over the seam"}
    entry = ManifestEntry(labels=[label], cuts=[2.0])
    one = item(path, entry)
    parts = prepared(one, tmp_path, part_s=2.0).parts
    records = [record for record, _ in parts]
    assert [record.key for record in records] == [f"{one.key}-p000{n}" for n in range(4)]
    assert [record.part for record in records] == [
        PartOf(index=n, count=4, start_s=2.0 * n, end_s=min(2.0 * n + 2, 7.0)) for n in range(4)
    ]
    for number, (_, video) in enumerate(parts):
        frames = decode_frames(video, np.arange(10) / 10, size=(48, 64))
        assert numbers(frames) == list(range(20 * number, 20 * number + 10))
    said = [[(c.text, round(c.start_s, 3)) for c in record.captions] for record in records]
    assert said == [[("in the first", 0.1)], [], [("in the third", 1.0)], []]
    times = [[(round(o["start_s"], 3), round(o["end_s"], 3)) for o in r.labels] for r in records]
    assert times == [[(1.5, 2.0)], [(0.0, 0.5)], [], []]  # it goes on in the second part
    assert [list(map(float, record.cuts)) for record in records] == [[1.5], [], [], []]
    assert {record.split for record in records} == {"train"}
    assert len({record.source_sha256 for record in records}) == 1


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
    stored = record(item(path, entry), tmp_path)
    assert [(c.text, round(c.start_s, 3), round(c.end_s, 3)) for c in stored.captions] == [
        ("cut at the start", 0.0, 1.0),
        ("cut at the end", 1.8, 2.0),
    ]
    (label,) = stored.labels
    assert label["action"] == "stand"
    assert (label["start_s"], label["end_s"]) == pytest.approx((0.3, 1.3))
    assert stored.cuts == pytest.approx((1.0,))


def test_what_is_missing_is_said_with_its_reason(tmp_path: Path) -> None:
    silent = write(tmp_path / "silent.mp4", replace(PLAIN, audio_codec=None))
    (tmp_path / "silent.srt").write_text("no timed text")
    missing = record(item(silent), tmp_path).missing
    assert missing["audio"] == "no sound track"
    assert "silent.srt: found no timed text" in missing["captions"]

    (tmp_path / "silent.en.vtt").write_text("WEBVTT\n\n00:00.500 --> 00:01.000\nhello\n")
    stored = record(item(silent), tmp_path)  # the next sidecar is taken instead
    assert stored.captions == (Caption(0.5, 1.0, "hello"),)
    assert list(stored.missing) == ["audio"]


def test_bad_files_fail_with_a_cause_to_count_and_a_reason_to_read(tmp_path: Path) -> None:
    good = write(tmp_path / "good.mp4", replace(PLAIN, frames=100, audio_codec=None)).read_bytes()
    unreadable, noise = tmp_path / "unreadable.mp4", tmp_path / "noise.mp4"
    unreadable.write_bytes(b"\0" * 1000)
    nothing = tmp_path / "nothing.mp4"  # neither video nor audio, and so not audio alone
    nothing.write_bytes(good[: good.index(b"moov") + 200])
    noise.write_bytes(good[: len(good) // 2] + b"\xff" * (len(good) - len(good) // 2))
    causes = {}
    for path in (unreadable, noise, nothing):
        for copy in (True, False):
            making = Making(form=FORM, copy=copy, folder=tmp_path)
            failure = prepare_item(item(path), TimeLimit(), making)
            assert isinstance(failure, Skipped)
            assert path.name in failure.reason
            causes[path.name] = failure.cause
    assert causes == {
        "unreadable.mp4": "unreadable",
        "noise.mp4": "damaged",
        "nothing.mp4": "unreadable",
    }


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP"])
def test_an_image_that_is_called_a_video_is_named_and_not_stored(
    format: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.mp4"
    Image.new("RGB", (64, 48), "red").save(path, format=format)
    outcome = prepare_item(item(path), TimeLimit(), Making(form=FORM, folder=tmp_path))
    assert isinstance(outcome, Skipped)
    assert (outcome.cause, outcome.reason) == ("unreadable", f"{path}: an image, expected a video")


def test_a_video_that_is_never_on_screen_is_named_and_not_stored_as_nothing(tmp_path: Path) -> None:
    """Its only frame lasts a millisecond, as damaged times can have it."""
    recipe = replace(PLAIN, frames=1, fps=Fraction(1000), audio_codec=None)
    failure = prepare_item(
        item(write(tmp_path / "blink.mkv", recipe)), TimeLimit(), Making(form=FORM, folder=tmp_path)
    )
    assert isinstance(failure, Skipped)
    assert failure.cause == "damaged"
    assert "none of its frames is ever shown" in failure.reason


class Clock(TimeLimit):
    """Time that passes as it is told; `stopped` when it is past the limit, as a worker would be."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s, self.limit_s, self.stopped = 0.0, 60.0, False

    def allow(self, seconds: float) -> None:
        self.limit_s = self.now_s + seconds

    def passes(self, seconds: float) -> None:
        self.now_s += seconds
        self.stopped |= self.now_s > self.limit_s


@pytest.mark.parametrize("header_s", [None, 0.1, 1000.0])
def test_time_for_a_file_grows_with_what_is_read_of_it(
    header_s: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its container says of its duration; a file that hangs is stopped."""
    path = write(
        tmp_path / "a.mkv",
        replace(PLAIN, frames=181, fps=Fraction(1), audio_codec=None),
        container_options={} if header_s else {"live": "1"},
    )
    if header_s:
        content = path.read_bytes()
        at = content.index(b"\x44\x89\x88") + 3
        path.write_bytes(content[:at] + struct.pack(">d", header_s * 1000) + content[at + 8 :])
    convert = FrameConverter.__call__
    for slowest_s, stopped in ((15.0, False), (2000.0, True)):
        clock, passed_s = Clock(), chain([15.0] * 100, [slowest_s], repeat(15.0))

        def slowly(self: FrameConverter, *arguments: Any) -> VideoFrame:
            clock.passes(next(passed_s))  # noqa: B023 called in this turn of the loop alone
            return convert(self, *arguments)

        monkeypatch.setattr(FrameConverter, "__call__", slowly)
        outcome = prepare_item(item(path), clock, Making(form=FORM, folder=tmp_path))
        assert isinstance(outcome, Prepared)
        assert outcome.seconds == 181
        assert clock.stopped == stopped, clock.now_s


def test_a_video_is_opened_once_each_for_its_packets_frames_and_audio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []

    def counted(source: MediaSource, *, quickly: bool = False) -> InputContainer:
        opened.append(source)
        return open_container(source, quickly=quickly)

    monkeypatch.setattr("vatt.media.media_file.open_container", counted)
    path = write(tmp_path / "a.mkv", PLAIN)
    ((_, video),) = prepared(item(path), tmp_path, copy=False).parts
    assert opened == [path, path, path, video, video]  # and what was encoded is looked at


def test_a_video_that_is_called_an_image_is_named_and_not_stored(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", Recipe(frames=4)).rename(tmp_path / "a.jpg")
    outcome = prepare_item(item(path), TimeLimit(), Making(form=FORM, folder=tmp_path))
    assert isinstance(outcome, Skipped)
    assert (outcome.cause, outcome.reason) == ("unreadable", f"{path}: a video, expected an image")
