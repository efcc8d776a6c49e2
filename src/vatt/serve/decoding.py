"""What worker processes do with media for the page: strips of frames, copies that play, uploads.

Files of a library may be damaged or hostile, and uploads may come from anybody: both are decoded
only here, within limits of time and memory. Nothing here imports torch before an upload is read.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from vatt.errors import MediaError
from vatt.media.container import MediaSource, audio_stream, describe, media_errors, video_stream
from vatt.media.frame_filters import FrameConverter, RgbConverter, orientation, shown_size
from vatt.media.media_file import MediaFile, open_media
from vatt.media.video import TimedFrame, VideoReader, on_screen, usual_frame_s
from vatt.storage import atomic_file
from vatt.workers.process import TimeLimit

if TYPE_CHECKING:
    from vatt.contracts import ClipSpec, FramePath

STRIP_HEIGHT = 96
COPY_S = 30.0  # of a file in one copy: made in a few seconds, and enough to see a moment
_RATE_HZ = 48_000
_COPY_SIDE, _COPY_FPS = 720, 30  # at most
_X264 = {"preset": "ultrafast", "tune": "fastdecode", "crf": "24"}
_SOUND_COLOUR, _SOUND_GROUND = (90, 170, 230), (24, 28, 34)
# What browsers play: by containers, as FFmpeg names them, and codecs.
_PLAYED: tuple[tuple[str, set[str], set[str], str], ...] = (
    ("mov,mp4", {"h264", "av1", "vp9"}, {"aac", "mp3", "opus", "flac"}, "video/mp4"),
    ("matroska,webm", {"vp8", "vp9", "av1"}, {"opus", "vorbis"}, "video/webm"),
    ("mp3", set(), {"mp3"}, "audio/mpeg"),
    ("wav", set(), {"pcm_s16le", "pcm_u8"}, "audio/wav"),
    ("flac", set(), {"flac"}, "audio/flac"),
    ("ogg", set(), {"vorbis", "opus", "flac"}, "audio/ogg"),
)
_PLAYED_PIXELS = {"yuv420p", "yuvj420p"}


@dataclass(frozen=True, slots=True)
class StripJob:
    """Frames of an interval side by side, as JPEG; without video the curve of the audio."""

    source: MediaSource
    start_s: float
    end_s: float
    frames: int


@dataclass(frozen=True, slots=True)
class LookJob:
    """Whether browsers play a file as it is: its media type, else None."""

    source: MediaSource


@dataclass(frozen=True, slots=True)
class CopyJob:
    """A part of a file as H.264 and AAC in `out`; `told` says how far it is, 0 to 1."""

    source: MediaSource
    start_s: float
    end_s: float
    out: Path
    told: Path


@dataclass(frozen=True, slots=True)
class UploadJob:
    """A file that somebody searches with, as what the encoder takes; see `library.query`."""

    path: Path
    kind: str
    spec: ClipSpec
    frame_path: FramePath


@dataclass(frozen=True, slots=True)
class ReadyJob:
    """Nothing but to import what uploads need: seconds that the first one need not wait."""


Job: TypeAlias = StripJob | LookJob | CopyJob | UploadJob | ReadyJob


def do(job: Job, limit: TimeLimit) -> Any:
    """Do one job; it runs in a worker process.

    Raises:
        MediaError: the file cannot be read as asked.
    """
    if isinstance(job, StripJob):
        return _strip(job)
    if isinstance(job, LookJob):
        return _look(job)
    if isinstance(job, CopyJob):
        return _copy(job, limit)
    from vatt.library.query import read_signal

    if isinstance(job, ReadyJob):
        return None
    return read_signal(job.path, job.kind, job.spec, job.frame_path)


# ── strips ───────────────────────────────────────────────────────────────────────────────────────


def _strip(job: StripJob) -> bytes:
    with open_media(job.source, damaged=True, sparsely=True) as media:
        if media.has_video:
            image = np.concatenate(_frames(media, job), axis=1)
        else:
            image = _curve(media, job)
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=80)
    return file.getvalue()


def _frames(media: MediaFile, job: StripJob) -> list[NDArray[np.uint8]]:
    """Frames from the middle of equal parts of the interval; the last again where it ends early."""
    step_s = (job.end_s - job.start_s) / job.frames
    times_s = [job.start_s + (number + 0.5) * step_s for number in range(job.frames)]
    with media_errors(media.source):
        reader = media.video()
        height, width = _size(reader, STRIP_HEIGHT)
        convert = RgbConverter(
            (height, width), filled_by=reader.aspect, over_white=reader.over_white
        )
        found = [
            convert(one.frame, one.sample_aspect)
            for one in on_screen(_from(reader, times_s), times_s)
        ]
    if not found:
        raise MediaError(f"{describe(media.source)}: no frame at {times_s[0]:.1f} s")
    return found + found[-1:] * (job.frames - len(found))


def _from(reader: VideoReader, times_s: list[float]) -> Iterator[TimedFrame]:
    """Frames from the first time on. It seeks, also where an index may be a little wrong."""
    if times_s[0] > 2.0:
        with suppress(MediaError):
            return reader.frames_from(times_s[0])
    return reader.frames_from(0.0) if reader.begun else reader.frames()


def _size(reader: VideoReader, short_side: int) -> tuple[int, int]:
    """(H, W) of its frames as they are shown, with so many pixels in the short side at most."""
    turns = orientation(reader.first).quarter_turns
    height, width = shown_size(*reader.size, reader.sample_aspect, turns)
    scale = min(1.0, short_side / min(height, width))
    return max(2, 2 * round(height * scale / 2)), max(2, 2 * round(width * scale / 2))


def _curve(media: MediaFile, job: StripJob) -> NDArray[np.uint8]:
    """How loud the audio of the interval is, from left to right."""
    height, width = STRIP_HEIGHT, STRIP_HEIGHT * job.frames * 4 // 3
    first, rate = round(job.start_s * 8000), 8000
    count = max(width, round((job.end_s - job.start_s) * rate))
    spans = media.audio_spans([(first, count)], sample_rate_hz=rate)
    samples = np.zeros(count, np.int16)
    if spans is not None:
        samples[: len(spans[0])] = spans[0]
    loud = np.array(
        [np.abs(part.astype(np.int32)).max() for part in np.array_split(samples, width)]
    )
    tall = np.maximum(1, np.sqrt(loud / 2**15) * height)
    from_middle = np.abs(np.arange(height) - (height - 1) / 2)
    inside = from_middle[:, None] * 2 <= tall[None]
    return np.where(inside[..., None], _SOUND_COLOUR, _SOUND_GROUND).astype(np.uint8)


# ── playing ──────────────────────────────────────────────────────────────────────────────────────


def _look(job: LookJob) -> str | None:
    with open_media(job.source, sparsely=True) as media:
        container = media.container
        seen, heard = video_stream(container), audio_stream(container)
        audio = heard.codec_context.codec.canonical_name if heard is not None else None
        video = seen.codec_context.codec.canonical_name if seen is not None else None
        pixels = seen.codec_context.pix_fmt if seen is not None else None
        for name, videos, audios, media_type in _PLAYED:
            if not container.format.name.startswith(name):
                continue
            plays = (video is None or (video in videos and pixels in _PLAYED_PIXELS)) and (
                audio is None or audio in audios
            )
            if plays:
                return media_type if video else media_type.replace("video/", "audio/")
    return None


def _copy(job: CopyJob, limit: TimeLimit) -> bool:
    """Write the copy; False where the file has nothing there."""
    with (
        open_media(job.source, damaged=True, sparsely=True) as media,
        media_errors(media.source),
        atomic_file(job.out, first_wins=True) as aside,
    ):
        first = round(job.start_s * _RATE_HZ)
        count = round((job.end_s - job.start_s) * _RATE_HZ)
        spans = media.audio_spans([(first, count)], sample_rate_hz=_RATE_HZ)
        samples = spans[0] if spans is not None else np.zeros(0, np.int16)
        options = {"movflags": "faststart"}
        with av.open(f"file:{aside}", "w", format="mp4", options=options) as output:
            shown = _written(job, media, samples, output, limit)
    return shown


def _written(
    job: CopyJob,
    media: MediaFile,
    samples: NDArray[np.int16],
    output: OutputContainer,
    limit: TimeLimit,
) -> bool:
    """Encode the frames of the span, each with the audio up to the next."""
    audio = None
    if len(samples):
        audio = output.add_stream("aac", rate=_RATE_HZ, layout="mono")
        audio.bit_rate = 128_000
    done = 0

    def hear(until: int) -> None:
        nonlocal done
        if audio is not None and (block := samples[done:until]).size:
            frame = AudioFrame.from_ndarray(block[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = _RATE_HZ, done
            frame.time_base = Fraction(1, _RATE_HZ)
            output.mux(audio.encode(frame))
            done += len(block)

    frames = 0
    if media.has_video:
        reader = media.video()
        fps = Fraction(min(1 / usual_frame_s(reader.stream), _COPY_FPS)).limit_denominator(1001)
        fps = max(fps, Fraction(1))
        size = _size(reader, _COPY_SIDE)
        video = _video_stream(output, size, fps)
        convert = FrameConverter(
            size, "yuv420p", filled_by=reader.aspect, over_white=reader.over_white
        )
        times_s = [
            job.start_s + float(k / fps) for k in range(int((job.end_s - job.start_s) * fps))
        ]
        for frames, timed in enumerate(on_screen(_from(reader, times_s), times_s), start=1):
            frame = convert(timed.frame, timed.sample_aspect)
            frame.pts, frame.time_base = frames - 1, 1 / fps
            output.mux(video.encode(frame))
            hear(round(frames * _RATE_HZ / fps))
            if frames % 30 == 0:
                limit.allow(60.0)
                job.told.write_text(f"{frames / len(times_s):.3f}")
        output.mux(video.encode(None))
    hear(len(samples))
    if audio is not None:
        output.mux(audio.encode(None))
    if not frames and not len(samples):
        raise MediaError(f"{describe(media.source)}: nothing from {job.start_s:.0f} s on")
    return frames > 0


def _video_stream(output: OutputContainer, size: tuple[int, int], fps: Fraction) -> VideoStream:
    video = output.add_stream("libx264", rate=fps, options=_X264 | {"g": "30", "bf": "0"})
    video.height, video.width = size
    video.pix_fmt = "yuv420p"
    video.codec_context.time_base = 1 / fps
    return video
