"""What a file says it holds: by its headers and first frame (MediaFacts), by its packets.

Nothing more is decoded. Times are seconds on the video clock (`video.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer

from vatt.errors import MediaError
from vatt.media.container import MediaSource, audio_stream, describe, video_stream
from vatt.media.frame_filters import orientation
from vatt.media.video import VideoReader

_UNEVEN_S = 0.0015  # some containers round times to milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFacts:
    """The video stream as stored: width and height before `rotation` is applied.

    rotation is the counter-clockwise turn (0, 90, 180 or 270°) that sets the frames upright, after
    a flip of left and right when they are mirrored. frames is the container's own count, 0 when it
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
    """The audio track as stored: number `track`, from 0, of `tracks` in the file."""

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


def player_zero_s(container: InputContainer) -> float:
    """The container's time at which players begin: that of its earliest stream."""
    return (container.start_time or 0) / av.time_base


def read_facts(container: InputContainer, reader: VideoReader | None) -> MediaFacts:
    """What an open container holds; `reader`, at its first frame, reads its video if it has one."""
    audio = audio_stream(container)
    audio_facts = video_facts = None
    if audio is not None:
        tracks = [track.index for track in container.streams.audio]
        audio_facts = AudioFacts(
            codec=audio.codec_context.name,
            sample_rate_hz=audio.codec_context.sample_rate,
            channels=audio.codec_context.channels,
            track=tracks.index(audio.index),
            tracks=len(tracks),
        )
    if reader is not None:
        video, first = reader.stream, reader.first
        rate, upright = video.average_rate or video.guessed_rate, orientation(first)
        video_facts = VideoFacts(
            codec=video.codec_context.name,
            width=first.width,
            height=first.height,
            fps=rate if rate else None,
            frames=video.frames,
            rotation=upright.quarter_turns * 90,
            pix_fmt=first.format.name,
            sample_aspect=video.sample_aspect_ratio or Fraction(1),
            mirrored=upright.mirrored,
            interlaced=reader.interlaced,
        )
    stream = reader.stream if reader else audio
    assert stream is not None
    duration_s = (container.duration or 0) / av.time_base
    if stream.duration is not None and stream.time_base is not None:
        duration_s = float(stream.duration * stream.time_base)
    return MediaFacts(
        duration_s=duration_s,
        start_s=min(player_zero_s(container) - reader.zero_s, 0.0) if reader else 0.0,
        video=video_facts,
        audio=audio_facts,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketFacts:
    """How a file is stored, by its packets. Seconds count from the first frame.

    frames: those that are shown.
    last_s: when the last frame is shown.
    end_s: when it leaves the screen.
    even: every frame stays equally long.
    gop: frames from one key frame to the next, at most.
    reordered: frames are stored in another order than shown (B-frames).
    audio_s: when the audio starts and ends; None without audio.
    """

    frames: int
    last_s: float
    end_s: float
    even: bool
    gop: int
    reordered: bool
    audio_s: tuple[float, float] | None


def read_packets(container: InputContainer, source: MediaSource) -> PacketFacts:
    """Read all packets of a container from its start.

    Raises:
        MediaError: it has no frames with times.
    """
    times, keys, lasts, audio_s = [], [], [], list[tuple[float, float]]()
    video, track = video_stream(container), audio_stream(container)
    for packet in container.demux([stream for stream in (video, track) if stream is not None]):
        if packet.pts is None or packet.is_discard or not packet.size:
            continue
        tick_s = float(packet.time_base)
        start_s, lasts_s = packet.pts * tick_s, (packet.duration or 0) * tick_s
        if video is not None and packet.stream.index == video.index:
            times.append(start_s)
            lasts.append(lasts_s)
            keys.append(packet.is_keyframe)
        else:
            audio_s.append((start_s, start_s + lasts_s))
    if not times:
        raise MediaError(f"{describe(source)}: holds no picture with times")
    stored = np.array(times)
    shown = np.sort(stored)
    steps = np.diff(shown)
    usual_s = float(np.median(steps)) if len(steps) else 0.0
    zero_s, last_s = float(shown[0]), float(shown[-1] - shown[0])
    borders = np.flatnonzero([*keys, True])
    starts_s, ends_s = zip(*audio_s, strict=True) if audio_s else ((), ())
    return PacketFacts(
        frames=len(times),
        last_s=last_s,
        end_s=last_s + (lasts[int(stored.argmax())] or usual_s),
        even=bool((np.abs(steps - usual_s) <= _UNEVEN_S).all()),
        gop=int(np.diff(borders, prepend=0).max()),
        reordered=bool((np.diff(stored) < 0).any()),
        audio_s=(min(starts_s) - zero_s, max(ends_s) - zero_s) if audio_s else None,
    )
