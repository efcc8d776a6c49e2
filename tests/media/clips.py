"""Small real videos: every frame shows its own number, and may flash when a click is heard."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

HEIGHT, WIDTH = 48, 64
BITS = 8  # of the frame number, as black and white bars under a band that can flash


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to write. Times are in seconds on the container's clock."""

    frames: int = 30
    fps: Fraction = Fraction(10)
    times_s: Sequence[float] | None = None  # of each frame, when the rate is not constant
    video_starts_s: float = 0.0
    video_codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    options: dict[str, str] = field(default_factory=lambda: {"bf": "0", "g": "10"})
    size: tuple[int, int] = (HEIGHT, WIDTH)
    rotation: int = 0
    audio_codec: str | None = "aac"
    sample_rate_hz: int = 48_000
    sound_starts_s: float = 0.0
    sound_s: float | None = None  # default: as long as the picture
    silent_gap_s: tuple[float, float] | None = None  # a stretch whose packets are missing
    noise: bool = False  # instead of silence
    flash: int | None = None  # number of the white frame; a click sounds when it appears
    edit_list_skips_s: float = 0.0  # of an MP4 file: what its edit list leaves out at the start


def picture(number: int, *, size: tuple[int, int] = (HEIGHT, WIDTH), flash: bool = False):
    """RGB [H, W, 3]: the upper half grey or white, the lower half the number in bars."""
    height, width = size
    frame = np.full((height, width, 3), 255 if flash else 60, np.uint8)
    for bit in range(BITS):
        bar = slice(bit * width // BITS, (bit + 1) * width // BITS)
        frame[height // 2 :, bar] = 235 if number >> bit & 1 else 20
    return frame


def numbers(frames: NDArray[np.uint8]) -> list[int]:
    """The numbers shown by frames [T, H, W, 3] of any size."""
    _, height, width, _ = frames.shape
    bars = frames[:, height * 3 // 4, [(2 * b + 1) * width // (2 * BITS) for b in range(BITS)]]
    return [int(bits) for bits in (bars.mean(-1) > 128) @ (1 << np.arange(BITS))]


def flashes(frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of the frames [T, H, W, 3] flash."""
    band = frames[:, : frames.shape[1] // 4]
    return np.asarray(band.mean((1, 2, 3)) > 160)


def starts_s(recipe: Recipe) -> list[float]:
    """When each frame is shown, on the container's clock."""
    own = recipe.times_s or [float(k / recipe.fps) for k in range(recipe.frames)]
    return [recipe.video_starts_s + time_s for time_s in own]


def write(path: Path, recipe: Recipe, *, container_options: dict[str, str] | None = None) -> Path:
    """Write the video; the container is chosen by the file's name."""
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}  # as web videos are
    with av.open(str(path), "w", options=options | (container_options or {})) as output:
        packets = _picture_packets(output, recipe)
        if recipe.audio_codec:
            packets += _sound_packets(output, recipe)
        output.start_encoding()
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)
    if recipe.edit_list_skips_s:
        path.write_bytes(_later_edits(path.read_bytes(), recipe.edit_list_skips_s))
    return path


def _later_edits(content: bytes, by_s: float) -> bytes:
    """The MP4 file with each track's edit list beginning later in its media."""
    edited, at = bytearray(content), 0
    (movie_scale,) = struct.unpack_from(">I", content, content.index(b"mvhd") + 16)
    while (at := content.find(b"elst", at + 1)) > 0:
        (timescale,) = struct.unpack_from(">I", content, content.index(b"mdhd", at) + 16)
        lasts, media_time = struct.unpack_from(">II", content, at + 12)  # of its only entry
        later = lasts - round(by_s * movie_scale), media_time + round(by_s * timescale)
        struct.pack_into(">II", edited, at + 12, *later)
    return bytes(edited)


def write_frames(
    path: Path,
    frames: Sequence[av.VideoFrame],
    *,
    codec: str,
    fps: int = 10,
    first: int = 0,
    options: dict[str, str] | None = None,
    configure: Callable[[VideoStream], None] = lambda stream: None,
) -> Path:
    """Write frames as they are, in their own pixel format; `first` is the number of the first."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=fps, options=options)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = frames[0].height, frames[0].width
        stream.pix_fmt = frames[0].format.name
        configure(stream)
        for number, frame in enumerate(frames, first):
            frame.pts, frame.time_base = number, Fraction(1, fps)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def _picture_packets(output, recipe: Recipe):
    stream = output.add_stream(recipe.video_codec, rate=recipe.fps, options=recipe.options)
    stream.height, stream.width = recipe.size
    stream.pix_fmt = recipe.pix_fmt
    stream.codec_context.time_base = Fraction(1, 1000) if recipe.times_s else 1 / recipe.fps
    stream.codec_context.thread_count = 1
    if recipe.rotation:
        stream.set_display_rotation(recipe.rotation)
    packets = []
    for number, time_s in enumerate(starts_s(recipe)):
        flash = number == recipe.flash
        frame = av.VideoFrame.from_ndarray(picture(number, size=recipe.size, flash=flash))
        frame.time_base = stream.codec_context.time_base
        frame.pts = round(time_s / frame.time_base)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _sound_packets(output, recipe: Recipe):
    rate = recipe.sample_rate_hz
    stream = output.add_stream(recipe.audio_codec, rate=rate, layout="mono")
    waveform = sound(recipe)
    pts = round(recipe.sound_starts_s * rate)
    frame = av.AudioFrame.from_ndarray(waveform[None], format="s16", layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), pts
    packets = stream.encode(frame) + stream.encode(None)
    if recipe.silent_gap_s:
        first, last = recipe.silent_gap_s
        return [p for p in packets if not first <= p.pts * p.time_base < last]
    return packets


def sound(recipe: Recipe) -> NDArray[np.int16]:
    """Silence with a click of 5 ms at the flash."""
    rate = recipe.sample_rate_hz
    times = starts_s(recipe)
    lasts_s = recipe.sound_s or times[-1] + 1 / recipe.fps - recipe.sound_starts_s
    waveform = np.zeros(round(lasts_s * rate), np.int16)
    if recipe.noise:  # below 2 kHz, so that AAC loses little of it
        steps = np.random.default_rng(0).normal(0, 1, len(waveform) // 12 + 2)
        waveform[:] = 5000 * np.interp(np.arange(len(waveform)) / 12, np.arange(len(steps)), steps)
    if recipe.flash is not None:
        start = round((times[recipe.flash] - recipe.sound_starts_s) * rate)
        click = np.sin(2 * np.pi * 2000 * np.arange(rate // 200) / rate)
        waveform[start : start + len(click)] = 20_000 * click
    return waveform


def click_s(waveform: NDArray[np.int16], sample_rate_hz: int) -> float:
    """When the click begins: the first sample louder than a third of the loudest."""
    loud = np.abs(waveform.astype(np.int32))
    return int(np.argmax(loud > loud.max() / 3)) / sample_rate_hz
