"""Checks of one video: its bytes, record, packets, frames, audio and captions."""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vatt.audit.findings import Finding
from vatt.audit.fingerprints import Fingerprint, fingerprint
from vatt.errors import DataError, MediaError
from vatt.ingest.item import limit_s
from vatt.media.captions.clean import Caption
from vatt.media.facts import PacketFacts
from vatt.media.media_file import MediaFile, open_media
from vatt.shards.index import WRITTEN_SCHEMA, index_row
from vatt.shards.read import ShardFolder
from vatt.shards.record import SampleRecord
from vatt.workers.process import TimeLimit

MOMENTS = 5  # frames that are decoded of each video: first, last and three between
PICTURE = (90, 120)  # height and width of these frames
_SOUND_HZ = 16_000
_LEAST_LETTERS, _SURE = 60, 0.9  # of a text whose language is guessed


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

    def dataset(self) -> ShardFolder:
        """A folder with this video alone."""
        table = pa.Table.from_pylist([dict(self.row)], schema=WRITTEN_SCHEMA)
        return ShardFolder(self.folder, table, self.info)


@dataclass(slots=True, kw_only=True)
class Look:
    """What the check of a video gave; `decoded` counts frames."""

    findings: list[Finding] = field(default_factory=list)
    fingerprint: Fingerprint | None = None
    source: str = ""
    covered_s: float = 0.0
    language: str = ""
    decoded: int = 0


def look(subject: StoredVideo, time_limit: TimeLimit, checks: Checks, *, deep: bool) -> Look:
    """Check one video; `deep` decodes every frame."""
    seen = Look()
    try:
        for kind, detail, weight in _faults(subject, time_limit, checks, seen, deep=deep):
            seen.findings.append(found(subject, kind, detail, weight))
    except MediaError as error:
        seen.findings.append(found(subject, "undecodable", str(error)))
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        # A record may hold anything, such as words where numbers belong.
        detail = f"makes no sense ({type(error).__name__}: {error})"
        seen.findings.append(found(subject, "bad record", detail))
    return seen


Fault = tuple[str, str, float]  # kind, detail, weight


def found(subject: StoredVideo, kind: str, detail: str, weight: float = 0.0) -> Finding:
    """A finding about a video."""
    row = subject.row
    return Finding(
        kind=kind,
        folder=str(subject.folder),
        shard=row["shard"],
        key=row["key"],
        detail=detail,
        weight=weight,
    )


def _faults(
    subject: StoredVideo, time_limit: TimeLimit, checks: Checks, seen: Look, *, deep: bool
) -> Iterator[Fault]:
    row = subject.row
    data = subject.dataset()
    try:
        video = data.read_stored_video(0)
    except DataError as error:
        yield "cut off", str(error), 0.0
        return
    digest = hashlib.sha256(video).hexdigest()
    if digest != row["sha256"]:
        yield "checksum", f"found {digest[:12]}…, expected {row['sha256'][:12]}…", 0.0
        return
    try:
        text, record = data.read_record_text(0), data.read_record(0)
    except DataError as error:
        yield "bad record", str(error), 0.0
        return
    seen.source = record.source
    time_limit.allow(limit_s(record.facts.duration_s, len(video)))
    yield from _index_faults(row, record, text)
    yield from _caption_faults(record, checks, seen)
    if row.get("sound_size"):
        video = data.read_video(0)
    with open_media(video) as media:
        packets = media.packets()
        yield from _packet_faults(packets, record, subject.info, checks)
        yield from _picture_and_sound_faults(media, packets, checks, seen)
        if not deep:
            return
        seen.decoded += (frames := media.count_frames())
        if frames < packets.frames:
            yield "undecodable", f"decodes to {frames} frames of {packets.frames}", 0.0


def _index_faults(row: Mapping[str, Any], record: SampleRecord, text: bytes) -> Iterator[Fault]:
    video_at, text_at = (row["video_offset"], row["video_size"]), (row["json_offset"], text)
    expected = index_row(row["shard"], record, video_at, text_at)
    for (
        name,
        value,
    ) in row.items():  # null: written by an older version, which did not have the column
        if value is not None and value != expected.get(name, value):
            yield "index differs", f"{name}: index {value!r}, record {expected[name]!r}", 0.0


def _caption_faults(record: SampleRecord, checks: Checks, seen: Look) -> Iterator[Fault]:
    captions, end_s = record.captions, record.facts.duration_s
    outside_s = max(
        (max(-one.start_s, one.end_s - end_s, one.start_s - one.end_s) for one in captions),
        default=0.0,
    )
    if not outside_s <= checks.caption_gap_s:
        yield "caption times", f"up to {outside_s:,.1f} s outside of the video", outside_s
    seen.covered_s = covered_s(captions, end_s)
    seen.language = language(" ".join(caption.text for caption in captions)[:4000])
    if not captions:
        yield "no captions", record.missing.get("captions", ""), 0.0
    elif seen.covered_s < checks.min_covered * end_s:
        share = seen.covered_s / end_s
        yield "sparse captions", f"{seen.covered_s:,.1f} of {end_s:,.1f} s", 1 - share


