"""The form in which videos are stored in shards: whether a file has it, and encoding it.

H.264 yuv420p (BT.709, limited range, and tagged so) at a constant rate, upright, progressive,
square pixels, even sides, without B-frames and with a key frame at least every `gop` frames, so
that any moment is reached by decoding a few frames; AAC mono at 48 kHz in the same MP4 file.
Nothing is ever scaled up, in size or in rate.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import count, groupby
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc

from vatt.errors import MediaError
from vatt.media.audio import AudioReader
from vatt.media.container import audio_stream, describe, media_errors, video_stream
from vatt.media.damage import decode
from vatt.media.facts import MediaFacts, VideoFacts
from vatt.media.frame_filters import (
    BT709,
    SDR_MATRICES,
    FrameConverter,
    color_matrix,
    is_vivid,
    shown_size,
)
from vatt.media.media_file import MediaFile, probe
from vatt.media.video import on_screen

SAMPLE_RATE_HZ = 48_000
PART_S = 300.0  # longer videos are cut into parts of this length
SHORTEST_PART = 0.1  # of a part's length: a shorter rest stays with the part before it
MAX_DURATION_S = 24 * 3600.0  # longer ones have damaged times
_AUDIO_BITS_PER_S = 96_000
# fastdecode: read in 0.4 of the time for a tenth more bytes. x264's macroblock tree gave other
# bytes for the same frames about once in a hundred times; without it they are always the same.
X264 = {
    "preset": "veryfast",
    "tune": "fastdecode",
    "crf": "20",
    "bf": "0",
    "x264-params": "mbtree=0",
}
_MIN_FPS, _MAX_FPS = Fraction(1, 10), Fraction(240)  # others are those of damaged headers
_MAX_LOST_S = 0.5  # of a video's declared duration; edit lists and rounding take less


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredForm:
    """Limits of the stored form. fps None keeps the source's own rate."""

    short_side: int
    fps: Fraction | None
    gop: int


