"""Tiny folders in the official formats of public data sets, with real media of a second."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np


@cache
def video(seconds: float = 1.0, audio: bool = True) -> bytes:
    """A small video, grey, with silence."""
    content = BytesIO()
    with av.open(content, "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        track: Any = file.add_stream("aac", rate=8000, layout="mono") if audio else None
        for _ in range(round(10 * seconds)):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 90, np.uint8), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        for at in range(round(8000 * seconds / 1024) if track else 0):
            block = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.int16), format="s16", layout="mono"
            )
            block.sample_rate, block.pts, block.time_base = 8000, at * 1024, Fraction(1, 8000)
            file.mux(track.encode(block))
        if track:
            file.mux(track.encode())
    return content.getvalue()


@cache
def wave(seconds: float = 1.0, hertz: float = 440.0) -> bytes:
    """A tone in a WAV file, 8 kHz, 16 bits."""
    times = np.arange(round(8000 * seconds)) / 8000
    samples = (8000 * np.sin(2 * np.pi * hertz * times)).astype("<i2").tobytes()
    size = len(samples)
    parts = (
        b"RIFF", (36 + size).to_bytes(4, "little"), b"WAVEfmt ", (16).to_bytes(4, "little"),
        b"\1\0\1\0", (8000).to_bytes(4, "little"), (16_000).to_bytes(4, "little"), b"\2\0\x10\0",
        b"data", size.to_bytes(4, "little"), samples,
    )  # fmt: skip
    return b"".join(parts)


@cache
def image(codec: str = "mjpeg", pixels: str = "yuvj420p", shade: int = 90) -> bytes:
    """A small still image."""
    encoder: Any = av.CodecContext.create(codec, "w")
    encoder.width = encoder.height = 16
    encoder.pix_fmt, encoder.time_base = pixels, Fraction(1)
    frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), shade, np.uint8), format="rgb24")
    packets = [*encoder.encode(frame.reformat(format=pixels)), *encoder.encode()]
    return b"".join(bytes(packet) for packet in packets)


def media_of(name: str) -> bytes:
    """Real content for a file of this name."""
    suffix = Path(name).suffix.lower()
    if suffix == ".wav":
        return wave()
    return image() if suffix in (".jpeg", ".jpg") else video()


def write(folder: Path, lists: Mapping[str, object], media: tuple[str, ...] = ()) -> Path:
    """Lists (text as it is, else JSON) and media below a folder; returns it."""
    for name, content in lists.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    for name in media:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(media_of(name))
    return folder


CMYK = b64decode(  # 8 × 8, of four inks, as some of ImageNet are
    "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwCgbniMeGSgjIKMtKqgvvD///Dc3PD///////////////////////////////"
    "///////////////////////////8AAFAgACAAIBEMRAE0RAFkRAEsRAP/EAB8AAAEFAQEBAQEBAAAAAAAAAAABAgME"
    "BQYHCAkKC//EALUQAAIBAwMCBAMFBQQEAAABfQECAwAEEQUSITFBBhNRYQcicRQygZGhCCNCscEVUtHwJDNicoIJCh"
    "YXGBkaJSYnKCkqNDU2Nzg5OkNERUZHSElKU1RVVldYWVpjZGVmZ2hpanN0dXZ3eHl6g4SFhoeIiYqSk5SVlpeYmZqi"
    "o6Slpqeoqaqys7S1tre4ubrCw8TFxsfIycrS09TV1tfY2drh4uPk5ebn6Onq8fLz9PX29/j5+v/aAA4EQwBNAFkASw"
    "AAPwCan06pa//Z"
)

KINETICS = """label,youtube_id,time_start,time_end,split
skiing crosscountry,-KbXM0WRkYA,49,59,train
"skiing (not slalom or crosscountry)",a_bcdefghij,7.0,17.0,train
skiing slalom,bbbbbbbbbbb,0,10,validate
"passing American football (in game)",ccccccccccc,100,110,validate
"""
UCF = {
    "classInd.txt": "1 ApplyEyeMakeup\n2 HandstandPushups\n3 YoYo\n",
    "trainlist01.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\n"
    "HandStandPushups/v_HandStandPushups_g08_c01.avi 2\r\n",
    "testlist01.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi\nYoYo/v_YoYo_g01_c01.avi\n",
    "trainlist02.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi 1\n",
    "testlist02.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi\n",
}
UCF_MEDIA = (
    "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi",
    "UCF-101/HandstandPushups/v_HandstandPushups_g08_c01.avi",
    "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
    "UCF-101/YoYo/v_YoYo_g01_c01.avi",
)
ESC50 = "filename,fold,target,category,esc10,src_file,take\n" + "".join(
    f"{fold}-{100 * fold + at}-A-{at}.wav,{fold},{at},{name},True,{100 * fold + at},A\n"
    for fold in range(1, 6)
    for at, name in ((0, "dog"), (1, "rooster"), (14, "chirping_birds"))
)
AUDIOSET = {
    "class_labels_indices.csv": 'index,mid,display_name\n0,/m/09x0r,"Speech"\n'
    '1,/m/05zppz,"Male speech, man speaking"\n2,/t/dd00088,"Gunshot, gunfire"\n',
    "balanced_train_segments.csv": "# Segments csv created Sun Mar  5 10:54:31 2017\n"
    "# num_ytids=2, num_segs=2, num_unique_labels=3, num_positive_labels=3\n"
    "# YTID, start_seconds, end_seconds, positive_labels\n"
    '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"\n'
    '-0RWZT-miFs, 420.000, 430.000, "/m/05zppz"\n',
    "eval_segments.csv": '# a\n# b\n# c\nzzzzzzzzzzz, 0.000, 10.000, "/m/09x0r"\n',
}
YOUCOOK2 = {
    "database": {
        "xHr8X2Wpmno": {
            "subset": "validation", "duration": 200.5, "recipe_type": "226",
            "annotations": [
                {"id": 0, "segment": [47, 60], "sentence": "pick the ends off the verdalago"},
                {"id": 1, "segment": [67, 89], "sentence": "combine lemon juice and sumac"},
            ],
        },
        "-tCQ4tCQdWE": {
            "subset": "training", "duration": 90, "recipe_type": "101",
            "annotations": [{"id": 0, "segment": [1, 9], "sentence": "cut the avocado"}],
        },
        "zzzzzzzzzzz": {"subset": "testing", "duration": 90, "recipe_type": "101"},
    }
}  # fmt: skip
MSRVTT = {
    "videos": [
        {"video_id": f"video{n}", "category": 3, "url": "https://x", "id": n, "start time": 1.5,
         "end time": 11.5, "split": split}
        for n, split in enumerate(("train", "validate", "test", "test"))
    ],
    "sentences": [
        {"sen_id": 2 * n + k, "video_id": f"video{n}", "caption": text}
        for n in range(4)
        for k, text in enumerate((f"a man does {n}", "a man sings"))
    ],
}  # fmt: skip
