"""The sound of a media file as one mono waveform on the video clock: whole, or a stretch at a time.

Channels are mixed to mono and resampled by libswresample. Sample i is heard at time i / rate on the
video clock (zero is when the first frame is shown); a gap before or inside the track is zeros, and
what is heard before the first frame is cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from vatt.errors import MediaError
from vatt.media.container import MediaSource, audio_stream, describe, opened, video_stream

MAX_DURATION_S = 4 * 3600.0  # held in memory by `decode_audio`: 1.4 GB at 48 kHz
_DRIFT_S = 0.005  # sound whose timestamps stray further from its sample count is placed anew
_BLOCK = 2**16  # samples to resample at once


def decode_audio(source: MediaSource, *, sample_rate_hz: int) -> NDArray[np.int16] | None:
    """The whole sound track, mixed to mono and resampled, in step with the picture.

    What is heard after the last frame has left the screen (an encoder's padding) is cut. The track
    may end before the video does: then the waveform is shorter. Without a picture the clock starts
    with the sound.

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
        track, clock, pieces = _Track(sample_rate_hz), _VideoClock(picture), list[_Piece]()
        for packet in container.demux([stream for stream in (sound, picture) if stream]):
            if packet.stream.index == sound.index:  # the last, empty packets have no index
                for frame in packet.decode():
                    assert isinstance(frame, AudioFrame)
                    pieces += track.add(frame)
            else:
                clock.see(packet)
        pieces += track.finish()
    return _joined(pieces, clock, sample_rate_hz, source) if pieces else None


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


def _joined(
    pieces: list[_Piece], clock: _VideoClock, rate: int, source: MediaSource
) -> NDArray[np.int16] | None:
    zero_s = clock.start_s if clock.start_s is not None else pieces[0].stretch_s
    placed = list(_placed(pieces, zero_s, rate))
    end = placed[-1][0] + len(placed[-1][1]) if placed else 0
    if clock.end_s is not None:
        end = min(end, round((clock.end_s - zero_s) * rate))
    if end > MAX_DURATION_S * rate:
        raise MediaError(
            f"{describe(source)}: sound up to {end / rate:,.0f} s, expected at most "
            f"{MAX_DURATION_S:,.0f} s; `vatt prepare` cuts files into parts"
        )
    if end <= 0:
        return None
    waveform = np.zeros(end, np.int16)
    for start, samples in placed:
        if start < end:
            waveform[start : start + len(samples)] = samples[: end - start]
    return waveform


class SoundReader:
    """The sound of an open container on the video clock, read in order of time.

    Holds a second or two of sound, however long the file is.
    """

    def __init__(self, container: InputContainer, *, zero_s: float, sample_rate_hz: int) -> None:
        """Read the sound track whose zero is the container's time `zero_s`."""
        self._placed = _placed(_decoded(container, sample_rate_hz), zero_s, sample_rate_hz)
        self.position = 0  # number of the sample that is given next
        self._start, self._samples = next(self._placed, (0, np.zeros(0, np.int16)))

    @property
    def ended(self) -> bool:
        """Whether there is no more sound; true from the start when there is no track."""
        return not len(self._samples)

    def read_until(self, end: int) -> NDArray[np.int16]:
        """The samples from where the last call ended to number `end`; fewer where the track ends.

        Raises:
            MediaError: by way of `opened`, when the sound cannot be decoded.
        """
        pieces = []
        while self.position < end and not self.ended:
            if self._start > self.position:
                gap = min(self._start, end) - self.position
                pieces.append(np.zeros(gap, np.int16))
                self.position += gap
                continue
            taken, rest = np.split(self._samples, [end - self.position])
            pieces.append(taken)
            self.position += len(taken)
            self._start, self._samples = self.position, rest
            if not len(rest):
                self._start, self._samples = next(self._placed, (0, rest))
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)


class _Piece(NamedTuple):
    """Resampled sound: `samples` begin `offset` samples after a stretch that starts at a time."""

    stretch_s: float
    offset: int
    samples: NDArray[np.int16]


def _placed(
    pieces: Iterable[_Piece], zero_s: float, rate: int
) -> Iterator[tuple[int, NDArray[np.int16]]]:
    """(first sample, samples) in ascending order, from 0 on; what would be heard twice is cut."""
    heard = 0
    for piece in pieces:
        start = round((piece.stretch_s - zero_s) * rate) + piece.offset
        late = max(heard - start, 0)
        if late < len(piece.samples):
            yield start + late, piece.samples[late:]
            heard = start + len(piece.samples)


def _decoded(container: InputContainer, rate: int) -> Iterator[_Piece]:
    sound = audio_stream(container)
    if sound is not None:
        track = _Track(rate)
        for frame in container.decode(sound):
            yield from track.add(frame)
        yield from track.finish()


class _Track:
    """Decoded sound in stretches without gaps, each resampled on its own."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate = sample_rate_hz
        self._resampler: AudioResampler | None = None
        self._waiting = AudioFifo()  # fewer, longer frames: half the time of the whole decoding
        self._form: tuple[str, str, int] | None = None
        self._next_s = 0.0
        self._stretch_s, self._given = 0.0, 0

    def add(self, frame: AudioFrame) -> Iterator[_Piece]:
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        start_s = frame.time if frame.time is not None else self._next_s
        if form != self._form or abs(start_s - self._next_s) > _DRIFT_S:
            yield from self.finish()
            self._form, self._next_s = form, start_s
            self._resampler = AudioResampler(format="s16", layout="mono", rate=self._rate)
            self._stretch_s, self._given = start_s, 0
        self._next_s += frame.samples / frame.sample_rate
        frame.pts = None  # the resampler counts samples; the stretch knows its time
        self._waiting.write(frame)
        if self._waiting.samples >= _BLOCK:
            yield from self._resampled(self._waiting.read())

    def finish(self) -> Iterator[_Piece]:
        """What is left of the stretch."""
        if self._resampler is not None:
            if (rest := self._waiting.read()) is not None:
                yield from self._resampled(rest)
            yield from self._resampled(None)
            self._resampler, self._waiting = None, AudioFifo()

    def _resampled(self, frame: AudioFrame | None) -> Iterator[_Piece]:
        assert self._resampler is not None
        for piece in self._resampler.resample(frame):
            samples = piece.to_ndarray()[0]
            yield _Piece(self._stretch_s, self._given, samples)
            self._given += len(samples)


def resample(waveform: NDArray[np.float32], *, from_hz: int, to_hz: int) -> NDArray[np.float32]:
    """A mono waveform [S] at another rate, with the filter that `decode_audio` uses."""
    frame = AudioFrame.from_ndarray(waveform[None].astype(np.float32), "fltp", "mono")
    frame.sample_rate = from_hz
    resampler = AudioResampler(format="fltp", layout="mono", rate=to_hz)
    pieces = [*resampler.resample(frame), *resampler.resample(None)]
    heard = np.concatenate([piece.to_ndarray()[0] for piece in pieces])
    length = round(len(waveform) * to_hz / from_hz)
    return np.pad(heard[:length], (0, max(0, length - len(heard))))
