"""A small folder of clips as users have them: .mp4, .srt and a manifest, made in about a second.

A bright square moves left or right over a coloured ground; a low or a high tone sounds. Captions
say which, so that video, sound and text have something in common to learn.
"""

from __future__ import annotations

import csv
import json
from fractions import Fraction
from itertools import cycle
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

FPS = 10
HEIGHT, WIDTH = 48, 64
SAMPLE_RATE_HZ = 48_000
SEGMENT_S = 2.0
SEGMENTS = 3
VIDEOS = {"train": 6, "val": 2, "test": 3}
ACTIONS = ("left", "right")
TONES = {"low": 300.0, "high": 1500.0}
GROUNDS = {"red": (120, 20, 20), "green": (20, 110, 20), "blue": (20, 20, 130)}
TIMES = ["file", "kind", "start_s", "end_s", "split"]
COLUMNS = ["map", "action", "sound_event", "weapon", "caption", "facts", "said"]


def write_clips(folder: Path) -> Path:
    """Write all videos, captions, labels.csv and prompts.json; returns the manifest's path."""
    kinds = cycle([(a, t, g) for g in GROUNDS for a in ACTIONS for t in TONES])
    rows: list[dict[str, object]] = []
    for split, count in VIDEOS.items():
        (folder / split).mkdir(parents=True)
        for number in range(count):
            segments = [next(kinds) for _ in range(SEGMENTS)]
            path = folder / split / f"clip {number}.mp4"
            write_video(path, segments)
            path.with_suffix(".srt").write_text("".join(map(_subtitle, range(SEGMENTS), segments)))
            file = str(path.relative_to(folder))
            rows += [_label(file, split, at, segment) for at, segment in enumerate(segments)]
            rows += [_cut(file, split, at) for at in range(1, SEGMENTS)]
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, TIMES + COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    prompts = {"action": {a: [f"it moves {a}", f"it goes {a}"] for a in ACTIONS}}
    (folder / "prompts.json").write_text(json.dumps(prompts))
    return folder / "labels.csv"


def sentence(segment: tuple[str, str, str]) -> str:
    action, tone, ground = segment
    return f"it moves {action} over {ground}, {tone} tone"


def write_video(path: Path, segments: list[tuple[str, str, str]]) -> None:
    """H.264 + AAC with closed short groups of pictures: what `prepare --copy` keeps as it is."""
    frames = np.concatenate([_frames(action, ground) for action, _, ground in segments])
    sound = np.concatenate([_sound(tone) for _, tone, _ in segments])
    with av.open(str(path), "w") as container:
        container.metadata["title"] = f"{path.parent.name} {path.stem}"  # no two files are equal
        options = {"preset": "ultrafast", "crf": "20", "bf": "0", "g": "10"}
        video = container.add_stream("libx264", rate=FPS, options=options)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode())
        for start in range(0, len(sound), 1024):
            block = sound[np.newaxis, start : start + 1024]
            packet = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            packet.sample_rate, packet.pts = SAMPLE_RATE_HZ, start
            packet.time_base = Fraction(1, SAMPLE_RATE_HZ)
            container.mux(audio.encode(packet))
        container.mux(audio.encode())


def _frames(action: str, ground: str) -> NDArray[np.uint8]:
    count = round(SEGMENT_S * FPS)
    frames = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
    frames[:] = GROUNDS[ground]
    for index, frame in enumerate(frames):
        step = index if action == "right" else count - 1 - index
        frame[18:30, 2 * step : 2 * step + 12] = 240
    return frames


def _sound(tone: str) -> NDArray[np.int16]:
    times = np.arange(round(SEGMENT_S * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return (8000 * np.sin(2 * np.pi * TONES[tone] * times)).astype(np.int16)


def _subtitle(at: int, segment: tuple[str, str, str]) -> str:
    start, end = at * SEGMENT_S, (at + 1) * SEGMENT_S
    span = " --> ".join(f"00:00:{time:06.3f}".replace(".", ",") for time in (start, end))
    return f"{at + 1}\n{span}\n{sentence(segment)}\n\n"


def _label(file: str, split: str, at: int, segment: tuple[str, str, str]) -> dict[str, object]:
    action, tone, ground = segment
    facts = f"action:{action} tone:{tone} ground:{ground}"
    return {
        "file": file, "kind": "label", "split": split, "map": ground, "weapon": "",
        "start_s": at * SEGMENT_S, "end_s": (at + 1) * SEGMENT_S,
        "action": action, "sound_event": tone,
        "caption": sentence(segment), "facts": facts, "said": facts,
    }  # fmt: skip


def _cut(file: str, split: str, at: int) -> dict[str, object]:
    time = at * SEGMENT_S
    return {"file": file, "kind": "cut", "split": split, "start_s": time, "end_s": time}