def covered_s(captions: Sequence[Caption], end_s: float) -> float:
    """Seconds of a video with a caption; overlaps count once."""
    total, until = 0.0, 0.0
    for caption in sorted(captions, key=lambda caption: caption.start_s):
        start, end = max(caption.start_s, until), min(caption.end_s, end_s)
        total += max(end - start, 0.0)
        until = max(until, end)
    return total


def language(text: str) -> str:
    """The likely language of a text (ISO 639-1); empty when the guess is not sure enough."""
    identifier = _identifier()
    if identifier is None or sum(map(str.isalpha, text)) < _LEAST_LETTERS:
        return ""
    name, sure = identifier.classify(text)
    return str(name) if sure >= _SURE else ""


@functools.cache
def _identifier() -> Any:
    """The language model; None when its package is not installed."""
    try:
        langid = importlib.import_module("py3langid.langid")
    except ModuleNotFoundError:
        return None
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)


def knows_languages() -> bool:
    """Whether languages can be guessed here."""
    return _identifier() is not None


def _packet_faults(
    packets: PacketFacts, record: SampleRecord, info: Mapping[str, Any], checks: Checks
) -> Iterator[Fault]:
    gap_s = abs(packets.end_s - record.facts.duration_s)
    if not gap_s <= checks.duration_gap_s:
        found = f"the picture ends at {packets.end_s:,.2f} s"
        yield "wrong duration", f"{found}, the index says {record.facts.duration_s:,.2f} s", gap_s
    if not packets.even:
        yield "uneven rate", f"{packets.frames} frames, not equally long", 0.0
    promised = info.get("made", {}).get("settings", {}).get("gop")
    if promised is not None and (packets.reordered or packets.gop > promised):
        yield "stored form", _form(packets, promised), packets.gop
    elif packets.reordered or packets.gop > checks.max_gop:
        yield "slow to read", _form(packets, checks.max_gop), packets.gop
    if packets.audio_s is not None:
        late_s, early_s = packets.audio_s[0], packets.end_s - packets.audio_s[1]
        if max(late_s, early_s) > checks.sound_gap_s:
            detail = f"starts {late_s:,.2f} s after the video, ends {early_s:,.2f} s before it"
            yield "sound gap", detail, max(late_s, early_s)


def _form(packets: PacketFacts, gop: int) -> str:
    order = "; frames are reordered" if packets.reordered else ""
    return f"{packets.gop} frames between key frames, expected at most {gop}{order}"


def _picture_and_sound_faults(
    media: MediaFile, packets: PacketFacts, checks: Checks, seen: Look
) -> Iterator[Fault]:
    frames = media.frames(moments(packets.last_s), size=PICTURE)
    track = media.audio(sample_rate_hz=_SOUND_HZ)
    seen.decoded += len(frames)
    seen.fingerprint = fingerprint(frames, track, sample_rate_hz=_SOUND_HZ)
    brightest = float(np.percentile(frames.max(axis=-1), 99))
    still = frames.astype(np.float32)
    moved = max(float(np.abs(frame - still[0]).mean()) for frame in still)
    if brightest < checks.black_below:
        yield "black", f"brightest {brightest:.0f} of 255", -brightest
    elif moved < checks.frozen_below and packets.end_s >= checks.frozen_after_s:
        yield "frozen", f"frames differ by {moved:.2f} grey levels", packets.end_s
    if packets.audio_s is not None and (loudness := _dbfs(track)) < checks.silent_dbfs:
        yield "silent", f"{loudness:.0f} dB of full scale", -loudness


def moments(last_s: float) -> NDArray[np.float64]:
    """Times in seconds of the frames that are decoded."""
    return np.linspace(0.0, last_s, MOMENTS)


def _dbfs(track: NDArray[np.int16] | None) -> float:
    if track is None or not track.any():
        return -120.0
    return float(10 * np.log10(np.mean((track / 2.0**15) ** 2)))


def film(subject: StoredVideo, _: TimeLimit) -> NDArray[np.uint8]:
    """The frames of a video that were checked, to show them; none when it does not decode."""
    data = subject.dataset()
    try:
        with open_media(data.read_video(0)) as media:
            return media.frames(moments(media.packets().last_s), size=PICTURE)
    except (MediaError, DataError):
        return np.empty((0, *PICTURE, 3), np.uint8)
