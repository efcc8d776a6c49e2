"""Frames and sound of some moments of a stored file, read without what lies before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from vatt.media.audio import decode_audio
from vatt.media.audio_blocks import has_sound_blocks, read_sound
from vatt.media.container import MediaSource, audio_stream, opened, video_stream
from vatt.media.planes import Box, Planes, decode_all_planes, decode_planes
from vatt.media.video import FrameConverter, VideoReader, fill_frames, read_all_frames


class Moments:
    """One open file; made by `opened_moments`."""

    def __init__(self, container: InputContainer, source: MediaSource) -> None:
        self._container, self._sound = container, audio_stream(container)
        self.reader = VideoReader(container, source, zero=_zero(container))

    def frames(self, times_s: NDArray[np.float64], *, size: tuple[int, int]) -> NDArray[np.uint8]:
        """RGB frames, as `decode_frames` gives them."""
        frames = np.empty((len(times_s), *size, 3), np.uint8)
        fill_frames(frames, self.reader, times_s, FrameConverter(size))
        return frames

    def planes(self, times_s: NDArray[np.float64], cut: Callable[[int, int], Box]) -> Planes:
        """Luma and chroma, as `decode_planes` gives them."""
        return decode_planes(self.reader, times_s, cut)

    def all_frames(
        self, size: tuple[int, int] | None
    ) -> tuple[NDArray[np.uint8] | Planes, NDArray[np.float64]]:
        """RGB frames of a size, or planes, of the whole video; and when each is first shown."""
        if size is None:
            return decode_all_planes(self.reader)
        return read_all_frames(self.reader, size=size)

    def whole_track(self, sample_rate_hz: int, end_s: float) -> NDArray[np.int16] | None:
        """All samples, up to the end of the picture; None without sound."""
        if self.has_sound(sample_rate_hz):
            return self.sound(0, round(end_s * sample_rate_hz))
        return decode_audio(self.reader.source, sample_rate_hz=sample_rate_hz)

    def has_sound(self, sample_rate_hz: int) -> bool:
        """Whether `sound` can be asked for; else decode the whole track."""
        return self._sound is not None and has_sound_blocks(self._sound, sample_rate_hz)

    def sound(self, first: int, count: int) -> NDArray[np.int16]:
        """Mono samples of the video clock, from number `first` on; zeros where there is none."""
        assert self._sound is not None
        zero = round(self.reader.zero_s * self._sound.codec_context.sample_rate)
        return read_sound(self._container, self._sound, zero + first, count)


@contextmanager
def opened_moments(source: MediaSource) -> Iterator[Moments]:
    """A file, open to read moments of it: frames first, then sound.

    Raises:
        MediaError: it cannot be opened, holds no picture, or the block cannot decode it.
    """
    with opened(source, quickly=True) as container:
        yield Moments(container, source)


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
