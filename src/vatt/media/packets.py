"""How a file is stored, by its packets: rates, key frames, when picture and sound start and end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from av.packet import Packet
from av.stream import Stream

from vatt.errors import MediaError
from vatt.media.container import MediaSource, audio_stream, describe, opened, video_stream

_UNEVEN_S = 0.0015  # some containers round times to milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketFacts:
    """What the packets of a file say; nothing is decoded. Seconds count from the first frame.

    frames: those that are shown.
    last_s: when the last frame is shown.
    end_s: when it leaves the screen.
    even: every frame stays equally long.
    gop: frames from one key frame to the next, at most.
    reordered: frames are stored in another order than shown (B-frames).
    sound_s: when the sound starts and ends; None without sound.
    """

    frames: int
    last_s: float
    end_s: float
    even: bool
    gop: int
    reordered: bool
    sound_s: tuple[float, float] | None


def read_packets(source: MediaSource) -> PacketFacts:
    """Read all packets of a file.

    Raises:
        MediaError: the file cannot be opened, or has no picture with times.
    """
    times, keys, lasts, sound = [], [], [], list[tuple[float, float]]()
    with opened(source) as container:
        picture, track = video_stream(container), audio_stream(container)
        streams = [stream for stream in (picture, track) if stream is not None]
        for packet in container.demux(streams):
            if packet.pts is None or packet.is_discard or not packet.size:
                continue
            start_s, lasts_s = _times(packet)
            if picture is not None and packet.stream.index == picture.index:
                times.append(start_s)
                lasts.append(lasts_s)
                keys.append(packet.is_keyframe)
            else:
                sound.append((start_s, start_s + lasts_s))
    if not times:
        raise MediaError(f"{describe(source)}: holds no picture with times")
    stored = np.array(times)
    shown = np.sort(stored)
    steps = np.diff(shown)
    usual_s = float(np.median(steps)) if len(steps) else 0.0
    borders = np.flatnonzero([*keys, True])
    return PacketFacts(
        frames=len(times),
        last_s=float(shown[-1] - shown[0]),
        end_s=float(shown[-1] - shown[0]) + (lasts[int(stored.argmax())] or usual_s),
        even=bool((np.abs(steps - usual_s) <= _UNEVEN_S).all()),
        gop=int(np.diff(borders, prepend=0).max()),
        reordered=bool((np.diff(stored) < 0).any()),
        sound_s=(
            min(start_s for start_s, _ in sound) - float(shown[0]),
            max(end_s for _, end_s in sound) - float(shown[0]),
        )
        if sound
        else None,
    )


def _times(packet: Packet[Stream]) -> tuple[float, float]:
    tick_s = float(packet.time_base)
    return (packet.pts or 0) * tick_s, (packet.duration or 0) * tick_s
