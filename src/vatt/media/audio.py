"""Reading the audio of a file as one mono waveform on the video clock: whole, in order, in spans.

Channels are mixed to mono and resampled by libswresample. Sample i is heard at time i / rate on the
video clock (zero is when the first frame is shown); a gap before or inside the track is zeros, and
what is heard before the first frame is cut.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from statistics import fmean, median_low
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
from vatt.media.container import MediaSource, audio_stream, describe, video_stream
from vatt.media.damage import Damage, decode

MAX_DURATION_S = 4 * 3600.0  # held in memory by `read_track`: 1.4 GB at 48 kHz
_DRIFT_S = 0.005  # a timestamp further than this from the count of samples is a gap, or uneven
_LOOK_S, _NEAR = 1.0, 8  # how far to look for whether times go on smoothly: seconds, frames
_SMOOTH_S = 0.002  # containers round times to milliseconds
_GAP_S = 0.1  # where times are uneven, more is a gap, as for FFmpeg's aresample=async
_STRETCH = 0.02
_RESAMPLED_AT_ONCE = 2**16  # samples
# Formats whose audio has the same times after a seek; after some frames it has the same samples.
_SEEKABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "wav", "flac", "ogg")
_SEEK_AFTER_S, _SETTLES_S = 10.0, 1.0

# ── a whole track ────────────────────────────────────────────────────────────────────────────────


def read_track(
    container: InputContainer, source: MediaSource, sample_rate_hz: int
) -> NDArray[np.int16] | None:
    """The whole audio track, read from the start of a container; see `MediaFile.audio`."""
    audio, video = audio_stream(container), video_stream(container)
    if audio is None:
        return None
    track, clock, pieces = _Track(sample_rate_hz), _VideoClock(video), list[_Piece]()
    for packet in container.demux([stream for stream in (audio, video) if stream]):
        if packet.stream.index == audio.index:  # the last, empty packets have no index
            for frame in packet.decode():
                assert isinstance(frame, AudioFrame)
                pieces += track.add(frame)
        else:
            clock.see(packet)
    pieces += track.finish()
    if not pieces:
        return None
    zero_s = clock.start_s if clock.start_s is not None else pieces[0].run_start_s
    placed = list(_placed(pieces, zero_s, sample_rate_hz))
    end = placed[-1][0] + len(placed[-1][1]) if placed else 0
    if clock.end_s is not None:
        end = min(end, round((clock.end_s - zero_s) * sample_rate_hz))
    return _waveform(placed, end, sample_rate_hz, source) if end > 0 else None


class _VideoClock:
    """When the video starts and ends, in container time; only the first frame is decoded."""

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


def _waveform(
    placed: Iterable[tuple[int, NDArray[np.int16]]], end: int, rate: int, source: MediaSource
) -> NDArray[np.int16]:
    if end > MAX_DURATION_S * rate:
        raise MediaError(
            f"{describe(source)}: sound up to {end / rate:,.0f} s, expected at most "
            f"{MAX_DURATION_S:,.0f} s; `vatt prepare` cuts files into parts"
        )
    waveform = np.zeros(end, np.int16)
    for start, samples in placed:
        if start < end:
            waveform[start : start + len(samples)] = samples[: end - start]
    return waveform


# ── in order, however long the file is ───────────────────────────────────────────────────────────


class AudioReader:
    """The audio of an open container on the video clock, read in order of time.

    Holds a second or two of audio, however long the file is.
    """

    def __init__(
        self,
        container: InputContainer,
        *,
        zero_s: float,
        sample_rate_hz: int,
        damage: Damage | None = None,
        first: int = 0,
    ) -> None:
        """Read the audio track whose zero is the container's time `zero_s`, from a sample on.

        See `decode` for `damage`.
        """
        stream, track = audio_stream(container), _Track(sample_rate_hz)
        frames = decode(container, stream, damage) if stream is not None else ()
        pieces = chain(chain.from_iterable(map(track.add, frames)), track.finish())
        self._placed = _placed(pieces, zero_s, sample_rate_hz, first)
        self.position = first  # number of the sample that is given next
        self._start, self._samples = next(self._placed, (0, np.zeros(0, np.int16)))

    @property
    def ended(self) -> bool:
        """Whether there is no more audio; true from the start when there is no track."""
        return not len(self._samples)

    def read_until(self, end: int) -> NDArray[np.int16]:
        """The samples from where the last call ended to number `end`; fewer where the track ends.

        Raises:
            MediaError: inside `media_errors`, when the audio cannot be decoded.
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


def first_audio_s(container: InputContainer) -> float:
    """The container's time at which the audio begins: zero of the clock where there is no video."""
    stream = audio_stream(container)
    assert stream is not None
    zero_s = next((frame.time for frame in container.decode(stream)), None) or 0.0
    container.seek(0, backward=True)
    return zero_s


