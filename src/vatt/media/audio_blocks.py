"""Reading a few seconds of a file's audio without what lies before them: AAC in MP4, at any rate.

As `vatt prepare` stores it, and as most files of others have it.
"""

from __future__ import annotations

from fractions import Fraction
from math import gcd

import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from vatt.media.audio import finite

BLOCK_S, WARM_UP_S = 1, 0.1
_LONGEST_FRAME = 2048  # samples of an AAC frame
_MOST_PHASES = 1024  # of libswresample's filter; with more it is rounded


def has_audio_blocks(stream: AudioStream, sample_rate_hz: int) -> bool:
    """Whether `read_audio_blocks` can read a track: AAC in MP4 whose packets follow each other.

    Where their times are uneven, or pause, only the whole track says what is heard when.
    """
    context = stream.codec_context
    if context.name != "aac" or stream.time_base != Fraction(1, context.sample_rate):
        return False
    if sample_rate_hz // gcd(sample_rate_hz, context.sample_rate) > _MOST_PHASES:
        return False
    entries = stream.index_entries
    times = np.fromiter((one.timestamp for one in entries), np.int64, len(entries))
    if len(times) < 2 or not stream.duration:
        return False
    step = times[1] - times[0]
    reached = times[-1] + step - _first_sample(stream)
    return bool((np.diff(times) == step).all() and reached > stream.duration - step)


def read_audio_blocks(
    container: InputContainer,
    stream: AudioStream,
    first: int,
    count: int,
    *,
    zero_s: float,
    sample_rate_hz: int,
) -> NDArray[np.int16]:
    """Mono samples of a track that `has_audio_blocks`, as they are in its whole waveform.

    It is decoded in blocks of one second, each by a decoder of its own that starts a little
    earlier. So a sample depends on the file alone, not on where reading began; where
    decoding has no longer memory than the warm-up, as AAC without noise substitution, it is also
    the sample that decoding the whole track gives (`read_track`). Resampling begins where a sample
    of the file and one of the result have the same time.

    Args:
        container: open; it is left elsewhere than it was.
        stream: the track.
        first: number of the first sample wanted on the video clock.
        count: how many; zeros where there is no audio.
        zero_s: the container's time of the video clock's zero.
        sample_rate_hz: of the samples wanted.
    """
    rate = stream.codec_context.sample_rate
    waveform = np.zeros(count, np.int16)
    begins = _first_sample(stream)
    wanted = first - round((begins / rate - zero_s) * sample_rate_hz)  # counted from there
    common = gcd(rate, sample_rate_hz)
    up, down = sample_rate_hz // common, rate // common  # samples from one such time to the next
    margin = 0 if up == down else round(WARM_UP_S * rate)  # more than the filter is long
    start = max(max(wanted, 0) // up - -(-margin // down), 0)
    end = -(-(wanted + count) * down // up) + margin
    frame = _decoded_blocks(container, stream, begins + start * down, begins + end)
    if wanted + count > 0 and frame is not None:
        resampler = AudioResampler(format="s16", layout="mono", rate=sample_rate_hz)
        pieces = [*resampler.resample(finite(frame)), *resampler.resample(None)]
        samples = np.concatenate([piece.to_ndarray()[0] for piece in pieces])
        at = start * up - wanted
        part = samples[max(-at, 0) : count - at]
        waveform[max(at, 0) : max(at, 0) + len(part)] = part
    return waveform


def _first_sample(stream: AudioStream) -> int:
    """Container time of the first sample heard: what an encoder needs before it is cut."""
    return max(stream.index_entries[0].timestamp, stream.start_time or 0)


def _decoded_blocks(
    container: InputContainer, stream: AudioStream, first: int, end: int
) -> AudioFrame | None:
    """The audio from a container time up to another in one frame; None where there is none."""
    context, rate = stream.codec_context, stream.codec_context.sample_rate
    block, warm_up = round(BLOCK_S * rate), round(WARM_UP_S * rate)
    start = (first - _LONGEST_FRAME) // block  # of the frame in which the first sample is
    container.seek(start * block - warm_up, stream=stream, backward=True)
    packets = []
    for packet in container.demux(stream):
        if packet.pts is None or packet.pts >= end:
            break
        packets.append((packet.pts, packet))
    decoded, begins, earliest = AudioFifo(), None, _first_sample(stream)
    step = stream.index_entries[1].timestamp - stream.index_entries[0].timestamp
    for begin in range(start * block, end, block):
        decoder = AudioCodecContext.create(context.codec, "r")
        assert isinstance(decoder, AudioCodecContext)
        decoder.extradata = context.extradata
        near = [packet for pts, packet in packets if begin - warm_up <= pts < begin + block]
        for frame in (frame for packet in near for frame in decoder.decode(packet)):
            if frame.pts is not None and frame.pts >= begin:
                cut = step - frame.samples if frame.pts < earliest else 0  # by the decoder
                begins = frame.pts + cut if begins is None else begins
                frame.pts = None
                decoded.write(frame)
    if begins is None:
        return None
    if (before := min(first - begins, decoded.samples)) > 0:
        decoded.read(before)  # 0 would be all
    return decoded.read()
