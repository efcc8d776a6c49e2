"""The simulated player: plays scenes of one to three actions each, with cuts between scenes.

Actions and weapons are dealt from shuffled decks, and an action that could not be played goes back,
so that the recorded ones are balanced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.random import Generator

from vatt_demo.game import Buttons, Game, GameFrame
from vatt_demo.maps import GameMap
from vatt_demo.scenes import BODY, HEADINGS, Spot, is_good, put_things, score, survey
from vatt_demo.weapons import Weapon, weapons_of

ACTIONS = (
    "forward",
    "backward",
    "strafe_left",
    "strafe_right",
    "turn_left",
    "turn_right",
    "attack",
    "stand",
)
DEGREES_RIGHT = {"forward": 0, "strafe_right": 90, "backward": 180, "strafe_left": 270}
MOVES = tuple(DEGREES_RIGHT)
SHORTEST, LONGEST = 17, 24  # frames of an action
CLIP = 16  # frames in the middle of an action that its label and caption speak of
UNITS_PER_FRAME = 1.25  # how far a move of speed 1 goes in a frame, in map units
PEACEFUL = 0.65  # share of the videos in which monsters do not attack first
NUM_PLACES = 10  # of one survey
FADE = 25  # tics after which explosions of the scene before are over
MIN_WALK = 220.0  # map units free ahead of a move

T = TypeVar("T")


class Deck(Generic[T]):
    """Deals values evenly: each comes once per round, in random order."""

    def __init__(self, values: Sequence[T], rng: Generator) -> None:
        self._values, self._rng, self._left = tuple(values), rng, list[T]()

    def deal(self, fits: Callable[[T], bool] = lambda _: True) -> T:
        """The next value that fits; at least one value must."""
        while True:
            for i, value in enumerate(self._left):
                if fits(value):
                    return self._left.pop(i)
            self._left += [self._values[i] for i in self._rng.permutation(len(self._values))]

    def put_back(self, value: T) -> None:
        """Deal this value again soon."""
        self._left.insert(0, value)


@dataclass(slots=True)
class PlayedAction:
    """One action as it was played: the buttons of each frame and what the game showed."""

    action: str
    weapon: Weapon
    first: int  # frame of the video
    buttons: list[Buttons] = field(default_factory=list)
    frames: list[GameFrame] = field(default_factory=list)
    opens_scene: bool = False

    @property
    def last(self) -> int:
        """One past the last frame of the video."""
        return self.first + len(self.frames)

    def central(self) -> slice:
        """The `CLIP` frames in the middle."""
        start = (len(self.frames) - CLIP) // 2
        return slice(start, start + CLIP)


class Player:
    """Plays one video on one map: `play()` runs until enough frames are recorded."""

    def __init__(self, game: Game, game_map: GameMap, rng: Generator, num_frames: int) -> None:
        self.game, self.map, self.rng, self.num_frames = game, game_map, rng, num_frames
        self.actions = Deck((*ACTIONS, "attack", "attack", "armed"), rng)
        arsenal = weapons_of(game_map.wad)
        self.weapons = Deck(arsenal, rng)
        self.guns = Deck((*arsenal, *[w for w in arsenal if w.wad]), rng)
        self.weapon: Weapon = arsenal[1]
        self.peaceful = bool(rng.random() < PEACEFUL)
        self.num_recorded = 0
        self.unused: list[tuple[Spot, int]] = []  # good directions not recorded yet
        self.cuts: list[int] = []  # frames with which a scene begins, but for the first
        self.played: list[PlayedAction] = []

    def play(self) -> list[PlayedAction]:
        """Play scenes until the video is long enough."""
        self._start_map()
        for _ in range(200):
            if self.num_recorded >= self.num_frames:
                break
            self._play_scene()
        return self.played

    def _start_map(self) -> None:
        self.game.start(self.map, int(self.rng.integers(2**31)))
        self.game.console("buddha")
        if self.peaceful:
            self.game.console("notarget")
        for weapon in weapons_of(self.map.wad):
            self.game.console(f"give {weapon.game_class}")
        self.game.pass_time(2)
        self.game.console(f"use {self.weapon.game_class}")
        self.unused = []
        self._find_directions()

    def _find_directions(self) -> None:
        spots = survey(self.game, self.map, self.rng, NUM_PLACES)
        self.unused += [
            (s, heading) for s in spots for heading in range(HEADINGS) if is_good(s.ways[heading])
        ]

    def _play_scene(self) -> None:
        """Prepare a scene, then play one to three actions there."""
        if self.game.over:
            self._start_map()
        action = self.actions.deal()
        direction = self._prepare_scene(action)
        if direction is None:
            return
        if self.num_recorded:
            self.cuts.append(self.num_recorded)
        moves = action in (*MOVES, "armed")  # room is used up, and a walker glides on for a while
        count = 1 if moves else int(self.rng.choice([1, 2, 3], p=[0.25, 0.4, 0.35]))
        for number in range(count):
            complete = self._play_action(action, *direction, opens_scene=number == 0)
            if not complete or action == "attack":  # a shot would be heard in the next action
                break
            if number + 1 < count:
                action = self.actions.deal(lambda one: one not in (*MOVES, "armed"))

    def _prepare_scene(self, action: str) -> tuple[Spot, int] | None:  # noqa: C901 one story
        """Take a weapon and go where the action has room; None if there is none, or no weapon."""
        for _ in range(3):
            if self._fitting(action):
                break
            self._find_directions()
        else:
            return None
        if self.played and any(buttons.attack for buttons in self.played[-1].buttons):
            self.game.pass_time(FADE)

        weapon = self.weapon
        if action in ("attack", "armed"):
            weapon = self.guns.deal()
        elif self.rng.random() < 0.3:
            weapon = self.weapons.deal()
        if weapon.ammo:
            self.game.console(f"give {weapon.ammo} {weapon.refill}")
        if weapon is not self.weapon:
            self.weapon = weapon
            self.game.console(f"use {weapon.game_class}")
            self.game.pass_time(26)  # raising a weapon takes most of a second

        direction = self._go(action)
        for _ in range(2):
            now = self.game.step(tics=1)
            if now is not None and now.slot == weapon.slot:
                return direction
            if now is None:
                break
            self.game.console(f"use {weapon.game_class}")
            self.game.pass_time(40)
        self.actions.put_back(action)
        return None

    def _fitting(self, action: str) -> list[tuple[Spot, int]]:
        """Directions not recorded yet that have room for the action."""
        angle = DEGREES_RIGHT.get(action, 0)
        return [
            (spot, heading)
            for spot, heading in self.unused
            if action not in MOVES or spot.room_to_walk(heading, angle) - BODY >= MIN_WALK
        ]

    def _go(self, action: str) -> tuple[Spot, int]:
        """Go to the best of three places with room for the action, and put something in view."""
        fitting = self._fitting(action)
        some = [fitting[int(i)] for i in self.rng.integers(len(fitting), size=3)]
        spot, heading = direction = max(some, key=lambda one: score(one[0].ways[one[1]]))
        self.unused.remove(direction)
        angle = spot.angle - heading * 360 / HEADINGS
        self.game.console(f"warp {spot.place[0]} {spot.place[1]}")
        self.game.turn(self.game.angle - angle)
        if self.rng.random() < 0.6:
            put_things(
                self.game,
                self.rng,
                place=spot.place,
                angle=angle,
                free=spot.ways[heading].free,
                wad=self.map.wad,
                walks=action == "forward",
            )
        offset = 0.0 if action in ("forward", "backward") else float(self.rng.uniform(-20, 20))
        self.game.pass_time(2, Buttons(turn=offset / 2))
        return direction

    def _play_action(self, name: str, spot: Spot, heading: int, *, opens_scene: bool) -> bool:
        """Play one action; False when the scene must end (blocked, or the map is over).

        A move is slow enough to end before the wall. "armed" is any move or turn while shooting.
        """
        rng, action = self.rng, name
        num_frames = int(rng.integers(SHORTEST, LONGEST + 1))
        if name == "armed":
            action = str(rng.choice([one for one in ACTIONS if one not in ("attack", "stand")]))
        if action in MOVES:
            room = spot.room_to_walk(heading, DEGREES_RIGHT[action]) - BODY
            fastest = room / (num_frames * UNITS_PER_FRAME)
            speed = float(np.clip(rng.uniform(8, 18), 6.0, max(fastest, 6.0)))
        else:
            speed = float(rng.uniform(0.8, 1.8))
        trigger = _trigger(rng, num_frames, name in ("attack", "armed"))

        played = PlayedAction(action, self.weapon, self.num_recorded, opens_scene=opens_scene)
        for attack in trigger:
            buttons = buttons_of(action, speed, attack=attack)
            frame = self.game.step(buttons)
            if frame is None:
                break
            played.buttons.append(buttons)
            played.frames.append(frame)
            if is_blocked(played, speed):
                break
        self.num_recorded = played.last
        if played.frames:
            self.played.append(played)
        complete = len(played.frames) == num_frames
        if not complete:
            self.actions.put_back(name)
        return complete


def buttons_of(action: str, speed: float, *, attack: bool) -> Buttons:
    """The buttons of one frame of an action."""
    moves = {
        "forward": Buttons(attack=attack, forward=speed),
        "backward": Buttons(attack=attack, forward=-speed),
        "strafe_left": Buttons(attack=attack, right=-speed),
        "strafe_right": Buttons(attack=attack, right=speed),
        "turn_left": Buttons(attack=attack, turn=-speed),
        "turn_right": Buttons(attack=attack, turn=speed),
    }
    return moves.get(action, Buttons(attack=attack))


def is_blocked(played: PlayedAction, speed: float) -> bool:
    """Whether a move has come to a halt: under a third of its speed over the last three frames."""
    if played.action not in MOVES or len(played.frames) < 7:
        return False
    now, before = played.frames[-1], played.frames[-4]
    return float(np.hypot(now.x - before.x, now.y - before.y)) < speed * UNITS_PER_FRAME


def _trigger(rng: Generator, frames: int, shoots: bool) -> list[bool]:
    """When the trigger is held: bursts of one to six frames with pauses between."""
    held = [False] * frames
    at = int(rng.integers(1, 5))
    while shoots and at < frames:
        length = int(rng.integers(1, 7))
        held[at : at + length] = [True] * len(held[at : at + length])
        at += length + int(rng.integers(2, 7))
    return held
