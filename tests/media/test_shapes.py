"""A circle stays round where a video changes the size of its frames, or the shape of its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from numpy.typing import NDArray

from vatt.media.media_file import open_media
from vatt.media.planes import Box
from vatt.media.stored_form import StoredForm, encode_parts, has_stored_form, stored_size

FORM = StoredForm(short_side=256, fps=Fraction(10), gop=16)
X264 = {"bf": "0", "g": "10", "preset": "ultrafast"}
HALF = 10  # frames before the change, and after it


@dataclass(frozen=True)
class Look:
    """Size and pixels of frames; a camera that was turned gives the same circle."""

    height: int
    width: int
    sample_aspect: Fraction = Fraction(1)


CHANGES = {
    "turned": (Look(90, 160), Look(160, 90)),
    "wider": (Look(120, 160), Look(90, 160)),
    "narrower": (Look(90, 160), Look(120, 160)),
    "wider pixels": (Look(120, 160), Look(120, 160, Fraction(4, 3))),
    "square pixels": (Look(120, 160, Fraction(4, 3)), Look(120, 160)),
    "larger": (Look(72, 128), Look(144, 256)),
}


def circle(look: Look) -> av.VideoFrame:
    y, x = np.mgrid[: look.height, : look.width]
    across = (x + 0.5 - look.width / 2) * float(look.sample_aspect)
    radius = 0.35 * min(look.height, look.width * float(look.sample_aspect))
    inside = across**2 + (y + 0.5 - look.height / 2) ** 2 < radius**2
    rgb = np.where(inside[..., None], 255, 60).astype(np.uint8).repeat(3, axis=2)
    return av.VideoFrame.from_ndarray(rgb).reformat(format="yuv420p")


def write(path: Path, looks: tuple[Look, Look], codec: str = "libx264") -> Path:
    """One stream, made by an encoder for each look."""
    rate, options = Fraction(10), X264 if codec == "libx264" else {}
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=rate, options=options)
        assert isinstance(stream, VideoStream)
        for number, look in enumerate(looks):
            coder = stream.codec_context
            if number:
                other = VideoCodecContext.create(codec, "w")
                assert isinstance(other, VideoCodecContext)
                coder = other
                coder.framerate, coder.time_base, coder.options = rate, 1 / rate, options
            coder.height, coder.width, coder.pix_fmt = look.height, look.width, "yuv420p"
            coder.sample_aspect_ratio = look.sample_aspect
            for k in range(HALF):
                frame = circle(look)
                frame.pts, frame.time_base = number * HALF + k, 1 / rate
                packets = coder.encode(frame)
                for packet in (*packets, *(coder.encode(None) if k == HALF - 1 else ())):
                    packet.stream = stream
                    output.mux(packet)
    return path


def roundness(frame: NDArray[np.uint8]) -> float:
    """Width / height of what is bright."""
    bright = frame > 150
    return float(bright.any(0).sum() / bright.any(1).sum())


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.flv", "vp8.webm", "vp9.webm"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_circle_stays_round_however_it_is_read(change: str, name: str, tmp_path: Path) -> None:
    codec = {"vp8.webm": "libvpx", "vp9.webm": "libvpx-vp9"}.get(name, "libx264")
    if "pixels" in change and codec != "libx264":
        pytest.skip("VP8 and VP9 have square pixels")
    path = write(tmp_path / name, CHANGES[change], codec)
    times_s = np.array([0.5, 1.5])

    def whole(height: int, width: int) -> Box:
        return Box(0, 0, height, width)

    with open_media(path) as media:
        assert media.facts.video is not None
        size = stored_size(media.facts.video, FORM)
        (part,) = encode_parts(media, tmp_path, FORM)
        everything, _, _ = media.all_frames(size)
        shown = {
            "frames": media.frames(times_s, size=size),
            "frames as stored": media.frames(times_s, size=size, stored=size),
            "one frame": media.frames(times_s[1:], size=size),
            "all frames": everything[[HALF // 2, HALF + HALF // 2]],
            "planes": media.planes(times_s, whole).luma,
            "planes as stored": media.planes(times_s, whole, size).luma,
            "planes after the change": media.planes(times_s[1:], whole).luma,
        }
    with open_media(part.path) as media:
        shown["a shard"] = media.frames(times_s, size=size)
    for how, frames in shown.items():
        for frame in frames:
            grey = frame if frame.ndim == 2 else frame[..., 1]
            assert roundness(grey) == pytest.approx(1.0, abs=0.04), how
            assert (grey > 150).mean() > 0.05, how


def test_a_file_that_changes_its_shape_is_not_kept_as_it_is(tmp_path: Path) -> None:
    with open_media(write(tmp_path / "a.mp4", CHANGES["turned"])) as media:
        assert not has_stored_form(media, FORM)
    with open_media(write(tmp_path / "b.mp4", (Look(90, 160), Look(90, 160)))) as media:
        assert has_stored_form(media, FORM)
