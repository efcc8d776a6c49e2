"""A folder as users have them: videos of many kinds, odd and broken ones, and other files."""

from __future__ import annotations

import os
import random
import shutil
import struct
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import count
from pathlib import Path

import av
import numpy as np

from tests.media.clips import Recipe, picture, write
from tests.media.swatches import Swatches, write_swatches

PLAIN = Recipe(frames=20)
WEBM = {"deadline": "realtime", "cpu-used": "8", "g": "10"}
MPEG = replace(PLAIN, fps=Fraction(25), frames=50, options={"b": "2M"})
KINDS = {  # container → how many, and of what form
    "mp4": (5, PLAIN),
    "m4v": (1, replace(PLAIN, options={"bf": "3", "g": "30"})),
    "mkv": (3, replace(PLAIN, audio_codec="libopus")),
    "webm": (2, replace(PLAIN, video_codec="libvpx", options=WEBM, audio_codec="libopus")),
    "avi": (3, replace(PLAIN, video_codec="mpeg4", audio_codec="pcm_s16le")),
    "mov": (
        2,
        replace(
            PLAIN, video_codec="mjpeg", pix_fmt="yuvj420p", options={}, audio_codec="pcm_s16le"
        ),
    ),
    "ts": (2, replace(PLAIN, options={"bf": "2", "g": "12"})),
    "flv": (2, replace(PLAIN, sample_rate_hz=44_100)),
    "mpg": (2, replace(MPEG, video_codec="mpeg2video", audio_codec="mp2")),
    "asf": (1, replace(PLAIN, video_codec="wmv2", options={"b": "2M"}, audio_codec="libmp3lame")),
    "wmv": (1, replace(PLAIN, video_codec="wmv2", options={"b": "2M"}, audio_codec="ac3")),
    "ogv": (1, replace(PLAIN, video_codec="libvpx", options=WEBM, audio_codec="libopus")),
    "mxf": (1, replace(MPEG, video_codec="mpeg2video", audio_codec="pcm_s16le")),
    "3gp": (1, replace(PLAIN, video_codec="mpeg4")),
}
SILENT = replace(PLAIN, audio_codec=None)
ODD = {  # videos that want care
    "odd/turned.mp4": replace(PLAIN, rotation=90),
    "odd/upside down.mov": replace(PLAIN, rotation=180),
    "odd/uneven rate.mkv": replace(PLAIN, times_s=[0.0, 0.1, 0.35, 0.4, 0.8, 0.9, 1.5, 1.6]),
    "odd/late sound.mkv": replace(PLAIN, sound_starts_s=0.5),
    "odd/no sound.mp4": SILENT,
    "odd/no sound.mkv": SILENT,
    "odd/hevc.mp4": replace(
        PLAIN, video_codec="libx265", options={"x265-params": "log-level=error"}
    ),
    "odd/lossless.avi": replace(
        SILENT, video_codec="ffv1", pix_fmt="yuv444p", options={}, size=(47, 63)
    ),
    "odd/long lecture.mp4": replace(PLAIN, frames=90),
}
NAMES = [  # that a disk allows
    "with spaces  in it.mp4",
    "caf\u00e9.mp4",
    "cafe\u0301.mp4",
    "日本語 – “talk” 😀.mp4",
    "new\nline.mp4",
    "-rf.mp4",
    "12:30 talk.mp4",
    "percent %d.mp4",
    "SHOUTING.MP4",
    os.fsdecode(b"latin \xe9.mp4"),
]
SRT = "1\n00:00:00,500 --> 00:00:01,500\n{}\n"


@dataclass(frozen=True)
class Messy:
    """What the summary is to say."""

    folder: Path
    stored: int
    parts: int
    duplicates: int
    caption_files: int
    skipped: dict[str, int]
    missing: dict[str, int]
    other_files: dict[str, int]
    lone_captions: list[str]


