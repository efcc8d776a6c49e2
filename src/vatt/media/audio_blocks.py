"""A stretch of sound without decoding the whole track before it.

The sound of a stored file is decoded in blocks of one second, each by a decoder of its own that
starts a little earlier. So a sample is a function of the file alone, whatever stretch it was read
in; where decoding has no longer memory than the warm-up, as AAC without noise substitution, it is
also the sample that decoding the whole track gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from numpy.typing import NDArray

BLOCK_S, WARM_UP_S = 1, 0.1
_LONGEST_FRAME = 2048  # samples of an AAC frame


def has_sound_blocks(stream: AudioStream, sample_rate_hz: int) -> bool:
    """Whether `read_sound` can read a track: AAC of this rate in MP4, where times are exact."""
    context = stream.codec_context
    return (
        context.name == "aac"
        and context.sample_rate == sample_rate_hz
        and stream.time_base == Fraction(1, sample_rate_hz)
    )


def read_sound(
    container: InputContainer, stream: AudioStream, first: int, count: int
) -> NDArray[np.int16]:
    """Mono samples of a track that `has_sound_blocks`, without resampling.

    Args:
        container: open; it is left elsewhere than it was.
        stream: the track.
        first: container time of the first sample wanted, in samples.
        count: how many; zeros where there is no sound.
    """
    rate = stream.codec_context.sample_rate
    block, warm_up, end = round(BLOCK_S * rate), round(WARM_UP_S * rate), first + count
    start = (first - _LONGEST_FRAME) // block  # of the frame in which the first sample is
    container.seek(start * block - warm_up, stream=stream, backward=True)
    packets = []
    for packet in container.demux(stream):
        if packet.pts is None or packet.pts >= end:
            break
        packets.append((packet.pts, packet))
    heard = np.zeros(count, np.int16)
    resampler = AudioResampler(format="s16", layout="mono", rate=rate)
    for begin in range(start * block, end, block):
        near = [packet for pts, packet in packets if begin - warm_up <= pts < begin + block]
        for time, frame in _joined(_decoded(stream, near, begin)):
            for piece in resampler.resample(frame):
                _place(heard, time - first, piece.to_ndarray()[0])
    return heard


def _decoded(stream: AudioStream, packets: Sequence[Packet[Any]], begin: int) -> list[AudioFrame]:
    """The frames that start at `begin` or later, by a new decoder."""
    context = stream.codec_context
    decoder = AudioCodecContext.create(context.codec, "r")
    assert isinstance(decoder, AudioCodecContext)
    decoder.extradata = context.extradata
    frames = [frame for packet in packets for frame in decoder.decode(packet)]
    return [frame for frame in frames if frame.pts is not None and frame.pts >= begin]


def _joined(frames: Sequence[AudioFrame]) -> Iterator[tuple[int, AudioFrame]]:
    """Frames that follow each other as one, with its time: a tenth of the work of many."""
    waiting, start, expected = AudioFifo(), 0, None
    for frame in frames:
        time, frame.pts = frame.pts, None
        assert time is not None
        if time != expected:
            if (whole := waiting.read()) is not None:
                yield start, whole
            waiting, start = AudioFifo(), time
        waiting.write(frame)
        expected = time + frame.samples
    if (whole := waiting.read()) is not None:
        yield start, whole


def _place(heard: NDArray[np.int16], start: int, samples: NDArray[np.int16]) -> None:
    first, last = max(start, 0), min(start + len(samples), len(heard))
    if first < last:
        heard[first:last] = samples[first - start : last - start]