def read_spans(
    container: InputContainer,
    spans: Sequence[tuple[int, int]],
    *,
    zero_s: float | None,
    sample_rate_hz: int,
    damage: Damage | None = None,
) -> list[NDArray[np.int16]] | None:
    """Some spans of a track without what lies between them, where the format can be trusted.

    Else it is read in order. Either way no more than a span is held in memory.

    Args:
        container: at its start.
        spans: first sample and number of samples of each, in ascending order.
        zero_s: the container's time of the video clock's zero; None: when the audio begins.
        sample_rate_hz: of the samples wanted.
        damage: see `decode`.

    Returns:
        int16 of each, fewer where the track ends; None when there is no track.
    """
    stream, rate = audio_stream(container), sample_rate_hz
    if stream is None:
        return None
    if zero_s is None:
        zero_s = first_audio_s(container)
    tick_s, seekable = float(stream.time_base or 1), container.format.name in _SEEKABLE
    reader, found = None, []
    for first, count in spans:
        if seekable and first - (reader.position if reader else 0) > _SEEK_AFTER_S * rate:
            start_s = max(zero_s + first / rate - _SETTLES_S, 0.0)
            container.seek(int(start_s / tick_s), stream=stream, backward=True)
            reader = AudioReader(
                container, zero_s=zero_s, sample_rate_hz=rate, damage=damage, first=first
            )
        reader = reader or AudioReader(container, zero_s=zero_s, sample_rate_hz=rate, damage=damage)
        while reader.position < first and not reader.ended:
            reader.read_until(min(first, reader.position + _RESAMPLED_AT_ONCE))
        found.append(reader.read_until(first + count))
    return found


class _Piece(NamedTuple):
    """Resampled audio: `samples` begin `offset` samples after the start of a run without gaps."""

    run_start_s: float
    offset: int
    samples: NDArray[np.int16]


def _placed(
    pieces: Iterable[_Piece], zero_s: float, rate: int, heard: int = 0
) -> Iterator[tuple[int, NDArray[np.int16]]]:
    """(first sample, samples) in ascending order, from `heard` on; what overlaps is cut."""
    for piece in pieces:
        start = round((piece.run_start_s - zero_s) * rate) + piece.offset
        late = max(heard - start, 0)
        if late < len(piece.samples):
            yield start + late, piece.samples[late:]
            heard = start + len(piece.samples)


class _Heard(NamedTuple):
    """A decoded frame; `late_s` is its time less the duration of all frames before it."""

    frame: AudioFrame
    start_s: float
    late_s: float


def _begins_s(heard: _Heard) -> float:
    """The duration of all frames before it."""
    return heard.start_s - heard.late_s


def _usual_late_s(heard: Iterable[_Heard]) -> float:
    """The mean of `late_s`, without what lies beyond a gap."""
    late_s = [one.late_s for one in heard]
    middle_s = median_low(late_s)
    return fmean(each for each in late_s if abs(each - middle_s) <= _GAP_S)


