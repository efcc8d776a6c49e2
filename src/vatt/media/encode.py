"""The form in which videos are stored in shards, and making it: one file, or several parts.

H.264 yuv420p (BT.709, limited range, and tagged so) at a constant rate, upright, progressive,
square pixels, even sides, without B-frames and with a key frame at least every `gop` frames, so
that any moment is reached by decoding a few frames; AAC mono at 48 kHz in the same MP4 file.
Nothing is ever scaled up, in size or in rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import count, groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc
from av.video.stream import VideoStream

from vatt.errors import MediaError
from vatt.media.audio import SoundReader
from vatt.media.container import MediaSource, describe, opened
from vatt.media.frame_filters import BT709, PictureConverter
from vatt.media.probe import MediaFacts, VideoFacts, facts_of
from vatt.media.screen import on_screen
from vatt.media.video import VideoReader

SAMPLE_RATE_HZ = 48_000
PART_S = 300.0  # longer videos are cut into parts of this length
SHORTEST_PART = 0.1  # of a part's length: a shorter rest stays with the part before it
MAX_DURATION_S = 24 * 3600.0  # more is what damaged times say
_AUDIO_BITS_PER_S = 96_000
# fastdecode: read in 0.4 of the time for a tenth more bytes. x264's macroblock tree gave other
# bytes for the same pictures about once in a hundred times; without it they are always the same.
X264 = {
    "preset": "veryfast",
    "tune": "fastdecode",
    "crf": "20",
    "bf": "0",
    "x264-params": "mbtree=0",
}
_MIN_FPS, _MAX_FPS = Fraction(1, 10), Fraction(240)  # beyond is what a damaged header says
_MAX_LOST_S = 0.5  # of a video's declared duration; edit lists and rounding take less


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredForm:
    """Limits of the stored form. fps None keeps the source's own (average) rate."""

    short_side: int
    fps: Fraction | None
    gop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A stored file and the stretch of the source's video clock that it holds.

    Its own clock starts with its first frame: what is at t in the source is at t - start_s in it.
    """

    path: Path
    start_s: float
    end_s: float


def encode_parts(
    source: MediaSource, folder: Path, form: StoredForm, *, part_s: float = PART_S
) -> Iterator[Part]:
    """Make the stored form of a video, in one pass: several files when it is long.

    The picture at k / fps is the frame on screen in the source at that time after its first frame;
    the sound keeps its place beside the picture. Parts are cut between two of these pictures, and
    hold neither picture nor sound twice. A rest shorter than a tenth of a part stays with the part
    before it, as far as the source says how long it is. Memory does not depend on the length.

    Args:
        source: the video.
        folder: where the files go, as `part-0000.mp4` …; what the caller has done with a part may
            be done before the next is asked for.
        form: the form to store it in.
        part_s: length of the parts in seconds.

    Raises:
        MediaError: the source cannot be decoded, is cut off, lasts longer than MAX_DURATION_S, or
            holds no picture. Parts already given are whole, but not the whole video.
        OSError: the disk is full.
    """
    # Picture and sound are read side by side, each through a container of its own: wherever the
    # file keeps its sound, neither has to be held in memory while the other is read.
    with opened(source) as container, opened(source) as sound_container:
        reader = VideoReader(container, source)
        facts = facts_of(container, reader)
        assert facts.video is not None  # else there were no reader
        fps, size = stored_fps(facts.video, form), stored_size(facts.video, form)
        length, expected = max(1, round(part_s * fps)), facts.duration_s * float(fps)  # in pictures
        sound = SoundReader(sound_container, zero_s=reader.zero_s, sample_rate_hz=SAMPLE_RATE_HZ)
        convert = PictureConverter(size, "yuv420p")
        shown = enumerate(on_screen(reader.frames(), _times_s(source, fps)))
        for number, pictures in groupby(shown, lambda pair: _part(pair[0], expected, length)):
            path = folder / f"part-{number:04d}.mp4"
            with _writing(path, size, fps, form) as file:
                for k, timed in pictures:
                    file.write(k, convert(timed.frame), sound)
            yield Part(path=path, start_s=float(file.first / fps), end_s=float(file.end / fps))
        _refuse_cut_off(source, facts, container.format.name, reader.end_s)


def encode(source: MediaSource, target: Path, form: StoredForm) -> None:
    """Make the stored form of a whole video as one file, however long; see `encode_parts`."""
    with TemporaryDirectory(dir=target.parent) as folder:
        for part in encode_parts(source, Path(folder), form, part_s=MAX_DURATION_S):
            part.path.replace(target)


def _times_s(source: MediaSource, fps: Fraction) -> Iterator[float]:
    for k in count():
        if (time_s := k * fps.denominator / fps.numerator) > MAX_DURATION_S:
            raise MediaError(
                f"{describe(source)}: lasts longer than {MAX_DURATION_S / 3600:.0f} h; its times "
                "are damaged, or it is to be cut into shorter files"
            )
        yield time_s


def _part(k: int, expected: float, length: int) -> int:
    """The part that holds picture k, of about `expected` in all (0 when nobody knows)."""
    parts = max(1, math.ceil(expected / length - SHORTEST_PART))
    kept_together = expected and k // length == parts and k < (parts + SHORTEST_PART) * length
    return parts - 1 if kept_together else k // length


def _refuse_cut_off(source: MediaSource, facts: MediaFacts, container: str, end_s: float) -> None:
    """An MP4 file has a table of all its frames; other containers do not know how long they are."""
    if "mp4" in container.split(",") and end_s < facts.duration_s - _MAX_LOST_S:
        raise MediaError(
            f"{describe(source)}: its frames end at {end_s:.2f} s of {facts.duration_s:.2f} s; it "
            "is cut off or damaged: get it again"
        )


def stored_size(facts: VideoFacts, form: StoredForm) -> tuple[int, int]:
    """(H, W) in the stored form: upright, square pixels, even, short side at most `form`'s."""
    aspect = float(facts.sample_aspect)
    sides = (facts.height / max(aspect, 1.0), facts.width * min(aspect, 1.0))
    height, width = sides[::-1] if facts.rotation % 180 else sides
    scale = min(1.0, form.short_side / min(height, width))
    return _even(height * scale), _even(width * scale)


