"""One damaged stretch costs itself, not the file: the rest is stored, what is lost is said."""

from __future__ import annotations

import json
import random
import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.media.clips import Recipe, numbers, write
from vatt.contracts import ClipSpec
from vatt.data.clip_order import lay_out
from vatt.evaluation.clips import find_clips
from vatt.ingest.item import Making, Prepared, prepare_item
from vatt.ingest.manifest import ManifestEntry
from vatt.ingest.sources import Item, Skipped
from vatt.media.damage import CUT_OFF, lost_s
from vatt.media.media_file import decode_audio, decode_frames, open_media
from vatt.media.stored_form import StoredForm, encode_parts
from vatt.shards.read import ShardFolder
from vatt.shards.record import SampleRecord
from vatt.tasks.audit import AuditConfig
from vatt.tasks.audit import run as run_audit
from vatt.tasks.prepare import PrepareConfig, PrepareResult
from vatt.tasks.prepare import run as run_prepare
from vatt.workers.process import TimeLimit

FORM = StoredForm(short_side=256, fps=None, gop=16)
TEN_S = Recipe(frames=100, noise=True)
MPEG2 = replace(
    TEN_S,
    frames=250,
    fps=Fraction(25),
    video_codec="mpeg2video",
    audio_codec="mp2",
    options={"g": "12"},
)
AVI = replace(TEN_S, video_codec="mpeg4", audio_codec="ac3", options={"g": "10"})
CONTAINERS = {"ts": TEN_S, "mkv": TEN_S, "mp4": TEN_S, "flv": TEN_S, "mpg": MPEG2, "avi": AVI}


def prepare(path: Path, folder: Path, **making: Any) -> Prepared | Skipped:
    folder.mkdir(exist_ok=True)
    entry = ManifestEntry(cuts=[2.0, 5.0])
    item = Item(path=path, name=path.name, split="train", entry=entry)
    return prepare_item(item, TimeLimit(), Making(form=FORM, folder=folder, **making))


def stored(path: Path, folder: Path, **making: Any) -> tuple[SampleRecord, Path]:
    outcome = prepare(path, folder, **making)
    assert isinstance(outcome, Prepared), outcome
    (one,) = outcome.parts
    return one


def overwrite(path: Path, first: float, last: float, kind: str = "noise") -> Path:
    """Noise, zeros or nothing in place of the bytes between two shares of a file."""
    content = path.read_bytes()
    begin, end = (round(len(content) * share) for share in (first, last))
    noise = random.Random(0).randbytes(end - begin)
    filling = {"noise": noise, "zeros": bytes(end - begin), "nothing": b""}[kind]
    path.write_bytes(content[:begin] + filling + content[end:])
    return path


