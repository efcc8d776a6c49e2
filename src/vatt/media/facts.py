"""What a file holds, by its headers, its packets and its first frame; nothing more is decoded.

How long a video is shown, and at which rate, is known from its packets: what containers say of it
may be of the audio, of another recording, or nothing. Times are seconds on the video clock
(`video.py`).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.stream import Stream
from av.video.stream import VideoStream
from numpy.typing import NDArray

from vatt.errors import MediaError
from vatt.media.container import (
    MediaSource,
    audio_stream,
    describe,
    past_errors,
    video_stream,
)
from vatt.media.frame_filters import orientation
from vatt.media.video import Reached, VideoReader, usual_frame_s

_ROUNDING_S = 1e-7  # of times as binary fractions
_ENTRY = [("time", "i8"), ("end", "i8"), ("key", "?"), ("discard", "?")]
_UNEVEN_S = 0.0015  # some containers round times to milliseconds
_DECIMALS = 9  # seconds are kept to: what lies beyond comes of counting in binary fractions
_DENSER = 1.25  # a second with so many times the frames of others is more than jitter


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFacts:
    """The video stream as stored: width and height before `rotation` is applied.

    rotation is the counter-clockwise turn (0, 90, 180 or 270°) that sets the frames upright, after
    a flip of left and right when they are mirrored. frames is the container's own count, 0 when it
    does not say. interlaced is said by the first frame. steady: the rate is about the same all
    along; else fps is that of the second with the most frames.
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
    steady: bool = True


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
    """What a media file holds.

    duration_s: until its last frame leaves the screen; without video, of the audio.
    start_s is the player's zero (the earliest stream) on the video clock: 0 or less.
    """

    duration_s: float
    start_s: float
    video: VideoFacts | None
    audio: AudioFacts | None


def player_zero_s(container: InputContainer) -> float:
    """The container's time at which players begin: that of its earliest stream."""
    return (container.start_time or 0) / av.time_base


def read_facts(
    container: InputContainer, reader: VideoReader | None, packets: PacketFacts
) -> MediaFacts:
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
        upright = orientation(first)
        video_facts = VideoFacts(
            codec=video.codec_context.name,
            width=first.width,
            height=first.height,
            fps=packets.fps,
            frames=video.frames,
            rotation=upright.quarter_turns * 90,
            pix_fmt=first.format.name,
            sample_aspect=reader.sample_aspect,
            mirrored=upright.mirrored,
            interlaced=reader.interlaced,
            steady=packets.steady,
        )
    return MediaFacts(
        duration_s=packets.end_s,
        start_s=min(player_zero_s(container) - reader.zero_s, 0.0) if reader else 0.0,
        video=video_facts,
        audio=audio_facts,
    )


def declared_s(container: InputContainer) -> float:
    """How long a container says that its video is, else all of it; 0 when it does not say."""
    stream = video_stream(container)
    if stream is not None and stream.duration and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketFacts:
    """How a file is stored, by its packets. Seconds count from the first frame.

    frames: those that are shown.
    fps: as of `VideoFacts`; None when a single frame does not say.
    steady: as of `VideoFacts`.
    last_s: when the last frame is shown.
    end_s: when it leaves the screen.
    even: every frame stays equally long.
    gop: frames from one key frame to the next, at most.
    reordered: frames are stored in another order than shown (B-frames).
    audio_s: when the audio starts and ends; None without audio.
    """

    frames: int = 0
    fps: Fraction | None = None
    steady: bool = True
    last_s: float = 0.0
    end_s: float
    even: bool = True
    gop: int = 0
    reordered: bool = False
    audio_s: tuple[float, float] | None


class _Stored(NamedTuple):
    """A packet: its stream, its container time and how long it lasts, in seconds."""

    stream: int
    start_s: float
    lasts_s: float
    is_keyframe: bool


def read_packets(
    container: InputContainer,
    source: MediaSource,
    zero_s: float | None,
    reached: Reached = lambda _: None,
) -> PacketFacts:
    """Read all packets of a container from its start.

    Args:
        container: at its start.
        source: what errors call it.
        zero_s: the container's time of the first frame; None without video.
        reached: told how far reading is.

    Raises:
        MediaError: it has no frames with times.
    """
    times, lasts, keys = array("d"), array("d"), bytearray()  # numbers: files have millions
    heard_s: tuple[float, float] | None = None
    video, track = video_stream(container), audio_stream(container)
    for packet in _in_file(container, list(filter(None, (video, track)))):
        start_s, lasts_s = packet.start_s - (zero_s or 0.0), packet.lasts_s
        reached(start_s)
        if video is None or packet.stream != video.index:
            first_s, end_s = heard_s or (start_s, start_s + lasts_s)
            heard_s = min(first_s, start_s), max(end_s, start_s + lasts_s)
        elif start_s > -_ROUNDING_S:  # frames before the first one lack what they are made from
            times.append(start_s)
            lasts.append(lasts_s)
            keys.append(packet.is_keyframe)
    shown = _Frames(np.array(times), np.array(lasts), np.array(keys, np.bool_))
    return _packet_facts(video, source, shown, heard_s)


