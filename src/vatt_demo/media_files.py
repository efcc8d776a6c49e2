"""Writes files as users have them: H.264 and AAC in an .mp4 file, captions in an .srt file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
import pysubs2
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from vatt_demo.game import FRAME_RATE, HEIGHT, SAMPLE_RATE_HZ, WIDTH

AUDIO_RATE_HZ = 48_000
AUDIO_BITS_PER_S = 64_000
KEYFRAME_EVERY = 16

# No B-frames and short groups, so that any frame is found fast. Audio: a plain search for the
# quantisers takes half the time; without noise substitution every decoder gives the same samples;
# the game's sounds have nothing above 11,025 Hz.
_VIDEO_OPTIONS = {"preset": "ultrafast", "crf": "24", "x264-params": "scenecut=0"}
_AUDIO_OPTIONS = {"aac_coder": "fast", "aac_pns": "0", "cutoff": "11025"}


def write_video(
    path: Path, frames: Iterable[NDArray[np.uint8]], waveform: NDArray[np.int16]
) -> None:
    """Encode frames [HEIGHT, WIDTH, 3] and a mono waveform [S], both at the game's rates."""
    with av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as file:
        video = file.add_stream("libx264", rate=FRAME_RATE, options=_VIDEO_OPTIONS)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.thread_count = 1
        video.codec_context.gop_size = KEYFRAME_EVERY
        video.codec_context.max_b_frames = 0
        audio = file.add_stream("aac", rate=AUDIO_RATE_HZ, layout="mono", options=_AUDIO_OPTIONS)
        audio.bit_rate = AUDIO_BITS_PER_S
        reformatter = VideoReformatter()
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame = reformatter.reformat(frame, format="yuv420p")
            frame.pts = number
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
        resampler = av.AudioResampler("fltp", "mono", AUDIO_RATE_HZ)
        block = av.AudioFrame.from_ndarray(waveform[None], "s16", "mono")
        block.sample_rate, block.pts = SAMPLE_RATE_HZ, 0
        for piece in (*resampler.resample(block), *resampler.resample(None)):
            file.mux(audio.encode(piece))
        file.mux(audio.encode(None))


def write_captions(path: Path, captions: Iterable[tuple[float, float, str]]) -> None:
    """Write (start_s, end_s, text) captions in the order of their time."""
    subtitles = pysubs2.SSAFile()
    for start_s, end_s, text in sorted(captions):
        subtitles.append(pysubs2.SSAEvent(round(start_s * 1000), round(end_s * 1000), text))
    subtitles.save(str(path), format_="srt")
