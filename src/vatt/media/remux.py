"""Joining the video of one file, or black frames, with the audio of another: packets are copied."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from heapq import merge

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream

from vatt.errors import MediaError
from vatt.media.container import audio_stream, media_errors, open_container, video_stream

_MP4_AUDIO = ("aac", "mp3", "ac3", "alac")


def join(video: bytes, audio: bytes) -> bytes:
    """The video of one file with the audio of another; both keep their times.

    Both count from the same zero, as files that were split from one do.

    Raises:
        MediaError: a file cannot be read, the one has no video, or the other no audio.
    """
    file = io.BytesIO()
    with open_container(video) as seen, open_container(audio) as heard, media_errors(video):
        frames, track = video_stream(seen), audio_stream(heard)
        if frames is None or track is None:
            lacks = "no picture in the video" if frames is None else "no sound in the sound file"
            raise MediaError(f"found {lacks} beside each other")
        is_mp4 = "mp4" in seen.format.name.split(",") and track.codec_context.name in _MP4_AUDIO
        with av.open(file, "w", format="mp4" if is_mp4 else "matroska") as output:
            parts = [_packets(output, seen, frames), _packets(output, heard, track)]
            for packet in merge(*parts, key=lambda one: float((one.dts or 0) * one.time_base)):
                output.mux(packet)
    return file.getvalue()


def beside_black(audio: bytes, duration_s: float) -> bytes:
    """An audio file as a video whose frames are black: what reads videos reads it too.

    Raises:
        MediaError: the file cannot be read, or has no audio.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        black = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        for number in range(max(1, math.ceil(duration_s * 10))):
            black.pts = number
            output.mux(stream.encode(black))
        output.mux(stream.encode())
    return join(file.getvalue(), audio)


def _packets(
    output: OutputContainer, container: InputContainer, stream: Stream
) -> Iterator[Packet[Stream]]:
    copy = output.add_stream_from_template(stream)

    def packets() -> Iterator[Packet[Stream]]:
        early: list[Packet[Stream]] = []  # the first of Matroska have no decoding time
        for packet in container.demux(stream):
            if packet.dts is None and packet.size:
                early.append(packet)
            elif packet.size:
                for number, before in enumerate(early):
                    before.dts = (packet.dts or 0) - (len(early) - number) * (packet.duration or 1)
                for ready in (*early, packet):
                    ready.stream = copy
                    yield ready
                early = []
        for ready in early:
            ready.dts, ready.stream = ready.pts, copy
            yield ready

    return packets()