def stored_size(facts: VideoFacts, form: StoredForm) -> tuple[int, int]:
    """(H, W) in the stored form: upright, square pixels, even, short side at most `form`'s."""
    height, width = shown_size(facts.height, facts.width, facts.sample_aspect, facts.rotation // 90)
    scale = min(1.0, form.short_side / min(height, width))
    return _even(height * scale), _even(width * scale)


def _even(side: float) -> int:
    return max(2, 2 * round(side / 2))


def stored_fps(facts: VideoFacts, form: StoredForm) -> Fraction:
    """Frames per second in the stored form: the asked rate, or the source's own if that is less.

    A source that is not steady has no rate of its own: its frames may come at any time.
    """
    own = min(max(facts.fps or Fraction(25), _MIN_FPS), _MAX_FPS)
    return own if form.fps is None or (facts.steady and own < form.fps) else form.fps


# ── files that have it ───────────────────────────────────────────────────────────────────────────


def has_stored_form(media: MediaFile, form: StoredForm, *, part_s: float = PART_S) -> bool:
    """Whether a file can be kept byte for byte: already in the stored form, or a smaller one.

    Its packets are read, and when they are as they should be, all of its video and audio is
    decoded: what cannot be encoded is not kept either.

    Raises:
        MediaError: the file is damaged, or holds fewer frames than its own table says.
    """
    video, audio = media.facts.video, media.facts.audio
    if video is None or video.fps is None or video.codec != "h264" or video.pix_fmt != "yuv420p":
        return False
    if audio is not None and (audio.codec, audio.sample_rate_hz) != ("aac", SAMPLE_RATE_HZ):
        return False
    with media_errors(media.source):
        return (
            (video.height, video.width) == stored_size(video, form)
            and video.fps == stored_fps(video, form)
            and (video.rotation, video.mirrored) == (0, False)
            and media.facts.duration_s < part_s * (1 + SHORTEST_PART)
            and _is_evenly_coded(media, form.gop)
            and _decodes_as_it_is(media)
        )


def _is_evenly_coded(media: MediaFile, gop: int) -> bool:
    """MP4 with a constant rate, no B-frames, and a key frame at least every `gop` frames."""
    if "mp4" not in media.container.format.name.split(","):
        return False
    container = media.handle()
    stream = video_stream(container)
    assert stream is not None
    times, since_key = [], 0
    for packet in container.demux(stream):
        if packet.pts is None or packet.is_corrupt:
            break  # the end, or where the file is cut off
        times.append(packet.pts)
        since_key = 1 if packet.is_keyframe else since_key + 1
        if since_key > gop or packet.is_discard:
            return False
    if stream.frames and len(times) < stream.frames:
        raise MediaError(
            f"{describe(media.source)}: holds {len(times)} of {stream.frames} frames; it is cut "
            "off or damaged: get it again"
        )
    steps = np.diff(times)
    return len(times) > 0 and len(np.unique(steps)) <= 1 and bool((steps > 0).all())


def _decodes_as_it_is(media: MediaFile) -> bool:
    """Whether all frames are stored as they are to be shown; all of the audio is decoded, too."""
    reader = media.video()
    for timed in reader.frames():
        if (
            reader.interlaced
            or (timed.frame.height, timed.frame.width) != reader.size
            or timed.sample_aspect != reader.sample_aspect
            or color_matrix(timed.frame) not in SDR_MATRICES
            or timed.frame.color_range not in (ColorRange.UNSPECIFIED, ColorRange.MPEG)
            or is_vivid(timed.frame)
        ):
            return False
    container = media.handle()
    if (audio := audio_stream(container)) is not None:
        deque(decode(container, audio, media.damage), maxlen=0)
    return media.damage is None or not media.damage.spans


# ── encoding it ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A stored file, its facts, and the times of the source's video clock that it holds.

    Its own clock starts with its first frame: what is at t in the source is at t - start_s in it.
    """

    path: Path
    start_s: float
    end_s: float
    facts: MediaFacts


def encode_parts(
    media: MediaFile, folder: Path, form: StoredForm, *, part_s: float = PART_S
) -> Iterator[Part]:
    """Make the stored form of a video, in one pass: several files when it is long.

    The frame at k / fps is the one on screen in the source at that time after its first frame; the
    audio keeps its place beside the frames. Parts are cut between two of these frames, and hold
    neither frames nor audio twice. A rest shorter than a tenth of a part stays with the part
    before it. Memory does not depend on the length.
    What is damaged of a file opened as `damaged` is left out: the frame before it stays on screen,
    and there is no audio; `media.gaps` says where.

    Args:
        media: the video.
        folder: where the files go, as `part-0000.mp4` …; what the caller has done with a part may
            be done before the next is asked for.
        form: the form to store it in.
        part_s: length of the parts in seconds.

    Raises:
        MediaError: the source cannot be decoded, lasts longer than MAX_DURATION_S, holds no video,
            or is cut off and was not opened as `damaged`. Parts already given are whole, but not
            the whole video.
        OSError: the disk is full.
    """
    reader, facts = media.video(), media.facts
    assert facts.video is not None  # it has a reader
    fps, size = stored_fps(facts.video, form), stored_size(facts.video, form)
    length, expected = max(1, round(part_s * fps)), facts.duration_s * float(fps)  # in frames

    def times_s() -> Iterator[float]:
        for k in count():
            if (time_s := k * fps.denominator / fps.numerator) > MAX_DURATION_S:
                raise MediaError(
                    f"{describe(media.source)}: lasts longer than {MAX_DURATION_S / 3600:.0f} h; "
                    "its times are damaged, or it is to be cut into shorter files"
                )
            yield time_s

    def part_of(shown: tuple[int, object]) -> int:
        """The part that holds frame k, of about `expected` in all."""
        k, _ = shown
        parts = max(1, math.ceil(expected / length - SHORTEST_PART))
        kept_together = k // length == parts and k < (parts + SHORTEST_PART) * length
        return parts - 1 if kept_together else k // length

    with media_errors(media.source):
        audio = AudioReader(
            media.handle(),
            zero_s=reader.zero_s,
            sample_rate_hz=SAMPLE_RATE_HZ,
            damage=media.damage,
        )
        convert = FrameConverter(
            size, "yuv420p", filled_by=reader.aspect, over_white=reader.over_white
        )
        shown = enumerate(on_screen(reader.frames(), times_s()))
        for number, frames in groupby(shown, part_of):
            path = folder / f"part-{number:04d}.mp4"
            with _part_file(path, size, fps, form) as file:
                for k, timed in frames:
                    file.write(k, convert(timed.frame, timed.sample_aspect), audio)
            start_s, end_s = float(file.first / fps), float(file.end / fps)
            yield Part(path=path, start_s=start_s, end_s=end_s, facts=probe(path))
        # An MP4 file has a table of all its frames; others do not know how long they are.
        has_table = "mp4" in media.container.format.name.split(",")
        if media.damage is None and has_table and reader.end_s < media.declared_s - _MAX_LOST_S:
            raise MediaError(
                f"{describe(media.source)}: its frames end at {reader.end_s:.2f} s of "
                f"{media.declared_s:.2f} s; it is cut off or damaged: get it again"
            )


@contextmanager
def _part_file(
    path: Path, size: tuple[int, int], fps: Fraction, form: StoredForm
) -> Iterator[_PartFile]:
    """A file to write frames to; it is whole after the block, or absent when the block raises."""
    try:
        with av.open(f"file:{path}", "w", format="mp4") as output:
            file = _PartFile(output, size, fps, form)
            yield file
            file.finish()
    except BaseException:
        if path.is_file():
            path.unlink()
        raise


class _PartFile:
    """An MP4 file in the stored form, being written."""

    def __init__(
        self, output: OutputContainer, size: tuple[int, int], fps: Fraction, form: StoredForm
    ) -> None:
        self._output, self._fps = output, fps
        options = X264 | {"g": str(form.gop), "a53cc": "0"}
        self._video = output.add_stream("libx264", rate=fps, options=options)
        self._video.height, self._video.width = size
        self._video.pix_fmt = "yuv420p"
        context = self._video.codec_context
        context.time_base = 1 / fps
        context.thread_count = 1  # files are prepared in parallel
        context.colorspace, context.color_range = BT709, ColorRange.MPEG
        context.color_trc, context.color_primaries = ColorTrc.BT709, ColorPrimaries.BT709
        self._audio: AudioStream | None = None
        self.first = self.end = -1  # numbers of its first frame, and of the one after its last

    def write(self, k: int, frame: VideoFrame, audio: AudioReader) -> None:
        """Add frame `k` of the video, and the audio up to the next frame."""
        if self.first < 0:
            self.first = k
            if not audio.ended:
                # Noise substitution would make decoded samples depend on where decoding starts.
                options = {"aac_pns": "0"}
                self._audio = self._output.add_stream(
                    "aac", rate=SAMPLE_RATE_HZ, layout="mono", options=options
                )
                self._audio.bit_rate = _AUDIO_BITS_PER_S
        self.end = k + 1
        frame.pts, frame.time_base, frame.duration = k - self.first, 1 / self._fps, 1
        frame.pict_type = PictureType.NONE  # key frames are where this encoder wants them
        self._output.mux(self._video.encode(frame))
        if self._audio is not None:
            start = audio.position - self._sample(self.first)
            samples = audio.read_until(self._sample(self.end))
            if len(samples):
                block = AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
                block.sample_rate, block.pts = SAMPLE_RATE_HZ, start
                block.time_base = Fraction(1, SAMPLE_RATE_HZ)
                self._output.mux(self._audio.encode(block))

    def _sample(self, k: int) -> int:
        """The sample that is heard when frame `k` appears."""
        return round(k * SAMPLE_RATE_HZ / self._fps)

    def finish(self) -> None:
        """Flush both encoders."""
        self._output.mux(self._video.encode(None))
        if self._audio is not None:
            self._output.mux(self._audio.encode(None))
