"""One open media file: its facts, its frames at given times, its planes, its audio.

`with open_media(path) as media:` opens it once; `media.facts`, `media.frames(…)`,
`media.planes(…)` and `media.audio(…)` read it. `probe`, `decode_frames` and `decode_audio` do one
of these things alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from vatt.errors import MediaError
from vatt.media.audio import AudioReader, first_audio_s, read_spans, read_track
from vatt.media.audio_blocks import has_audio_blocks, read_audio_blocks
from vatt.media.container import (
    MP4,
    MediaSource,
    audio_stream,
    describe,
    is_image,
    media_errors,
    open_audio_alone,
    open_container,
    video_stream,
)
from vatt.media.damage import CUT_OFF, STEADY, Damage, Gap
from vatt.media.facts import (
    MediaFacts,
    PacketFacts,
    declared_s,
    packets_in_table,
    read_facts,
    read_packets,
)
from vatt.media.file_layout import has_all_its_bytes
from vatt.media.frame_filters import FrameConverter, RgbConverter
from vatt.media.planes import Box, Planes, decode_all_planes, decode_planes
from vatt.media.video import Reached, TimedFrame, VideoReader

_MAX_DECODED_BYTES = 8 * 2**30  # of one `all_frames`
_LEAST_LOST_S = 0.5  # of the declared duration; edit lists and rounding take less


@contextmanager
def open_media(
    source: MediaSource,
    *,
    quickly: bool = False,
    damaged: bool = False,
    sparsely: bool = False,
    reached: Reached = lambda _: None,
) -> Iterator[MediaFile]:
    """Open a file to read it.

    Args:
        source: a file, its content, or a part of a file.
        quickly: for a few frames and samples of a stored file: its header is believed and its
            first frame not decoded, where it is an MP4 file that allows it. Not for `facts`.
        damaged: the file may be: what is damaged is left out and noted (`MediaFile.gaps`) by
            `facts` and `video`, and by others who are given `MediaFile.damage`.
        sparsely: for a few seconds of a file that may be long: `facts` and `packets` go by the
            table of an MP4 file and do not read all of it.
        reached: told, often, how many seconds of the file were read, in each reading of it.

    Raises:
        MediaError: it cannot be opened.
    """
    with ExitStack() as handles:
        damage = Damage() if damaged else None
        yield MediaFile(
            source, handles, quickly=quickly, damage=damage, sparsely=sparsely, reached=reached
        )


class MediaFile:
    """One open file, whose methods may be called in any order; made by `open_media`.

    Raises (while reading):
        MediaError: the file has no such stream, is damaged, or holds more than it may.
    """

    def __init__(
        self,
        source: MediaSource,
        handles: ExitStack,
        *,
        quickly: bool,
        damage: Damage | None,
        sparsely: bool,
        reached: Reached,
    ) -> None:
        self.source, self.damage, self._reached = source, damage, reached
        self._sparsely = sparsely
        self.container = handles.enter_context(open_container(source, quickly=quickly))
        self._handles, self._quickly = handles, quickly
        self._unread = None if quickly else self.container
        self._forwards: VideoReader | None = None

    def handle(self) -> InputContainer:
        """The file at its start: the handle it was opened with, or a new one once that is in use.

        Frames and audio are read side by side by two handles: wherever the file keeps its audio,
        neither has to be held in memory while the other is read. A handle that is in use does not
        seek back to the start, because not every format comes back to the same frame.
        """
        handle, self._unread = self._unread, None
        if handle is None:
            handle = self._handles.enter_context(open_container(self.source))
        return handle

    @cached_property
    def facts(self) -> MediaFacts:
        """What it holds, by its headers, packets and first frame."""
        with media_errors(self.source):
            reader = self._reader if self.has_video else None
            return read_facts(self.container, reader, self.packets)

    @property
    def has_video(self) -> bool:
        """Whether it has a video track and not audio alone; a cover is none."""
        if video_stream(self.container) is not None:
            return True
        if audio_stream(self.container) is None:
            raise MediaError(f"{describe(self.source)}: holds neither picture nor sound")
        return False

    @property
    def is_image(self) -> bool:
        """Whether it is the file of a still image."""
        return is_image(self.container)

    @property
    def declared_s(self) -> float:
        """How long it says that its video is; 0 when it does not say."""
        return declared_s(self.container)

    @cached_property
    def packets(self) -> PacketFacts:
        """How it is stored, by all of its packets."""
        assert not self._quickly, "the handle is for a few frames and samples"
        with media_errors(self.source):
            zero_s = self._reader.zero_s if self.has_video else None
            found = None
            if self._sparsely:
                found = packets_in_table(self.container, self.source, zero_s)
            return found or read_packets(self.handle(), self.source, zero_s, self._reached)

    def gaps(self, end_s: float) -> list[Gap]:
        """What is damaged of a file opened as `damaged`, in order, once it has been read.

        Args:
            end_s: when the last healthy frame leaves the screen. Where the file says that it is
                longer, or has bytes of nothing known at its end, the rest is a gap: `CUT_OFF` when
            there are no bytes of it.
        """
        assert self.damage is not None
        zero_s, container = self._reader.zero_s, self.container
        gaps, whole = self.damage.gaps(zero_s), self.damage.is_read_to_its_end(container.size)
        if "mp4" in container.format.name.split(","):  # it has a table of all its frames
            declared_s, reached_s = self.declared_s, end_s
        else:  # the audio may be longer than the video
            declared_s = self.facts.start_s + (container.duration or 0) / av.time_base
            if "matroska" in container.format.name:  # some programs count from time zero
                declared_s -= max(container.start_time or 0, 0) / av.time_base
            reached_s = max(end_s, self.damage.end_s - zero_s)
            if not whole and (not container.duration or container.format.name in STEADY):
                declared_s = reached_s * container.size / self.damage.read_bytes
        start_s = max([end_s, *(gap.end_s for gap in gaps)])
        is_short = max(reached_s, start_s) < declared_s - _LEAST_LOST_S
        if is_short and not (whole and has_all_its_bytes(container)):
            gaps.append(Gap(start_s, declared_s, CUT_OFF if whole else "missing"))
        return gaps

    # ── frames ───────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def _reader(self) -> VideoReader:
        if not self._quickly:
            return self._new_reader()
        return VideoReader(self.container, self.source, zero=_zero(self.container))

    def video(self) -> VideoReader:
        """A reader of its frames, at the first of them; that of `read_forwards` once begun."""
        if self._forwards is not None:
            return self._forwards
        with media_errors(self.source):
            if self._reader.begun:
                return self._new_reader()
            return self._reader

    def read_forwards(self, times_s: NDArray[np.float64]) -> None:
        """Name all times, ascending, that calls of `frames` or `planes` will ask for, one by one.

        They then decode the video once between them.
        """
        with media_errors(self.source):
            self._forwards = self.video()
            self._forwards.announce(times_s)

    def _new_reader(self) -> VideoReader:
        return VideoReader(self.handle(), self.source, damage=self.damage, reached=self._reached)

    def frames(
        self,
        times_s: NDArray[np.float64],
        *,
        size: tuple[int, int],
        stored: tuple[int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """The frames on screen at the asked times.

        Args:
            times_s: [T] seconds on the video clock, in any order; see `video.on_screen`.
            size: (H, W) to scale to; the first frame of the video would fill it, so keep its aspect
                or accept the change. Later frames of another shape keep theirs, inside of black.
            stored: (H, W) in which shards store the frames; they are converted to that before.

        Returns:
            uint8 [T, H, W, 3], RGB, upright; each frame is converted alone, so that the same frame
            has the same bytes however it was reached.

        Raises:
            MediaError: the video ends before a time, or cannot be decoded.
        """
        frames = np.empty((len(times_s), *size, 3), np.uint8)
        last: TimedFrame | None = None
        with media_errors(self.source):
            reader = self.video()
            store = None
            if stored:
                store = FrameConverter(
                    stored, "yuv420p", filled_by=reader.aspect, over_white=reader.over_white
                )
            filled_by = None if stored else reader.aspect
            convert = RgbConverter(
                size,
                filled_by=filled_by,
                are_upright=stored is not None,
                over_white=reader.over_white,
            )
            for place, timed in reader.frames_at(times_s):
                if timed is not last:
                    _, _, frame, sample_aspect = last = timed
                    frame = store(frame, sample_aspect) if store else frame
                    rgb = convert(frame, sample_aspect)
                frames[place] = rgb
        return frames

    def all_frames(
        self, size: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64], float]:
        """Every frame, with the time at which it is shown.

        Returns:
            frames: uint8 [N, H, W, 3], the bytes that `frames` gives for the same frame.
            starts_s: float64 [N], ascending seconds on the video clock; the first is 0.
            end_s: when the last frame leaves the screen; `frames` refuses times from there on.

        Raises:
            MediaError: the video cannot be decoded, or is too long to hold in memory at this size.
        """
        frames, starts_s = list[NDArray[np.uint8]](), list[float]()
        most = _MAX_DECODED_BYTES // (size[0] * size[1] * 3)
        with media_errors(self.source):
            reader = self.video()
            convert = RgbConverter(size, filled_by=reader.aspect, over_white=reader.over_white)
            for timed in reader.frames():
                if len(frames) == most:
                    raise MediaError(
                        f"{describe(self.source)}: more than {most} frames of {size[0]}x{size[1]}, "
                        "too many to hold in memory; cut the video into parts or decode at a "
                        "smaller size"
                    )
                frames.append(convert(timed.frame, timed.sample_aspect))
                starts_s.append(timed.start_s)
            return np.stack(frames), np.array(starts_s), reader.end_s

    def count_frames(self) -> int:
        """The number of frames, all of which are decoded."""
        with media_errors(self.source):
            return sum(1 for _ in self.video().frames())

    def planes(
        self,
        times_s: NDArray[np.float64],
        cut: Callable[[int, int], Box],
        size: tuple[int, int] | None = None,
    ) -> Planes:
        """Luma and chroma of a box of the frames on screen at [T] times, as they are stored.

        Args:
            times_s: [T], at least one, as for `frames`.
            cut: from the height and width of the frames to the box that is wanted.
            size: (H, W) to scale to first, as shards are stored; their own if not given.
        """
        with media_errors(self.source):
            return decode_planes(self.video(), times_s, cut, size)

    def all_planes(self) -> tuple[Planes, NDArray[np.float64], float]:
        """The planes of every frame, whole; times as of `all_frames`."""
        with media_errors(self.source):
            reader = self.video()
            return *decode_all_planes(reader), reader.end_s

    # ── audio ────────────────────────────────────────────────────────────────────────────────────

    def audio(self, *, sample_rate_hz: int) -> NDArray[np.int16] | None:
        """The whole audio track, mixed to mono and resampled, in step with the video.

        What is heard after the last frame has left the screen (an encoder's padding) is cut. The
        track may end before the video does: then the waveform is shorter. Without video the clock
        starts with the audio.

        The whole track is decoded because some codecs (AAC with noise substitution) give other
        samples after a seek.

        Returns:
            int16 [S], or None when the file has no audio track or nothing in it.

        Raises:
            MediaError: the audio cannot be decoded, or lasts longer than `audio.MAX_DURATION_S`.
        """
        with media_errors(self.source):
            return read_track(self.handle(), self.source, sample_rate_hz)

    def audio_spans(
        self, spans: Sequence[tuple[int, int]], *, sample_rate_hz: int
    ) -> list[NDArray[np.int16]] | None:
        """Spans (first sample, number) of `audio`, ascending, without reading all of a long file.

        Where it seeks they differ from `audio` by less than a sample's shift. Spans are shorter
        where the track ends.
        """
        with media_errors(self.source):
            container, zero_s = self.handle(), self._reader.zero_s if self.has_video else None
            return read_spans(
                container,
                spans,
                zero_s=zero_s,
                sample_rate_hz=sample_rate_hz,
                damage=self.damage,
            )

    def audio_reader(self, *, sample_rate_hz: int) -> AudioReader:
        """Reads the samples of `audio` in order, however long the file is.

        Its `read_until` is to be called inside `media_errors`.
        """
        with media_errors(self.source):
            zero_s = self._reader.zero_s if self.has_video else None
            if zero_s is not None and self.container.format.name == MP4:
                container = open_audio_alone(self.source)
                self._handles.enter_context(container)
            else:
                container = self.handle()
            zero_s = first_audio_s(container) if zero_s is None else zero_s
            return AudioReader(
                container, zero_s=zero_s, sample_rate_hz=sample_rate_hz, damage=self.damage
            )

    def has_audio_at(self, sample_rate_hz: int) -> bool:
        """Whether `audio_at` can be asked for samples at this rate; else decode all by `audio`."""
        with media_errors(self.source):
            track = audio_stream(self.container)
            return track is not None and has_audio_blocks(track, sample_rate_hz)

    def audio_at(self, first: int, count: int, *, sample_rate_hz: int) -> NDArray[np.int16]:
        """`count` samples of `audio` from number `first` on, without decoding all before them.

        They are at a rate for which `has_audio_at`; zeros where there is no audio. A sample is
        the same wherever reading begins.
        """
        with media_errors(self.source):
            container, zero_s = self.container, self._reader.zero_s
            if not self._reader.begun:
                container = self.handle()
            track = audio_stream(container)
            assert track is not None
            return read_audio_blocks(
                container, track, first, count, zero_s=zero_s, sample_rate_hz=sample_rate_hz
            )


def _zero(container: InputContainer) -> int | None:
    """Container time of the first frame where its packet tells: without decoding it.

    A sync sample shown as soon as it is decoded comes before all others. Streams with B-frames and
    those whose start an edit list cuts are left to the decoder.
    """
    stream = video_stream(container)
    if stream is None or not container.format.name.startswith("mov"):
        return None
    packet = next(container.demux(stream))
    plain = packet.is_keyframe and not packet.is_discard and packet.pts == packet.dts
    container.seek(0, backward=True)
    return packet.pts if plain and packet.pts == stream.start_time else None


def probe(source: MediaSource) -> MediaFacts:
    """What a file holds, by its headers and first frame.

    Raises:
        MediaError: the file cannot be opened, holds neither video nor audio, or its first frame
            cannot be decoded.
    """
    with open_media(source) as media:
        return media.facts


def decode_frames(
    source: MediaSource, times_s: NDArray[np.float64], *, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """uint8 [T, H, W, 3]: see `MediaFile.frames`."""
    with open_media(source) as media:
        return media.frames(times_s, size=size)


def decode_audio(source: MediaSource, *, sample_rate_hz: int) -> NDArray[np.int16] | None:
    """int16 [S], None without audio: see `MediaFile.audio`."""
    with open_media(source) as media:
        return media.audio(sample_rate_hz=sample_rate_hz)
