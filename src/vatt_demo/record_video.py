"""Records one video: plays it, labels and captions each action, writes the files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator

from vatt.errors import DataError
from vatt.storage import atomic_file
from vatt_demo.game import FRAME_RATE, Game
from vatt_demo.ground_truth import truth_of
from vatt_demo.maps import SPLITS, GameMap, Split, maps_of
from vatt_demo.media_files import write_captions, write_video
from vatt_demo.player import SHORTEST, PlayedAction, Player
from vatt_demo.sentences import Writer

JITTER_S = 0.4  # how far a caption may be off its action
FORMAT = 1  # of what is recorded: raise it when the same seed gives something else


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRow:
    """A line of labels.csv: a labelled action, or a cut (start_s = end_s)."""

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
class PlannedVideo:
    """A video to record: all that its content depends on."""

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


def record(video: PlannedVideo, game: Game, folder: Path) -> list[LabelRow]:
    """Play and write `folder`/<split>/<name>.mp4 and .srt.

    Args:
        video: which one.
        game: running on the wad of the video's map.
        folder: of the whole recording.

    Returns:
        The rows of labels.csv: actions and cuts.

    Raises:
        DataError: the game stopped, or its map has no place to record.
    """
    rng = video.rng()
    player = Player(game, video.map, rng, round(video.length_s * FRAME_RATE))
    actions = player.play()
    if not actions:
        raise DataError(f"{video.name}: this map has no place to record; choose another seed")
    rows, captions = _describe(video, actions, player.cuts, rng)
    frames = [frame for played in actions for frame in played.frames]
    path = folder / video.split / video.name
    path.parent.mkdir(parents=True, exist_ok=True)
    waveform = np.concatenate([frame.waveform for frame in frames])
    with atomic_file(path.with_suffix(".mp4")) as aside:
        write_video(aside, (frame.pixels for frame in frames), waveform)
    with atomic_file(path.with_suffix(".srt")) as aside:
        write_captions(aside, captions)
    return rows


def _describe(
    video: PlannedVideo, actions: list[PlayedAction], cuts: list[int], rng: Generator
) -> tuple[list[LabelRow], list[tuple[float, float, str]]]:
    """The rows of a video, by time, and its captions: ours and the game's own messages."""
    writer = Writer(rng)

    def row(kind: str, first: int, last: int, **texts: str) -> LabelRow:
        return LabelRow(
            file=f"{video.split}/{video.name}.mp4",
            kind=kind,
            start_s=round(float(first / FRAME_RATE), 4),
            end_s=round(float(last / FRAME_RATE), 4),
            split=video.split,
            map=video.map.label,
            **texts,
        )

    rows = [row("cut", cut, cut) for cut in cuts]
    captions: list[tuple[float, float, str]] = []
    before: list[PlayedAction] = []  # in the same scene
    for played in actions:
        before = [] if played.opens_scene else before
        for i, frame in enumerate(played.frames):
            appears_s = float((played.first + i) / FRAME_RATE)
            captions += [(appears_s, appears_s + 1.5, text) for text in frame.messages]
        if len(played.frames) >= SHORTEST:
            truth = truth_of(played, before)
            caption = writer.sentence(truth) if rng.random() < 0.95 else None
            remark = writer.remark(truth) if rng.random() < 0.3 else None
            texts = [one.text for one in (caption, remark) if one]
            texts += [writer.chatter()] if rng.random() < 0.1 else []
            start_s, end_s = float(played.first / FRAME_RATE), float(played.last / FRAME_RATE)
            for text in texts:
                shift = float(rng.uniform(-JITTER_S, JITTER_S))
                captions.append((max(0.0, start_s + shift), max(0.1, end_s + shift), text))
            rows.append(
                row(
                    "label",
                    played.first,
                    played.last,
                    action=truth.action,
                    sound_event=truth.sound_event,
                    weapon=truth.weapon,
                    caption=caption.text if caption else "",
                    facts=" ".join(sorted(truth.facts)),
                    said=" ".join(sorted(caption.said)) if caption else "",
                )
            )
        before.append(played)
    return sorted(rows, key=lambda row: (row.start_s, row.kind)), captions
