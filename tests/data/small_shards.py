"""A prepared folder of small real videos whose frames show their own numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.media.clips import Recipe, write
from vatt.media.captions.clean import Caption
from vatt.media.media_file import probe
from vatt.shards.read import ShardFolder
from vatt.shards.record import SampleRecord
from vatt.shards.write import ShardWriter, write_index

FPS = 10


@dataclass(frozen=True, kw_only=True)
class Video:
    frames: int = 40
    flash: int | None = None
    sound: bool = True
    captions: tuple[tuple[float, float, str], ...] = ()
    labels: tuple[dict[str, Any], ...] = ()
    cuts: tuple[float, ...] = ()
    split: str = "train"
    size: tuple[int, int] = (48, 64)
    file: Path | None = None  # stored as it is, as `vatt prepare --copy` does


def write_shards(folder: Path, videos: list[Video]) -> ShardFolder:
    """One shard with `videos`; their keys are v0, v1 …"""
    folder.mkdir(parents=True, exist_ok=True)
    with ShardWriter(folder / "shard-000000.tar") as shard, TemporaryDirectory() as scratch:
        for number, video in enumerate(videos):
            codec = "aac" if video.sound else None
            recipe = Recipe(
                frames=video.frames, flash=video.flash, audio_codec=codec, size=video.size
            )
            path = video.file or write(Path(scratch) / f"v{number}.mp4", recipe)
            facts = probe(path)
            record = SampleRecord(
                key=f"v{number}",
                source=path.name,
                split=video.split,
                facts=facts,
                source_facts=facts,
                captions=tuple(Caption(*caption) for caption in video.captions),
                labels=video.labels,
                cuts=video.cuts,
            )
            shard.add(record, path)
    write_index(folder, made={})
    return ShardFolder.open(folder)


def damage(data: ShardFolder, row: int) -> None:
    """Overwrite a video inside its shard, so that it can be read but not decoded."""
    index = data.index.slice(row, 1).to_pylist()[0]
    with (data.folder / index["shard"]).open("r+b") as file:
        file.seek(index["video_offset"])
        file.write(bytes(index["video_size"]))
