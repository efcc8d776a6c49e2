"""The sound of a media file as one mono waveform on the video clock."""

from __future__ import annotations

import numpy as np
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from vatt.errors import MediaError
from vatt.media.container import Source, audio_stream, describe, opened, video_stream

MAX_DURATION_S = 4 * 3600.0  # 1.4 GB at 48 kHz; longer files are to be cut into parts
_DRIFT_S = 0.005  # sound whose timestamps stray further from its sample count is placed anew
_BLOCK = 2**16  # samples to resample at once


def decode_audio(source: Source, *, sample_rate_hz: int) -> NDArray[np.int16] | None:
    """The whole sound track, mixed to mono and resampled, in step with the picture.

    Sample i is heard at time i / sample_rate_hz on the video clock (zero is when the first frame
    is shown). A gap before or inside the track is zeros; what is heard before the first frame, or
    after the last one has left the screen (an encoder's padding), is cut. The track may end before
    the video does: then the waveform is shorter. Without a picture the clock starts with the sound.

    The whole track is decoded because some codecs (AAC with noise substitution) give other samples
    after a seek.

    Returns:
        int16 [S], or None when the file has no sound track or nothing in it.

    Raises:
        MediaError: the sound cannot be decoded, or lasts longer than MAX_DURATION_S.
    """
    with opened(source) as container:
        sound, picture = audio_stream(container), video_stream(container)
        if sound is None:
            return None
        track, clock = _Track(sample_rate_hz), _VideoClock(picture)
        for packet in container.demux([stream for stream in (sound, picture) if stream]):
            if packet.stream.index == sound.index:  # the last, empty packets have no index
                for frame in packet.decode():
                    assert isinstance(frame, AudioFrame)
                    track.add(frame)
            else:
                clock.see(packet)
        return track.waveform(clock, source)


class _VideoClock:
    """When the picture starts and ends, in container time; only the first frame is decoded."""

    def __init__(self, stream: VideoStream | None) -> None:
        self.start_s: float | None = None
        self.end_s: float | None = None
        rate = stream and (stream.average_rate or stream.guessed_rate)
        self._usual_s = 1 / float(rate) if rate else 0.0

    def see(self, packet: Packet[Stream]) -> None:
        tick_s = float(packet.time_base)
        if self.start_s is None:
            for frame in packet.decode():
                assert isinstance(frame, VideoFrame)
                timestamp = frame.pts if frame.pts is not None else frame.dts
                if timestamp is not None:
                    self.start_s = timestamp * tick_s
                    break
        if packet.pts is not None and not packet.is_discard:
            end_s = packet.pts * tick_s + ((packet.duration or 0) * tick_s or self._usual_s)
            self.end_s = max(end_s, self.end_s or end_s)


class _Track:
    """Decoded sound in stretches without gaps, each resampled on its own."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate = sample_rate_hz
        self._stretches: list[tuple[float, list[NDArray[np.int16]]]] = []  # start time, pieces
        self._resampler: AudioResampler | None = None
        self._waiting = AudioFifo()  # fewer, longer frames: half the time of the whole decoding
        self._form: tuple[str, str, int] | None = None
        self._next_s = 0.0

    def add(self, frame: AudioFrame) -> None:
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        start_s = frame.time if frame.time is not None else self._next_s
        if form != self._form or abs(start_s - self._next_s) > _DRIFT_S:
            self._finish_stretch()
            self._form, self._next_s = form, start_s
            self._resampler = AudioResampler(format="s16", layout="mono", rate=self._rate)
            self._stretches.append((start_s, []))
        self._next_s += frame.samples / frame.sample_rate
        frame.pts = None  # the resampler counts samples; the stretch knows its time
        self._waiting.write(frame)
        if self._waiting.samples >= _BLOCK:
            self._resample(self._waiting.read())

    def _resample(self, frame: AudioFrame | None) -> None:
        assert self._resampler is not None
        pieces = self._stretches[-1][1]
        pieces += [piece.to_ndarray()[0] for piece in self._resampler.resample(frame)]

    def _finish_stretch(self) -> None:
        if self._resampler is not None:
            if (rest := self._waiting.read()) is not None:
                self._resample(rest)
            self._resample(None)
            self._resampler, self._waiting = None, AudioFifo()

    def waveform(self, clock: _VideoClock, source: Source) -> NDArray[np.int16] | None:
        """The stretches at their places on the video clock."""
        self._finish_stretch()
        if not self._stretches:
            return None
        zero_s = clock.start_s if clock.start_s is not None else self._stretches[0][0]
        placed = [
            (round((start_s - zero_s) * self._rate), np.concatenate(pieces))
            for start_s, pieces in self._stretches
            if pieces
        ]
        end = max((start + len(samples) for start, samples in placed), default=0)
        if clock.end_s is not None:
            end = min(end, round((clock.end_s - zero_s) * self._rate))
        if end > MAX_DURATION_S * self._rate:
            raise MediaError(
                f"{describe(source)}: sound up to {end / self._rate:,.0f} s, expected at most "
                f"{MAX_DURATION_S:,.0f} s; cut the file into parts"
            )
        if end <= 0:
            return None
        waveform = np.zeros(end, np.int16)
        for start, samples in placed:
            first, last = max(start, 0), min(start + len(samples), end)
            if first < last:
                waveform[first:last] = samples[first - start : last - start]
        return waveform


def resample(waveform: NDArray[np.float32], *, from_hz: int, to_hz: int) -> NDArray[np.float32]:
    """A mono waveform [S] at another rate, with the filter that `decode_audio` uses."""
    frame = AudioFrame.from_ndarray(waveform[None].astype(np.float32), "fltp", "mono")
    frame.sample_rate = from_hz
    resampler = AudioResampler(format="fltp", layout="mono", rate=to_hz)
    pieces = [*resampler.resample(frame), *resampler.resample(None)]
    heard = np.concatenate([piece.to_ndarray()[0] for piece in pieces])
    length = round(len(waveform) * to_hz / from_hz)
    return np.pad(heard[:length], (0, max(0, length - len(heard))))
