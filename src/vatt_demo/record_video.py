"""Records one video: plays it, labels its segments, captions them and writes the files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator

from vatt.errors import DataError
from vatt_demo.game import FRAME_RATE, Game
from vatt_demo.ground_truth import truth_of
from vatt_demo.maps import SPLITS, GameMap, Split, maps_of
from vatt_demo.player import SHORTEST, Player, Segment
from vatt_demo.sentences import Writer
from vatt_demo.write_files import write_captions, write_video

JITTER_S = 0.4  # how far a caption may be off its segment
FORMAT = 1  # of what is recorded: raise it when the same seed gives something else


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of labels.csv: a labelled segment, or a cut (start_s = end_s)."""

    file: str
    kind: str
    start_s: float
    end_s: float
    split: str
    map: str
    action: str = ""
    sound_event: str = ""
    weapon: str = ""
    caption: str = ""
    facts: str = ""
    said: str = ""


@dataclass(frozen=True, slots=True)
class Video:
    """Which video: all that its content depends on."""

    split: Split
    number: int
    seed: int
    length_s: float

    @property
    def map(self) -> GameMap:
        """The maps of a split take turns."""
        maps = maps_of(self.split)
        order = np.random.default_rng([self.seed, SPLITS.index(self.split)]).permutation(len(maps))
        return maps[int(order[self.number % len(maps)])]

    @property
    def name(self) -> str:
        """File name without ending, e.g. `freedoom1-E1M1-0007`."""
        return f"{self.map.label}-{self.number:04d}"

    def rng(self) -> Generator:
        """The source of all that is random in the video."""
        return np.random.default_rng([self.seed, SPLITS.index(self.split), self.number, FORMAT])


def record(video: Video, game: Game, folder: Path) -> list[Row]:
    """Play and write `folder`/<split>/<name>.mp4 and .srt.

    Args:
        video: which one.
        game: running on the wad of the video's map.
        folder: of the whole recording.

    Returns:
        The rows of labels.csv: segments and cuts.

    Raises:
        DataError: the game stopped, or its map showed nothing worth filming.
    """
    rng = video.rng()
    player = Player(game, video.map, rng, round(video.length_s * FRAME_RATE))
    segments = player.play()
    if not segments:
        raise DataError(f"{video.name}: nothing could be filmed here; choose another seed")
    rows, captions = _describe(video, segments, player.cuts, Writer(rng), rng)
    moments = [moment for part in segments for moment in part.moments]
    path = folder / video.split / video.name
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".mp4.part")
    write_video(
        part,
        (moment.picture for moment in moments),
        np.concatenate([moment.sound for moment in moments]),
    )
    part.replace(path.with_suffix(".mp4"))
    part = path.with_suffix(".srt.part")
    write_captions(part, captions)
    part.replace(path.with_suffix(".srt"))
    return rows


def _describe(
    video: Video, segments: list[Segment], cuts: list[int], writer: Writer, rng: Generator
) -> tuple[list[Row], list[tuple[float, float, str]]]:
    """The rows and the captions of a video."""
    file = f"{video.split}/{video.name}.mp4"
    rows = [_row(video, file, "cut", cut, cut) for cut in cuts]
    captions: list[tuple[float, float, str]] = []
    before: list[Segment] = []
    for part in segments:
        before = [] if part.opens_take else before
        captions += _messages(part)
        if len(part.moments) >= SHORTEST:
            truth = truth_of(part, before)
            caption = writer.sentence(truth) if rng.random() < 0.95 else None
            remark = writer.remark(truth) if rng.random() < 0.3 else None
            said = [one.text for one in (caption, remark) if one]
            said += [writer.chatter()] if rng.random() < 0.1 else []
            captions += [(*_spoken(part, rng), text) for text in said]
            rows.append(
                _row(
                    video,
                    file,
                    "label",
                    part.first,
                    part.last,
                    action=truth.action,
                    sound_event=truth.sound_event,
                    weapon=truth.weapon,
                    caption=caption.text if caption else "",
                    facts=" ".join(sorted(truth.facts)),
                    said=" ".join(sorted(caption.said)) if caption else "",
                )
            )
        before.append(part)
    return sorted(rows, key=lambda row: (row.start_s, row.kind)), captions


def _row(video: Video, file: str, kind: str, first: int, last: int, **texts: str) -> Row:
    return Row(
        file=file,
        kind=kind,
        start_s=round(float(first / FRAME_RATE), 4),
        end_s=round(float(last / FRAME_RATE), 4),
        split=video.split,
        map=video.map.label,
        **texts,
    )


def _spoken(part: Segment, rng: Generator) -> tuple[float, float]:
    """When a sentence about a segment is said: about then."""
    shift = float(rng.uniform(-JITTER_S, JITTER_S))
    start, end = part.first / FRAME_RATE, part.last / FRAME_RATE
    return max(0.0, float(start) + shift), max(0.1, float(end) + shift)


def _messages(part: Segment) -> list[tuple[float, float, str]]:
    """The game's own messages with the time they appear."""
    return [
        (float((part.first + i) / FRAME_RATE), float((part.first + i) / FRAME_RATE) + 1.5, text)
        for i, moment in enumerate(part.moments)
        for text in moment.messages
    ]


def save_rows(path: Path, rows: list[Row]) -> None:
    """Write the rows beside: the sign that the video is complete."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps([asdict(row) for row in rows]))
    part.replace(path)


def load_rows(path: Path) -> list[Row]:
    """Read what `save_rows` wrote."""
    return [Row(**row) for row in json.loads(path.read_text())]