@pytest.mark.parametrize("kind", ["noise", "zeros"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_damaged_stretch_is_a_gap_between_two_cuts(
    container: str, kind: str, tmp_path: Path
) -> None:
    """Two hundredths of the bytes cost two seconds at most; all else shows what it did."""
    path = write(tmp_path / f"a.{container}", CONTAINERS[container])
    overwrite(path, 0.5, 0.56 if container == "avi" else 0.52, kind)
    (path.with_suffix(".srt")).write_text(
        "1\n00:00:01,000 --> 00:00:03,000\nbefore\n\n"
        "2\n00:00:04,000 --> 00:00:06,500\nin the middle of it\n\n"
        "3\n00:00:08,000 --> 00:00:09,000\nafter\n"
    )
    record, video = stored(path, tmp_path / "out", max_damage=0.21)
    inner = [gap for gap in record.gaps if gap.start_s < 9]
    assert inner
    assert all(3.5 < gap.start_s < gap.end_s < 7.5 and gap.cause for gap in inner)
    assert lost_s(inner) < 2.1
    assert {edge for gap in inner for edge in (gap.start_s, gap.end_s)} < set(record.cuts)
    assert record.cuts[0] == pytest.approx(2.0, abs=0.03)  # of the manifest
    assert [caption.text for caption in record.captions] == ["before", "after"]
    assert record.facts.duration_s == pytest.approx(10.0, abs=0.15)
    assert_right_outside_gaps(record, video, container)


def assert_right_outside_gaps(record: SampleRecord, video: Path, container: str) -> None:
    """Each frame is there at its own time."""
    times = np.arange(0, record.facts.duration_s - 0.05, 0.1)
    gaps = record.gaps
    healthy = times[[not any(g.start_s - 0.01 < t < g.end_s + 0.01 for g in gaps) for t in times]]
    seen = numbers(decode_frames(video, healthy, size=CONTAINERS[container].size))
    assert len(seen) > 75
    if container != "mpg":  # its frames have other numbers
        np.testing.assert_array_equal(seen, np.round(healthy * 10))


@pytest.mark.parametrize(
    ("container", "first"),
    [("ts", 0.31), ("ts", 0.5), ("mkv", 0.5), ("flv", 0.31), ("flv", 0.67), ("mpg", 0.5)],
)
def test_bytes_that_are_gone_are_a_gap(container: str, first: float, tmp_path: Path) -> None:
    """Also where a wrong time is read from the rest of a packet, as in the first."""
    path = write(tmp_path / f"a.{container}", CONTAINERS[container])
    overwrite(path, first, first + 0.03, "nothing")
    record, video = stored(path, tmp_path / "out", max_damage=0.25)
    assert record.gaps
    assert lost_s(record.gaps) < 2.2
    assert_right_outside_gaps(record, video, container)


@pytest.mark.parametrize("at", [0.33, 0.5, 0.7])
def test_small_holes_in_an_avi_are_gaps_and_what_follows_keeps_its_time(
    at: float, tmp_path: Path
) -> None:
    """Its packets have no times; its index, at the end, says when each is due."""
    path = write(tmp_path / "a.avi", AVI)
    content = bytearray(path.read_bytes())
    first = round(at * len(content))
    content[first : first + 2500] = random.Random(0).randbytes(2500)
    path.write_bytes(content)
    record, video = stored(path, tmp_path / "out", max_damage=0.2)
    assert any(abs(gap.start_s - 10 * at) < 1 for gap in record.gaps)
    assert record.facts.duration_s == pytest.approx(10.0)
    assert_right_outside_gaps(record, video, "avi")


def test_an_avi_whose_last_ac3_frame_is_incomplete_is_stored_whole(tmp_path: Path) -> None:
    """As cutting tools leave it: all chunks are whole, the last holds half a frame."""
    with av.open(str(write(tmp_path / "whole.avi", AVI))) as old:
        packets = [packet for packet in old.demux() if packet.size]
        last = max(number for number, one in enumerate(packets) if one.stream.type == "audio")
        with av.open(str(tmp_path / "a.avi"), "w") as new:
            to = [new.add_stream_from_template(stream) for stream in old.streams]
            for number, one in enumerate(packets):
                content = bytes(one)[: one.size // 2 if number == last else one.size]
                packet = av.Packet(content)
                packet.pts, packet.dts, packet.time_base = one.pts, one.dts, one.time_base
                packet.is_keyframe, packet.stream = one.is_keyframe, to[one.stream.index]
                new.mux(packet)
    record, video = stored(tmp_path / "a.avi", tmp_path / "out")
    assert record.facts.duration_s == pytest.approx(10.0)
    assert all(gap.start_s > 9.8 for gap in record.gaps)
    assert_right_outside_gaps(record, video, "avi")


@pytest.mark.parametrize("container", ["mkv", "avi"])
def test_a_whole_file_is_not_cut_off_whatever_duration_it_declares(
    container: str, tmp_path: Path
) -> None:
    path = write(tmp_path / f"a.{container}", CONTAINERS[container])
    content = bytearray(path.read_bytes())
    if container == "avi":
        struct.pack_into("<I", content, content.index(b"avih") + 24, 1000)  # frames
        struct.pack_into("<I", content, content.index(b"strh") + 40, 1000)
    else:
        struct.pack_into(">d", content, content.index(b"\x44\x89\x88") + 3, 100_000.0)
    path.write_bytes(content)
    record, _ = stored(path, tmp_path / "out")
    assert not record.gaps
    path.write_bytes(content[: len(content) // 2])
    record, _ = stored(path, tmp_path / "out")
    assert record.gaps[-1].cause == CUT_OFF


@pytest.mark.parametrize("has_audio", [True, False])
def test_a_still_in_a_broadcast_is_no_damage(has_audio: bool, tmp_path: Path) -> None:
    """Its audio goes on, or the counters of its packets do."""
    times_s = [*(k / 10 for k in range(20)), *(6 + k / 10 for k in range(20))]
    recipe = Recipe(frames=40, times_s=times_s, audio_codec="aac" if has_audio else None)
    record, _ = stored(write(tmp_path / "a.ts", recipe), tmp_path / "out")
    assert not record.gaps
    assert record.facts.duration_s == pytest.approx(8.0, abs=0.15)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_file_that_is_cut_off_keeps_what_comes_before(container: str, tmp_path: Path) -> None:
    path = overwrite(write(tmp_path / f"a.{container}", CONTAINERS[container]), 0.55, 1, "nothing")
    record, video = stored(path, tmp_path / "out")
    assert 5 < record.facts.duration_s < 8
    early_s = 3.0 if container == "mpg" else 0.3  # its video is written so far before its audio
    assert all(gap.start_s > record.facts.duration_s - early_s for gap in record.gaps)
    waveform = decode_audio(video, sample_rate_hz=16_000)
    assert waveform is not None
    assert len(waveform) / 16_000 == pytest.approx(record.facts.duration_s, abs=early_s)


def test_what_a_table_of_frames_lists_and_a_file_lacks_is_said(tmp_path: Path) -> None:
    path = overwrite(write(tmp_path / "a.mp4", TEN_S), 0.55, 1, "nothing")
    for copy in (False, True):
        outcome = prepare(path, tmp_path / "out", copy=copy)
        assert isinstance(outcome, Prepared)
        ((record, _),) = outcome.parts
        assert record.gaps[-1].cause == CUT_OFF
        assert record.gaps[-1].end_s == pytest.approx(10.0)
        assert record.gaps[-1].start_s == pytest.approx(record.facts.duration_s, abs=0.2)


@pytest.mark.parametrize("kind", ["noise", "zeros"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_file_that_is_mostly_noise_is_skipped_with_the_share(
    container: str, kind: str, tmp_path: Path
) -> None:
    path = write(tmp_path / f"a.{container}", CONTAINERS[container])
    failure = prepare(overwrite(path, 0.3, 0.94, kind), tmp_path / "out")
    assert isinstance(failure, Skipped)
    assert failure.cause == "damaged"
    assert "% of it is damaged" in failure.reason
    assert "max_damage" in failure.reason


def test_only_beyond_the_limit_is_a_file_skipped(tmp_path: Path) -> None:
    path = overwrite(write(tmp_path / "a.mkv", TEN_S), 0.4, 0.6)
    assert isinstance(prepare(path, tmp_path / "out"), Skipped)
    outcome = prepare(path, tmp_path / "out", max_damage=0.5)
    assert isinstance(outcome, Prepared)


def test_damaged_audio_is_a_gap_and_silent(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", TEN_S)
    with open_media(path) as media:
        packets = [p for p in media.container.demux(audio=0) if p.pts is not None]
    hit = packets[len(packets) // 2]
    content = bytearray(path.read_bytes())
    assert hit.pos is not None
    content[hit.pos : hit.pos + hit.size] = b"\xff" * hit.size
    path.write_bytes(content)
    record, _ = stored(path, tmp_path / "out")
    (gap,) = record.gaps
    assert 4.9 < gap.start_s < gap.end_s < 5.2
    assert "audio" in gap.cause


def test_a_gap_across_parts_is_in_both(tmp_path: Path) -> None:
    path = overwrite(write(tmp_path / "a.mkv", TEN_S), 0.48, 0.52)
    with open_media(path, damaged=True) as media:
        list(encode_parts(media, tmp_path, FORM))
        (gap,) = media.gaps(10.0)
    middle_s = round((gap.start_s + gap.end_s) / 2, 1)
    outcome = prepare(path, tmp_path / "out", part_s=middle_s)
    assert isinstance(outcome, Prepared)
    (first, _), (second, _) = outcome.parts
    assert [(g.start_s, g.end_s) for g in first.gaps] == [pytest.approx((gap.start_s, middle_s))]
    assert [(g.start_s, g.end_s) for g in second.gaps] == [
        pytest.approx((0.0, gap.end_s - middle_s))
    ]


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_healthy_file_has_no_gap_and_the_same_bytes(container: str, tmp_path: Path) -> None:
    recipe = CONTAINERS[container]
    path = write(
        tmp_path / f"a.{container}", replace(recipe, options={**recipe.options, "bf": "2"})
    )
    content = []
    for damaged in (False, True):
        with open_media(path, damaged=damaged) as media:
            (part,) = encode_parts(media, tmp_path, FORM)
            content.append(part.path.read_bytes())
            assert not damaged or media.gaps(part.end_s) == []
    assert content[0] == content[1]


@pytest.mark.parametrize("repeat_short", [False, True])
def test_no_clip_of_training_lies_in_a_gap(repeat_short: bool) -> None:
    """Gaps at the start, in the middle and at the end of the second of three videos."""
    cuts = np.array([0, 4, 0]), np.array([1.5, 4.0, 6.0, 9.0])
    gaps = np.array([1, 1, 1]), np.array([[-0.5, 1.5], [4.0, 6.0], [9.0, 12.0]])
    durations = np.array([10.0, 10.0, 10.0])
    found = lay_out(np.arange(3), durations, cuts, 1.0, repeat_short=repeat_short, gaps=gaps)
    spans = zip(found.row.tolist(), found.start_s.tolist(), found.end_s.tolist(), strict=True)
    assert list(spans) == [(0, 0.0, 10.0), (1, 1.5, 4.0), (1, 6.0, 9.0), (2, 0.0, 10.0)]


@pytest.mark.slow
def test_what_is_lost_is_counted_and_no_clip_is_of_it(tmp_path: Path) -> None:
    source = tmp_path / "videos"
    source.mkdir()
    for name in ("whole", "damaged"):
        write(source / f"{name}.mkv", TEN_S if name == "whole" else replace(TEN_S, flash=5))
    overwrite(source / "damaged.mkv", 0.5, 0.52)
    (source / "labels.csv").write_text(
        "file,kind,start_s,end_s,split,action\n"
        + "".join(f"damaged.mkv,label,{at},{at + 1},train,a{at}\n" for at in range(10))
    )
    settings = PrepareConfig(
        src=(source,), out=tmp_path / "out", manifest=source / "labels.csv", workers=1
    )
    result = run_prepare(settings)
    assert isinstance(result, PrepareResult)
    assert (result.videos, result.skipped, [*result.damaged]) == (2, {}, ["damaged.mkv"])
    shards = ShardFolder.open(tmp_path / "out")
    records = [shards.read_record(row) for row in range(2)]
    gaps = {record.source: record.gaps for record in records}
    assert gaps["whole.mkv"] == ()
    lost = lost_s(gaps["damaged.mkv"])
    assert result.lost_seconds == result.damaged["damaged.mkv"] == pytest.approx(lost, abs=1e-3)
    info = json.loads((tmp_path / "out/dataset.json").read_bytes())
    assert (info["damaged"], info["lost_s"]) == (1, pytest.approx(lost))
    found = find_clips({"": shards}, "train", ClipSpec(frames=5, fps=10.0))
    (gap,) = gaps["damaged.mkv"]
    starts_s = np.array([clip.start_s for clip in found.clips])
    assert len(starts_s) >= 8
    assert not ((starts_s < gap.end_s - 1e-6) & (starts_s + 0.5 > gap.start_s + 1e-6)).any()

    audit = run_audit(AuditConfig(folders=(tmp_path / "out",), workers=1))
    assert audit.totals["damaged videos"] == 1
    assert audit.totals["seconds lost to damage"] == pytest.approx(lost, abs=1e-3)
    assert "damaged source" in {row["kind"] for row in audit.found}