class _Track:
    """Decoded audio in runs without gaps, each resampled on its own.

    Times of frames that are not a smooth row (jitter of live recorders, several packets with one
    time, a clock that runs fast) are no gaps: the audio goes on, and is stretched by so little that
    it stays in time. Only what stays away begins a new run: a second of frames is looked ahead at.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate = sample_rate_hz
        self._resampler: AudioResampler | None = None
        self._waiting = AudioFifo()  # fewer, longer frames: half the time of the whole decoding
        self._form: tuple[str, str, int] | None = None
        self._ahead, self._behind = deque[_Heard](), deque[_Heard]()
        self._heard_s = 0.0  # the duration of all frames so far
        self._run_start_s, self._given = 0.0, 0
        self._uneven, self._first_late_s, self._usual_s, self._shifted_s = False, 0.0, 0.0, 0.0

    def add(self, frame: AudioFrame) -> Iterator[_Piece]:
        late_s = self._ahead[-1].late_s if self._ahead else -self._heard_s
        start_s = frame.time if frame.time is not None else self._heard_s + late_s
        self._ahead.append(_Heard(frame, start_s, start_s - self._heard_s))
        self._heard_s += frame.samples / frame.sample_rate
        while self._ahead and self._heard_s - _begins_s(self._ahead[0]) > _LOOK_S:
            yield from self._take(self._ahead.popleft())

    def finish(self) -> Iterator[_Piece]:
        """What is left of the track."""
        while self._ahead:
            yield from self._take(self._ahead.popleft())
        yield from self._end_run()

    def _take(self, heard: _Heard) -> Iterator[_Piece]:
        frame = heard.frame
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._form or self._begins_run(heard):
            yield from self._end_run()
            self._form = form
            self._resampler = AudioResampler(format="s16", layout="mono", rate=self._rate)
            self._run_start_s, self._given = heard.start_s, 0
            self._behind.clear()
            self._behind.append(heard)
            self._first_late_s = heard.late_s
            self._usual_s = _usual_late_s([*self._behind, *self._ahead])
            self._uneven, self._shifted_s = False, 0.0
        else:
            self._behind.append(heard)
            self._uneven |= abs(heard.late_s - self._first_late_s) > _DRIFT_S
        while heard.start_s - self._behind[0].start_s > _LOOK_S and len(self._behind) > 2:
            self._behind.popleft()
        frame.pts = None  # the resampler counts samples; the time of the run is kept here
        self._waiting.write(frame)
        if self._waiting.samples >= _RESAMPLED_AT_ONCE:
            yield from self._resampled(self._waiting.read())

    def _begins_run(self, heard: _Heard) -> bool:
        """Whether audio stays away: a gap, or times that begin anew; else it goes on."""
        jump_s = heard.late_s - self._behind[-1].late_s
        if abs(jump_s) <= _DRIFT_S:
            return False
        near_s = [one.late_s for one in islice(self._ahead, _NEAR)]
        smooth = all(abs(late_s - heard.late_s) <= _SMOOTH_S for late_s in near_s)
        if smooth and (len(near_s) >= _NEAR // 2 or not self._uneven):
            return True
        usual_s = _usual_late_s(self._behind)
        away_s = [late_s - usual_s for late_s in (heard.late_s, *near_s)]
        if min(away_s) > _GAP_S and len(near_s) >= _NEAR // 2:
            return True
        return (
            bool(near_s) and max(*away_s, *(one.late_s - usual_s for one in self._ahead)) < -_GAP_S
        )

    def _end_run(self) -> Iterator[_Piece]:
        if self._resampler is not None:
            if (rest := self._waiting.read()) is not None:
                yield from self._resampled(rest)
            yield from self._resampled(None)
            self._resampler, self._waiting = None, AudioFifo()

    def _resampled(self, frame: AudioFrame | None) -> Iterator[_Piece]:
        assert self._resampler is not None
        for piece in self._resampler.resample(frame and finite(frame)):
            samples = piece.to_ndarray()[0]
            if self._uneven:
                samples = self._in_time(samples)
            yield _Piece(self._run_start_s, self._given, samples)
            self._given += len(samples)

    def _in_time(self, samples: NDArray[np.int16]) -> NDArray[np.int16]:
        """Stretched by 2 % at most, where the clock has gone away from the count of samples."""
        late_s = _usual_late_s([*self._behind, *self._ahead])
        shift_s = late_s - self._usual_s - self._shifted_s
        most = int(len(samples) * _STRETCH)
        more = min(max(round(shift_s * self._rate), -most), most)
        if abs(shift_s) <= _DRIFT_S or not more:
            return samples
        self._shifted_s += more / self._rate
        return _stretched(samples, len(samples) + more)


def _stretched(samples: NDArray[np.int16], count: int) -> NDArray[np.int16]:
    """As many samples of the same audio, by cubic interpolation (Catmull-Rom)."""
    x = np.pad(samples.astype(np.float64), (1, 2), "reflect", reflect_type="odd")
    at = np.arange(count) * (len(samples) / count)
    left = at.astype(np.int64)
    before, one, two, after = (x[left + k] for k in range(4))
    f = at - left
    curve = one + f / 2 * (
        two
        - before
        + f * (2 * before - 5 * one + 4 * two - after + f * (3 * (one - two) + after - before))
    )
    return np.clip(np.rint(curve), -(2**15), 2**15 - 1).astype(np.int16)


def finite(frame: AudioFrame) -> AudioFrame:
    """The frame; float samples that are no finite numbers are silence."""
    name = frame.format.name
    if not name.startswith(("flt", "dbl")):
        return frame
    kind: type[np.floating] = np.float32 if name.startswith("flt") else np.float64
    count = frame.samples * (1 if frame.format.is_planar else frame.layout.nb_channels)
    with np.errstate(over="ignore", invalid="ignore"):  # a sum is finite only if all of it is
        sums = [np.frombuffer(memoryview(plane), kind, count).sum() for plane in frame.planes]
    if np.isfinite(sums).all():
        return frame
    samples = frame.to_ndarray()
    finite = np.where(np.isfinite(samples), samples, np.zeros_like(samples))
    silenced = AudioFrame.from_ndarray(finite, frame.format.name, frame.layout.name)
    silenced.sample_rate = frame.sample_rate
    return silenced


def resample(waveform: NDArray[np.float32], *, from_hz: int, to_hz: int) -> NDArray[np.float32]:
    """A mono waveform [S] at another rate, with the filter that files are resampled with."""
    frame = AudioFrame.from_ndarray(waveform[None].astype(np.float32), "fltp", "mono")
    frame.sample_rate = from_hz
    resampler = AudioResampler(format="fltp", layout="mono", rate=to_hz)
    pieces = [*resampler.resample(frame), *resampler.resample(None)]
    heard = np.concatenate([piece.to_ndarray()[0] for piece in pieces])
    length = round(len(waveform) * to_hz / from_hz)
    return np.pad(heard[:length], (0, max(0, length - len(heard))))
