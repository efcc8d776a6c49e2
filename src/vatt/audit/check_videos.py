"""Checks of one video: its bytes, record, packets, frames, audio and captions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vatt.audit.findings import Finding
from vatt.audit.fingerprints import Fingerprint, fingerprint
from vatt.audit.languages import guess_language
from vatt.errors import DataError, MediaError
from vatt.ingest.item import limit_s
from vatt.media.captions.clean import Caption
from vatt.media.damage import lost_s
from vatt.media.facts import PacketFacts
from vatt.media.media_file import MediaFile, open_media
from vatt.shards.index import ALL_COLUMNS, index_row
from vatt.shards.read import ShardFolder
from vatt.shards.record import SampleRecord
from vatt.workers.process import TimeLimit

NUM_FRAMES = 5  # that are decoded of each video: first, last and three between
FRAME_SIZE = (90, 120)  # height and width at which they are checked, whatever the aspect
_SAMPLE_RATE_HZ = 16_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """Thresholds: from which values on something is a finding."""

    silent_dbfs: float = -60.0
    """Audio whose RMS is below this, in decibels of full scale, is silent."""
    black_below: float = 24.0
    """Frames whose 99th percentile of brightness is below this, out of 255, are black."""
    frozen_below: float = 1.0
    """A video whose frames differ by less than this, in grey levels on average, is frozen."""
    frozen_after_s: float = 1.0
    """Shorter videos are never called frozen."""
    duration_gap_s: float = 0.2
    """How much the end of the last frame may differ from the duration in the index."""
    sound_gap_s: float = 0.5
    """How much later than the video the audio may start, or earlier end."""
    caption_gap_s: float = 0.5
    """How far captions may extend beyond their video."""
    min_covered: float = 0.1
    """Share of a video with captions below which these are called sparse."""
    max_gop: int = 64
    """With more frames between key frames a video is slow to read; folders of `vatt prepare` have
    a limit of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVideo:
    """A video to check: its row of the index, and the `dataset.json` of its folder."""

    folder: Path
    row: Mapping[str, Any]
    info: Mapping[str, Any]

    def alone(self) -> ShardFolder:
        """A folder with this video alone, as row 0."""
        table = pa.Table.from_pylist([dict(self.row)], schema=ALL_COLUMNS)
        return ShardFolder(self.folder, table, self.info)


@dataclass(slots=True, kw_only=True)
class VideoReport:
    """What checking a video gave.

    source: what it was made from, as its record says.
    covered_s: seconds with a caption. language: of the captions; empty: not known.
    decoded: how many frames were.
    """

    folder: str
    shard: str
    key: str
    findings: list[Finding] = field(default_factory=list)
    fingerprint: Fingerprint | None = None
    source: str = ""
    covered_s: float = 0.0
    language: str = ""
    decoded: int = 0

    @classmethod
    def of(cls, video: StoredVideo) -> VideoReport:
        """An empty one."""
        return cls(folder=str(video.folder), shard=video.row["shard"], key=video.row["key"])

    def add(self, kind: str, detail: str, weight: float = 0.0) -> None:
        """Add a finding about this video."""
        folder, shard, key = self.folder, self.shard, self.key
        finding = Finding(kind, folder=folder, shard=shard, key=key, detail=detail, weight=weight)
        self.findings.append(finding)


def check_video(
    video: StoredVideo, time_limit: TimeLimit, checks: Checks, *, deep: bool
) -> VideoReport:
    """Check everything that can be asked of a video alone.

    Args:
        video: the video.
        time_limit: goes by its duration, once that is known.
        checks: from which values on something is a finding.
        deep: decode every frame, not only `NUM_FRAMES`.
    """
    report = VideoReport.of(video)
    try:
        _check_bytes(report, video, time_limit, checks, deep=deep)
    except MediaError as error:
        report.add("undecodable", str(error))
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        # A record may hold anything, such as words where numbers belong.
        report.add("bad record", f"makes no sense ({type(error).__name__}: {error})")
    return report


def _check_bytes(
    report: VideoReport, video: StoredVideo, time_limit: TimeLimit, checks: Checks, *, deep: bool
) -> None:
    row, stored = video.row, video.alone()
    try:
        content = stored.read_stored_video(0)
    except DataError as error:
        report.add("cut off", str(error))
        return
    digest = hashlib.sha256(content).hexdigest()
    if digest != row["sha256"]:
        report.add("checksum", f"found {digest[:12]}…, expected {row['sha256'][:12]}…")
        return
    try:
        text, record = stored.read_record_text(0), stored.read_record(0)
    except DataError as error:
        report.add("bad record", str(error))
        return
    report.source = record.source
    time_limit.allow(limit_s(record.facts.duration_s, len(content)))

    video_at, text_at = (row["video_offset"], row["video_size"]), (row["json_offset"], text)
    expected = index_row(row["shard"], record, video_at, text_at)
    for name, value in row.items():  # null: an older version wrote it
        if value is not None and value != expected.get(name, value):
            report.add("index differs", f"{name}: index {value!r}, record {expected[name]!r}")

    if record.gaps:
        gaps = "; ".join(
            f"{gap.start_s:,.2f} to {gap.end_s:,.2f} s: {gap.cause}" for gap in record.gaps
        )
        seconds = lost_s(record.gaps)
        report.add("damaged source", f"{seconds:,.2f} s lost ({gaps})", seconds)
    _check_captions(report, record, checks)
    if row.get("sound_size"):
        content = stored.read_video(0)
    with open_media(content) as media:
        packets = media.packets
        _check_packets(report, packets, record, video.info, checks)
        _check_frames_and_audio(report, media, packets, checks)
        if deep:
            report.decoded += (frames := media.count_frames())
            if frames < packets.frames:
                report.add("undecodable", f"decodes to {frames} frames of {packets.frames}")