def _even(side: float) -> int:
    return max(2, 2 * round(side / 2))


def stored_fps(facts: VideoFacts, form: StoredForm) -> Fraction:
    """Frames per second in the stored form: the asked rate, or the source's own if that is less."""
    own = min(max(facts.fps or Fraction(25), _MIN_FPS), _MAX_FPS)
    return own if form.fps is None or own < form.fps else form.fps


@contextmanager
def _writing(
    path: Path, size: tuple[int, int], fps: Fraction, form: StoredForm
) -> Iterator[_PartFile]:
    """A file to write pictures to; it is whole after the block, or absent when the block raises."""
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
        self._video = _video_output(output, size, fps, form)
        self._sound: AudioStream | None = None
        self.first = self.end = -1  # numbers of its first picture, and of the one after its last

    def write(self, k: int, picture: VideoFrame, sound: SoundReader) -> None:
        """Add picture `k` of the video, and the sound up to the next picture."""
        if self.first < 0:
            self.first = k
            self._sound = None if sound.ended else _sound_output(self._output)
        self.end = k + 1
        picture.pts, picture.time_base, picture.duration = k - self.first, 1 / self._fps, 1
        picture.pict_type = PictureType.NONE  # the source's groups of pictures are not ours
        self._output.mux(self._video.encode(picture))
        if self._sound is not None:
            start = sound.position - self._sample(self.first)
            samples = sound.read_until(self._sample(self.end))
            if len(samples):
                frame = AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
                frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, start
                frame.time_base = Fraction(1, SAMPLE_RATE_HZ)
                self._output.mux(self._sound.encode(frame))

    def _sample(self, k: int) -> int:
        """The sample that is heard when picture `k` appears."""
        return round(k * SAMPLE_RATE_HZ / self._fps)

    def finish(self) -> None:
        """Flush both encoders."""
        self._output.mux(self._video.encode(None))
        if self._sound is not None:
            self._output.mux(self._sound.encode(None))


def _video_output(
    output: OutputContainer, size: tuple[int, int], fps: Fraction, form: StoredForm
) -> VideoStream:
    options = X264 | {"g": str(form.gop), "a53cc": "0"}
    stream = output.add_stream("libx264", rate=fps, options=options)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base = 1 / fps
    context.thread_count = 1  # files are prepared in parallel
    context.colorspace, context.color_range = BT709, ColorRange.MPEG
    context.color_trc, context.color_primaries = ColorTrc.BT709, ColorPrimaries.BT709
    return stream


def _sound_output(output: OutputContainer) -> AudioStream:
    # Noise substitution would make decoded samples depend on where decoding starts.
    options = {"aac_pns": "0"}
    stream = output.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono", options=options)
    stream.bit_rate = _AUDIO_BITS_PER_S
    return stream