def write_messy_folder(folder: Path) -> Messy:
    """Write it; no two videos have the same bytes but for those that are copies."""
    flash = count()  # each video has its own
    good = 0
    for container, (number, recipe) in KINDS.items():
        for one in range(number):
            path = folder / "camera" / container / f"clip {one}.{container}"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, replace(recipe, flash=next(flash) % 20, frames=recipe.frames + one))
            good += 1
    (folder / "odd").mkdir()
    for name, recipe in ODD.items():
        write(folder / name, recipe)
    write_swatches(
        folder / "odd" / "hdr.mkv",
        Swatches(pix_fmt="yuv420p10le", matrix="2020", primaries=9, curve=16, frames=20),
    )
    _gif(folder / "odd" / "animation.gif")
    (folder / "names").mkdir()
    for one, name in enumerate(NAMES):
        write(folder / "names" / name, replace(PLAIN, frames=20 + one))
    good += len(ODD) + 2 + len(NAMES)
    _broken(folder / "broken", (folder / "camera/mp4/clip 0.mp4").read_bytes())
    shutil.copy(folder / "camera/mp4/clip 0.mp4", folder / "odd" / "the same again.mp4")
    shutil.copy(folder / "camera/avi/clip 1.avi", folder / "odd" / "a copy of another.mp4")
    (folder / "odd" / "link.mp4").symlink_to(folder / "camera/mkv/clip 1.mkv")
    (folder / "camera" / "round").symlink_to(folder)
    _captions(folder)
    _others(folder)
    return Messy(
        folder=folder,
        stored=good + 1,
        parts=good + 4,  # the lecture of 9 s, and the 5.8 s left of a file cut off, in parts of 3 s
        duplicates=3,
        caption_files=4,
        skipped={"damaged": 1, "no picture": 1, "not found": 1, "unreadable": 13},
        missing={"audio": 7, "captions": good + 4 - 3 - 3},
        other_files={
            "(none)": 1, "AppleDouble": 1, ".csv": 1, ".jpg": 2, ".mp3": 1, ".pdf": 1, ".srt": 1,
            ".txt": 1, ".zip": 1,
        },
        lone_captions=["camera/nobody.srt"],
    )  # fmt: skip


def _gif(path: Path) -> None:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("gif", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "rgb8"
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(picture(number)).reformat(format="rgb8")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def _broken(folder: Path, good: bytes) -> None:
    """Sixteen files that are no videos, or no more, and one that is cut off."""
    folder.mkdir()
    noise = random.Random(0)
    unreadable = {
        "empty.mp4": b"",
        "empty.mkv": b"",
        "letter.mp4": b"Dear Sir or Madam,\n" * 100,
        "page.webm": b"<!DOCTYPE html><title>404 Not Found</title>" * 9,
        "encrypted.mkv": noise.randbytes(20_000),
        "encrypted.mp4": good[:32] + noise.randbytes(20_000),
        "header only.mp4": good[:64],
        "first part.mp4": good[: good.index(b"moov") + 200],
        "playlist.ts": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://localhost/1.ts\n",
        "wide as the world.avi": _huge_avi(),
    }
    for name, content in unreadable.items():
        (folder / name).write_bytes(content)
    long = write(folder / "cut off.mp4", replace(SILENT, frames=100)).read_bytes()
    (folder / "cut off.mp4").write_bytes(long[: len(long) * 3 // 4])
    zeroed = bytearray(long)
    zeroed[long.index(b"mdat") + 2000 : -500] = bytes(len(long) - long.index(b"mdat") - 2500)
    (folder / "overwritten.mp4").write_bytes(zeroed)
    _only_subtitles(folder / "only subtitles.mkv")
    _only_sound(folder / "only sound.mp4")
    (folder / "gone.mp4").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "archive.mp4").write_bytes(b"PK\x03\x04" + noise.randbytes(5000))


def _huge_avi() -> bytes:
    """An AVI header that declares a picture of four billion pixels."""
    stream = b"strl" + _riff(
        b"strh", b"vidsMJPG" + bytes(12) + struct.pack("<II", 1, 10) + bytes(28)
    )
    stream += _riff(
        b"strf", struct.pack("<IiiHH4sI", 40, 65_500, 65_500, 1, 24, b"MJPG", 0) + bytes(16)
    )
    header = b"hdrl" + _riff(b"avih", struct.pack("<14I", 100_000, *[0] * 5, 1, *[0] * 7))
    movie = b"movi" + _riff(b"00dc", b"\xff\xd8\xff\xd9" * 50)
    return _riff(
        b"RIFF", b"AVI " + _riff(b"LIST", header + _riff(b"LIST", stream)) + _riff(b"LIST", movie)
    )


def _riff(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def _only_subtitles(path: Path) -> None:
    text = path.with_suffix(".text")
    text.write_text(SRT.format("hello"))
    with av.open(str(text), format="srt") as source, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(source.streams.subtitles[0])
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    text.unlink()


def _only_sound(path: Path) -> None:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=48_000, layout="mono")
        samples = np.zeros((1, 48_000), np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 48_000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def _captions(folder: Path) -> None:
    (folder / "camera/mp4/clip 0.srt").write_text(SRT.format("the first clip"))
    (folder / "camera/mp4/clip 1.en.vtt").write_text("WEBVTT\n\n00:00.500 --> 00:01.000\nhello\n")
    (folder / "names/new\nline.srt").write_text(SRT.format("on two lines"))
    (folder / "odd/long lecture.srt").write_text(
        SRT.format("good morning") + "\n2\n00:00:07,000 --> 00:00:08,000\ngood bye\n"
    )
    (folder / "camera/nobody.srt").write_text(SRT.format("of no video"))


def _others(folder: Path) -> None:
    names = ["README", "camera/._clip 0.mp4", "labels.csv", "a.jpg", "b.JPG", "song.mp3", "x.pdf"]
    for name in [*names, "notes.txt", "all.zip"]:
        (folder / name).write_bytes(b"something else")
