"""Small videos that neither look nor sound like each other, and prepared folders of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from vatt.media.captions.clean import Caption
from vatt.media.media_file import probe
from vatt.shards.read import ShardFolder
from vatt.shards.record import PartOf, SampleRecord
from vatt.shards.write import ShardWriter, write_index

FPS, RATE_HZ = 10, 48_000
SAID = "then cut the onions and put them into the pan with a little oil"
SAID_IN_GERMAN = "dann schneide die Zwiebeln und gib sie mit etwas Öl in die heiße Pfanne"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What to write: patches of grey that wander, and a few tones; both drawn by `seed`."""

    seed: int
    frames: int = 20
    times: Sequence[int] | None = None  # of each frame, in tenths of a second
    size: tuple[int, int] = (48, 64)
    still: bool = False
    brightness: float = 1.0
    loudness: float = 1.0
    sound: tuple[float, float] | None = (0.0, 2.0)  # start and end, in seconds
    options: dict[str, str] = field(default_factory=lambda: {"bf": "0", "g": "10"})
    captions: Sequence[tuple[float, float, str]] = ((0.0, 2.0, SAID),)
    split: str = "train"
    source: str = ""
    part: PartOf | None = None


def film(scene: Scene, *, container: str = "mp4") -> bytes:
    """The video file; each is made once."""
    name = repr((replace(scene, captions=(), split="", source="", part=None), container))
    if name not in _films:
        _films[name] = _film(scene, container)
    return _films[name]


_films: dict[str, bytes] = {}


def _film(scene: Scene, container: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        video = output.add_stream("libx264", rate=FPS, options={"crf": "18", **scene.options})
        video.height, video.width = scene.size
        video.pix_fmt, video.time_base = "yuv420p", Fraction(1, FPS)
        sound = output.add_stream("aac", rate=RATE_HZ, layout="mono") if scene.sound else None
        packets = []
        for number, picture in enumerate(_pictures(scene)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = scene.times[number] if scene.times else number
            frame.time_base = Fraction(1, FPS)
            packets += video.encode(frame)
        packets += video.encode(None)
        if sound is not None and scene.sound:
            start = round(scene.sound[0] * RATE_HZ)
            samples = _samples(scene)
            for first in range(0, len(samples), 1024):
                block = av.AudioFrame.from_ndarray(
                    samples[None, first : first + 1024], "s16", "mono"
                )
                block.sample_rate, block.pts = RATE_HZ, start + first
                block.time_base = Fraction(1, RATE_HZ)
                packets += sound.encode(block)
            packets += sound.encode(None)
        for packet in sorted(packets, key=lambda packet: (packet.dts or 0) * packet.time_base):
            output.mux(packet)
    return file.getvalue()


def _pictures(scene: Scene) -> NDArray[np.uint8]:
    rng = np.random.default_rng(scene.seed)
    height, width = scene.size
    cells = rng.uniform(30, 230, (scene.frames // 5 + 1, 8, 10)) * scene.brightness
    frames = np.empty((scene.frames, height, width, 3), np.uint8)
    for number in range(scene.frames):
        grid = cells[0 if scene.still else number // 5]
        rows = np.arange(height) * 8 // height
        columns = np.arange(width) * 10 // width
        frames[number] = grid[rows][:, columns, None].astype(np.uint8)
    return frames


def _samples(scene: Scene) -> NDArray[np.int16]:
    assert scene.sound
    rng = np.random.default_rng(scene.seed)
    seconds = scene.sound[1] - scene.sound[0]
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    tones = rng.uniform(150, 4000, (8, 3))
    place = np.minimum((times / seconds * 8).astype(int), 7)
    wave = sum(np.sin(2 * np.pi * tones[place, tone] * times) for tone in range(3))
    return (scene.loudness * 6000 * np.asarray(wave)).astype(np.int16)


def write_scenes(
    folder: Path, scenes: Sequence[Scene], *, gop: int = 16, per_shard: int = 100
) -> ShardFolder:
    """A prepared folder; the keys are v0, v1 …"""
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(scenes), per_shard):
        with ShardWriter(folder / f"shard-{first // per_shard:06d}.tar") as shard:
            for number, scene in enumerate(scenes[first : first + per_shard], start=first):
                video = film(scene)
                facts = probe(video)
                record = SampleRecord(
                    key=f"v{number}",
                    source=scene.source or f"{scene.split}/{number}.mp4",
                    split=scene.split,
                    facts=facts,
                    source_facts=facts,
                    captions=tuple(Caption(*caption) for caption in scene.captions),
                    part=scene.part,
                )
                shard.add(record, video)
    write_index(folder, made={"settings": {"gop": gop}})
    return ShardFolder.open(folder)