def _check_captions(report: VideoReport, record: SampleRecord, checks: Checks) -> None:
    captions, end_s = record.captions, record.facts.duration_s
    outside_s = max(
        (max(-one.start_s, one.end_s - end_s, one.start_s - one.end_s) for one in captions),
        default=0.0,
    )
    if not outside_s <= checks.caption_gap_s:  # NaN is a finding, too
        report.add("caption times", f"up to {outside_s:,.1f} s outside of the video", outside_s)
    report.covered_s = covered_s(captions, end_s)
    report.language = guess_language(" ".join(caption.text for caption in captions)[:4000])
    if not captions:
        report.add("no captions", record.missing.get("captions", ""))
    elif report.covered_s < checks.min_covered * end_s:
        share = report.covered_s / end_s
        report.add("sparse captions", f"{report.covered_s:,.1f} of {end_s:,.1f} s", 1 - share)


def covered_s(captions: Sequence[Caption], end_s: float) -> float:
    """Seconds of a video with a caption; overlaps count once."""
    total, until = 0.0, 0.0
    for caption in sorted(captions, key=lambda caption: caption.start_s):
        start, end = max(caption.start_s, until), min(caption.end_s, end_s)
        total += max(end - start, 0.0)
        until = max(until, end)
    return total


def _check_packets(
    report: VideoReport,
    packets: PacketFacts,
    record: SampleRecord,
    info: Mapping[str, Any],
    checks: Checks,
) -> None:
    gap_s = abs(packets.end_s - record.facts.duration_s)
    if not gap_s <= checks.duration_gap_s:
        expected = f"the index says {record.facts.duration_s:,.2f} s"
        report.add(
            "wrong duration", f"the picture ends at {packets.end_s:,.2f} s, {expected}", gap_s
        )
    if not packets.even:
        report.add("uneven rate", f"{packets.frames} frames, not equally long")
    promised = info.get("made", {}).get("settings", {}).get("gop")
    for kind, most in (("stored form", promised), ("slow to read", checks.max_gop)):
        if most is not None and (packets.reordered or packets.gop > most):
            order = "; frames are reordered" if packets.reordered else ""
            detail = f"{packets.gop} frames between key frames, expected at most {most}{order}"
            report.add(kind, detail, packets.gop)
            break
    if packets.audio_s is not None:
        late_s, early_s = packets.audio_s[0], packets.end_s - packets.audio_s[1]
        if max(late_s, early_s) > checks.sound_gap_s:
            detail = f"starts {late_s:,.2f} s after the video, ends {early_s:,.2f} s before it"
            report.add("sound gap", detail, max(late_s, early_s))


def _check_frames_and_audio(
    report: VideoReport, media: MediaFile, packets: PacketFacts, checks: Checks
) -> None:
    frames = media.frames(frame_times(packets.last_s), size=FRAME_SIZE)
    waveform = media.audio(sample_rate_hz=_SAMPLE_RATE_HZ)
    report.decoded += len(frames)
    report.fingerprint = fingerprint(frames, waveform, sample_rate_hz=_SAMPLE_RATE_HZ)
    brightest = float(np.percentile(frames.max(axis=-1), 99))
    grey = frames.astype(np.float32)
    moved = max(float(np.abs(frame - grey[0]).mean()) for frame in grey)
    if brightest < checks.black_below:
        report.add("black", f"brightest {brightest:.0f} of 255", -brightest)
    elif moved < checks.frozen_below and packets.end_s >= checks.frozen_after_s:
        report.add("frozen", f"frames differ by {moved:.2f} grey levels", packets.end_s)
    if packets.audio_s is not None:
        dbfs = -120.0
        if waveform is not None and waveform.any():
            dbfs = float(10 * np.log10(np.mean((waveform / 2.0**15) ** 2)))
        if dbfs < checks.silent_dbfs:
            report.add("silent", f"{dbfs:.0f} dB of full scale", -dbfs)


def frame_times(last_s: float) -> NDArray[np.float64]:
    """Times in seconds of the frames that are decoded."""
    return np.linspace(0.0, last_s, NUM_FRAMES)


def thumbnails(video: StoredVideo, _: TimeLimit) -> NDArray[np.uint8]:
    """The frames that were checked, [T, H, W, 3], at their own aspect; none if it cannot decode."""
    height, width = FRAME_SIZE[0], video.row["width"] * FRAME_SIZE[0] / video.row["height"]
    try:
        with open_media(video.alone().read_video(0)) as media:
            size = (height, min(max(round(width), 1), 4 * height))  # a row may hold anything
            return media.frames(frame_times(media.packets.last_s), size=size)
    except (MediaError, DataError):
        return np.empty((0, *FRAME_SIZE, 3), np.uint8)
