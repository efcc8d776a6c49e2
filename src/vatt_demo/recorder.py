"""`vatt demo record`: real clips from ViZDoom, as .mp4 + .srt, with labels for evaluation."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import platform
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from multiprocessing.util import Finalize
from pathlib import Path

from vatt.config import to_values
from vatt.devices import num_cpus
from vatt.errors import ConfigError, DataError
from vatt.storage import atomic_file, write_atomically
from vatt.workers.progress import ProgressBar
from vatt_demo.game import Game
from vatt_demo.maps import SPLITS, Split, engine_folder
from vatt_demo.record_video import FORMAT, LabelRow, PlannedVideo, record
from vatt_demo.sentences import prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordConfig:
    """How much to record, and where to."""

    out: Path
    hours: float = 2.5  # of training videos
    val_hours: float = 0.25
    test_hours: float = 1.0
    seed: int = 0
    video_s: float = 60.0  # a video ends with the action in which this is reached
    workers: int = field(default_factory=num_cpus)

    def __post_init__(self) -> None:
        for name in ("hours", "val_hours", "test_hours", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)} is below 0; give 0 or more")
        for name in ("video_s", "workers"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} = {getattr(self, name)} must be above 0")

    def hours_of(self, split: Split) -> float:
        """Hours to record for one split."""
        return {"train": self.hours, "val": self.val_hours, "test": self.test_hours}[split]

    def videos(self) -> list[PlannedVideo]:
        """All videos to record."""
        return [
            PlannedVideo(split, number, self.seed, self.video_s)
            for split in SPLITS
            for number in range(round(self.hours_of(split) * 3600 / self.video_s))
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordResult:
    """What was recorded."""

    out: Path
    videos: int
    kept: int  # of them, recorded by an earlier run of the same command
    hours: dict[str, float]
    totals: dict[str, dict[str, dict[str, int]]]  # split → column → value → actions
    seconds: float


def run(config: RecordConfig) -> RecordResult:
    """Record all videos, or those that an interrupted run left.

    Raises:
        ConfigError: `out` holds a recording with other settings.
        MissingExtraError: vizdoom is not installed.
        DataError: the game is silent because OpenAL is missing.
    """
    started = time.perf_counter()
    engine_folder()
    _claim(config)
    videos = config.videos()
    paths = {video: _rows_path(config.out, video) for video in videos}
    done = {
        video: [LabelRow(**row) for row in json.loads(path.read_text())]
        for video, path in paths.items()
        if path.is_file()
    }
    kept = len(done)
    _record_all(config, [video for video in videos if video not in done], done)
    rows = [row for video in videos for row in done[video]]

    with atomic_file(config.out / "labels.csv") as aside, aside.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(LabelRow)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    write_atomically(config.out / "prompts.json", json.dumps(prompts(), indent=1))
    result = RecordResult(
        out=config.out,
        videos=len(videos),
        kept=kept,
        hours=_hours(rows),
        totals=_totals(rows),
        seconds=round(time.perf_counter() - started, 1),
    )
    summary = {
        "format": FORMAT,
        "config": to_values(config),
        "result": to_values(result),
        "versions": {name: version(name) for name in ("vizdoom", "av", "numpy")}
        | {"python": platform.python_version()},
    }
    write_atomically(config.out / "recording.json", json.dumps(summary, indent=1))
    return result


def _rows_path(out: Path, video: PlannedVideo) -> Path:
    """Where the rows of a video are: the file is there once the video is complete."""
    return out / "rows" / f"{video.split}-{video.number:04d}.json"


def _claim(config: RecordConfig) -> None:
    """Mark the folder with the settings that shape each video; refuse one with others."""
    mine = {"format": FORMAT, "seed": config.seed, "video_s": config.video_s}
    path = config.out / "rows" / "settings.json"
    if path.is_file():
        theirs = json.loads(path.read_text())
        if theirs != mine:
            raise ConfigError(
                f"{config.out}: holds a recording made with {theirs}, this one has {mine}; "
                "choose another folder, or remove this one"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(mine))


_games: dict[str, Game] = {}  # of this worker process, one per wad


def _start_worker() -> None:
    """Lead a process group of one's own, with the game in it, that ends when the parent ends.

    So Ctrl-C reaches the parent alone, which lets the videos at work be finished; and if the parent
    is killed, no game is left running. `vatt.workers` would kill the worker without its game.
    """

    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os.killpg(0, signal.SIGKILL)

    os.setpgrp()
    threading.Thread(target=end_with_parent, daemon=True).start()


def _record_one(video: PlannedVideo, out: Path) -> list[LabelRow]:
    game = _games.get(video.map.wad)
    if game is None:
        game = _games[video.map.wad] = Game(video.map.wad)
        Finalize(game, game.close, exitpriority=1)
    rows = record(video, game, out)
    write_atomically(_rows_path(out, video), json.dumps([asdict(row) for row in rows]))
    return rows


def _record_all(
    config: RecordConfig, todo: list[PlannedVideo], done: dict[PlannedVideo, list[LabelRow]]
) -> None:
    """Record in several processes; whenever this stops, each video is complete or absent."""
    if not todo:
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(config.workers, len(todo)), context, initializer=_start_worker)
    try:
        with ProgressBar("recording", len(todo) + len(done), done=len(done)) as bar:
            waiting = {pool.submit(_record_one, video, config.out): video for video in todo}
            for future in as_completed(waiting):
                done[waiting[future]] = future.result()
                bar.update(len(done))
    except BrokenProcessPool as error:
        raise DataError(
            f"{config.out}: a recording process was killed after {len(done)} videos, "
            f"{len(config.videos()) - len(done)} are missing (out of memory?); the same command "
            "continues"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _hours(rows: list[LabelRow]) -> dict[str, float]:
    """Hours of video of each split: a video lasts until its last action's end."""
    ends: dict[tuple[str, str], float] = {}
    for row in rows:
        key = (row.split, row.file)
        ends[key] = max(ends.get(key, 0.0), row.end_s)
    return {
        split: round(sum(end_s for (of, _), end_s in ends.items() if of == split) / 3600, 3)
        for split in SPLITS
    }


def _totals(rows: list[LabelRow]) -> dict[str, dict[str, dict[str, int]]]:
    return {
        split: {
            column: dict(
                Counter(
                    getattr(row, column) or "(unclear)"
                    for row in rows
                    if row.split == split and row.kind == "label"
                ).most_common()
            )
            for column in ("action", "sound_event", "weapon")
        }
        for split in SPLITS
    }