class _Frames(NamedTuple):
    """The packets of a video in the order stored: when they begin, how long they last, [N]."""

    starts_s: NDArray[np.float64]
    lasts_s: NDArray[np.float64]
    keys: NDArray[np.bool_]


def _packet_facts(
    video: VideoStream | None,
    source: MediaSource,
    frames: _Frames,
    heard_s: tuple[float, float] | None,
) -> PacketFacts:
    if video is None:
        return PacketFacts(end_s=heard_s[1] - heard_s[0] if heard_s else 0.0, audio_s=heard_s)
    stored = frames.starts_s
    if not len(stored):
        raise MediaError(f"{describe(source)}: holds no picture with times")
    shown = np.sort(stored)
    steps = np.diff(shown)
    usual_s = float(np.median(steps)) if len(steps) else 0.0
    last_s, (fps, steady) = float(shown[-1]), _rate(video, shown)
    borders = np.flatnonzero([*frames.keys, True])
    lasts_s = float(frames.lasts_s[stored.argmax()]) or usual_frame_s(video)
    return PacketFacts(
        frames=len(stored),
        fps=fps,
        steady=steady,
        last_s=round(last_s, _DECIMALS),
        end_s=round(last_s + lasts_s, _DECIMALS),
        even=bool((np.abs(steps - usual_s) <= _UNEVEN_S).all()),
        gop=int(np.diff(borders, prepend=0).max()),
        reordered=bool((np.diff(stored) < 0).any()),
        audio_s=heard_s,
    )


def _in_file(container: InputContainer, streams: Sequence[Stream]) -> Iterator[_Stored]:
    ticks_s = {one.index: float(one.time_base or 0) for one in streams}
    for packet in past_errors(container, *streams):
        if packet is None or packet.is_discard or not packet.size:
            continue
        time = packet.pts if packet.pts is not None else packet.dts
        if time is not None:
            tick_s = ticks_s[packet.stream.index] or float(packet.time_base)
            lasts_s = (packet.duration or 0) * tick_s
            yield _Stored(packet.stream.index, time * tick_s, lasts_s, packet.is_keyframe)


def packets_in_table(
    container: InputContainer, source: MediaSource, zero_s: float | None
) -> PacketFacts | None:
    """As `read_packets`, by the table of an MP4 file, without reading; None where that cannot be.

    That is where it has no table that says all, or frames of an uneven rate. What lies beyond the
    end of the file counts as absent.
    """
    if "mp4" not in container.format.name.split(","):
        return None
    video, track = video_stream(container), audio_stream(container)
    frames, heard_s = _Frames(np.zeros(0), np.zeros(0), np.zeros(0, np.bool_)), None
    for stream in filter(None, (video, track)):
        given = stream.index_entries
        if not len(given) or len(given) != stream.frames or stream.time_base is None:
            return None
        rows = ((e.timestamp, e.pos + e.size, e.is_keyframe, e.is_discard) for e in given)
        table = np.fromiter(rows, _ENTRY, len(given))
        table = table[~table["discard"]]
        if not len(table):
            return None
        tick_s = float(stream.time_base)
        steps = np.diff(table["time"]) * tick_s
        usual_s = float(np.median(steps)) if len(steps) else 0.0
        starts_s, lasts_s = table["time"] * tick_s - (zero_s or 0.0), np.append(steps, usual_s)
        there = table["end"] <= container.size
        if stream is video:
            if len(steps) and np.ptp(steps) > 2 * _UNEVEN_S:
                return None  # frames may be shown at other times than they are decoded
            # A frame is shown some time after it is decoded: the first one at zero.
            starts_s -= starts_s[0]
            frames = _Frames(starts_s[there], lasts_s[there], table["key"][there])
        elif there.any():
            ends_s = (starts_s + lasts_s)[there]
            heard_s = float(starts_s[there].min()), float(ends_s.max())
    return _packet_facts(video, source, frames, heard_s)


def _rate(video: VideoStream, shown_s: NDArray[np.float64]) -> tuple[Fraction | None, bool]:
    """Frames per second, and whether about so many are shown in every second, evenly.

    If not, the rate is that of the second with the most: an average says nothing about a part.
    """
    said = [rate for rate in (video.average_rate, video.base_rate, video.guessed_rate) if rate]
    shown_s = np.unique(shown_s)
    if len(shown_s) < 2:
        return next(iter(said), None), True
    mean = (len(shown_s) - 1) / float(shown_s[-1] - shown_s[0])
    ends = np.searchsorted(shown_s, shown_s + 1 - _UNEVEN_S)
    most = int((ends - np.arange(len(shown_s))).max())
    steps = np.diff(shown_s)
    usual_s = float(np.median(steps))
    uneven_s = float(np.quantile(np.abs(steps - usual_s), 0.9))
    steady = float(np.ptp(steps)) <= 2 * _UNEVEN_S or (
        uneven_s <= usual_s / 2 and most <= _DENSER * mean
    )
    least = mean if steady else most
    near = [rate for rate in said if 0.995 * least <= rate <= 1.005 * max(mean, most)]
    if not near:
        return Fraction(least).limit_denominator(1001), steady
    return min(near, key=lambda rate: abs(float(rate) * usual_s - 1)), steady
