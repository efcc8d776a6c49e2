"""The form in which videos are stored in shards: making it, and telling whether a file has it.

H.264 yuv420p at a constant rate, upright, square pixels, even sides, without B-frames and with a
key frame at least every `gop` frames, so that any moment is reached by decoding a few frames; AAC
mono at 48 kHz in the same MP4 file. Nothing is ever scaled up, in size or in rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from vatt.errors import MediaError
from vatt.media.audio import decode_audio
from vatt.media.container import Source, describe, opened, video_stream
from vatt.media.video import FrameConverter, MediaFacts, VideoFacts, VideoReader, on_screen, probe

SAMPLE_RATE_HZ = 48_000
_AUDIO_BITS_PER_S = 96_000
_MAX_FPS = Fraction(240)  # more is what a damaged header says
_MAX_LOST_S = 0.5  # of a video's declared duration; edit lists and rounding take less


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredForm:
    """Limits of the stored form. fps None keeps the source's own (average) rate."""

    short_side: int
    fps: Fraction | None
    gop: int


def encode(source: Source, target: Path, form: StoredForm) -> None:
    """Make the stored form of a video.

    The picture at k / fps is the frame on screen in the source at that time after its first frame;
    the sound keeps its place beside the picture (see `decode_audio`).

    Raises:
        MediaError: the source cannot be decoded, is cut off, or holds no picture.
        OSError: the disk is full.
    """
    facts = probe(source)
    if facts.video is None:
        raise MediaError(f"{describe(source)}: holds no picture, only sound")
    fps = stored_fps(facts.video, form)
    waveform = decode_audio(source, sample_rate_hz=SAMPLE_RATE_HZ)
    with opened(source) as container, av.open(str(target), "w", format="mp4") as output:
        video = _video_output(output, stored_size(facts.video, form), fps, form)
        sound = _SoundOutput(output, waveform) if waveform is not None else None
        convert = FrameConverter((video.height, video.width))
        times_s = (k * fps.denominator / fps.numerator for k in count())
        reader = VideoReader(container, source)
        for k, timed in enumerate(on_screen(reader.frames(), times_s)):
            frame = VideoFrame.from_ndarray(convert(timed.frame), format="rgb24")
            frame.pts, frame.time_base = k, 1 / fps
            output.mux(video.encode(frame))
            if sound:
                sound.write_until(float((k + 1) / fps))
        output.mux(video.encode(None))
        if sound:
            sound.finish()
        _refuse_cut_off(source, facts, container.format.name, reader.end_s)


def _refuse_cut_off(source: Source, facts: MediaFacts, container: str, end_s: float) -> None:
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
    own = min(facts.fps or Fraction(25), _MAX_FPS)
    return own if form.fps is None or own < form.fps else form.fps


def _video_output(
    output: OutputContainer, size: tuple[int, int], fps: Fraction, form: StoredForm
) -> VideoStream:
    options = {"preset": "veryfast", "crf": "20", "bf": "0", "g": str(form.gop)}
    stream = output.add_stream("libx264", rate=fps, options=options)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = 1 / fps
    stream.codec_context.thread_count = 1  # files are prepared in parallel
    return stream


class _SoundOutput:
    """Writes a waveform beside the picture, a moment at a time."""

    def __init__(self, output: OutputContainer, waveform: NDArray[np.int16]) -> None:
        # Noise substitution would make decoded samples depend on where decoding starts.
        self._stream = output.add_stream(
            "aac", rate=SAMPLE_RATE_HZ, layout="mono", options={"aac_pns": "0"}
        )
        self._stream.bit_rate = _AUDIO_BITS_PER_S
        self._output, self._waveform, self._written = output, waveform, 0

    def write_until(self, time_s: float) -> None:
        """Encode the samples before `time_s` that are not yet written."""
        samples = self._waveform[self._written : round(time_s * SAMPLE_RATE_HZ)]
        if not len(samples):
            return
        frame = AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, self._written
        frame.time_base = Fraction(1, SAMPLE_RATE_HZ)
        self._written += len(samples)
        self._output.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Flush the encoder; samples after the last picture are left out."""
        self._output.mux(self._stream.encode(None))


def has_stored_form(source: Source, facts: MediaFacts, form: StoredForm) -> bool:
    """Whether a file can be kept byte for byte: already in the stored form, or a smaller one.

    Reads all packets, decodes none.

    Raises:
        MediaError: the packets cannot be read.
    """
    video, audio = facts.video, facts.audio
    if video is None or video.fps is None or video.codec != "h264" or video.pix_fmt != "yuv420p":
        return False
    if audio is not None and (audio.codec, audio.sample_rate_hz) != ("aac", SAMPLE_RATE_HZ):
        return False
    return (
        (video.height, video.width) == stored_size(video, form)
        and video.fps == stored_fps(video, form)
        and video.rotation == 0
        and _evenly_coded(source, form.gop)
    )


def _evenly_coded(source: Source, gop: int) -> bool:
    """MP4 with a constant rate, no B-frames, and a key frame at least every `gop` frames."""
    times, since_key = [], 0
    with opened(source) as container:
        stream = video_stream(container)
        assert stream is not None
        if "mp4" not in container.format.name.split(","):
            return False
        for packet in container.demux(stream):
            if packet.pts is None:
                continue  # the end
            times.append(packet.pts)
            since_key = 1 if packet.is_keyframe else since_key + 1
            if since_key > gop or packet.is_discard or packet.is_corrupt:
                return False
    if stream.frames and len(times) < stream.frames:
        raise MediaError(
            f"{describe(source)}: holds {len(times)} of {stream.frames} frames; it is cut off or "
            "damaged: get it again"
        )
    steps = np.diff(times)
    return len(times) > 0 and len(np.unique(steps)) <= 1 and bool((steps > 0).all())
