"""What a media file says it holds: duration, frames, audio tracks; by its headers and first frame.

Times are seconds on the video clock (`video.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from vatt.errors import MediaError
from vatt.media.container import (
    MediaSource,
    audio_stream,
    describe,
    opened,
    video_stream,
)
from vatt.media.frame_filters import orientation
from vatt.media.video import VideoReader


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFacts:
    """The picture stream as stored: width and height before `rotation` is applied.

    rotation is the counter-clockwise turn (0, 90, 180 or 270°) that sets the picture upright, after
    a flip of left and right when it is mirrored. frames is the container's own count, 0 when it
    does not say. interlaced is said by the first frame.
    """

    codec: str
    width: int
    height: int
    fps: Fraction | None
    frames: int
    rotation: int
    pix_fmt: str
    sample_aspect: Fraction
    mirrored: bool = False
    interlaced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioFacts:
    """The sound track as stored: number `track`, from 0, of `tracks` in the file."""

    codec: str
    sample_rate_hz: int
    channels: int
    track: int = 0
    tracks: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFacts:
    """What a media file says it holds.

    start_s is the player's zero (the earliest stream) on the video clock: 0 or less.
    """

    duration_s: float
    start_s: float
    video: VideoFacts | None
    audio: AudioFacts | None


def probe(source: MediaSource) -> MediaFacts:
    """What a file holds, by its headers and first frame.

    Raises:
        MediaError: the file cannot be opened, holds neither picture nor sound, or its first frame
            cannot be decoded.
    """
    with opened(source) as container:
        if video_stream(container) is not None:
            return facts_of(container, VideoReader(container, source))
        if audio_stream(container) is None:
            raise MediaError(f"{describe(source)}: holds neither picture nor sound")
        return facts_of(container, None)


def facts_of(container: InputContainer, reader: VideoReader | None) -> MediaFacts:
    """What an open container holds; `reader` reads its picture, if it has one."""
    audio = audio_stream(container)
    player_zero_s = (container.start_time or 0) / av.time_base
    return MediaFacts(
        duration_s=_duration_s(container, reader.stream if reader else audio),
        start_s=min(player_zero_s - reader.zero_s, 0.0) if reader else 0.0,
        video=_video_facts(reader) if reader else None,
        audio=_audio_facts(container, audio) if audio is not None else None,
    )


def _duration_s(container: InputContainer, stream: VideoStream | AudioStream | None) -> float:
    assert stream is not None
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def _video_facts(reader: VideoReader) -> VideoFacts:
    stream, first = reader.stream, reader.first
    rate, upright = stream.average_rate or stream.guessed_rate, orientation(first)
    return VideoFacts(
        codec=stream.codec_context.name,
        width=first.width,
        height=first.height,
        fps=rate if rate else None,
        frames=stream.frames,
        rotation=upright.quarter_turns * 90,
        pix_fmt=first.format.name,
        sample_aspect=stream.sample_aspect_ratio or Fraction(1),
        mirrored=upright.mirrored,
        interlaced=reader.interlaced,
    )


def _audio_facts(container: InputContainer, stream: AudioStream) -> AudioFacts:
    context, tracks = stream.codec_context, container.streams.audio
    return AudioFacts(
        codec=context.name,
        sample_rate_hz=context.sample_rate,
        channels=context.channels,
        track=[track.index for track in tracks].index(stream.index),
        tracks=len(tracks),
    )
