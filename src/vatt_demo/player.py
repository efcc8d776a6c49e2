"""What the player does: takes of one to three segments, each with one action, cuts between them.

Actions and weapons are dealt from shuffled decks, and what did not come out as wanted goes back, so
that what survives is balanced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.random import Generator

from vatt_demo.game import Command, Game, GameFrame
from vatt_demo.maps import GameMap
from vatt_demo.scenes import BODY, HEADINGS, Spot, dress, is_good, score, survey
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
DIRECTION = {"forward": 0, "strafe_right": 90, "backward": 180, "strafe_left": 270}
MOVES = tuple(DIRECTION)
SHORTEST, LONGEST = 17, 24  # frames of a segment
CLIP = 16  # frames in the middle of a segment that its label and caption speak of
UNITS_PER_FRAME = 1.25  # how far a move of speed 1 goes in a frame, in map units
PEACEFUL = 0.65  # share of the videos in which monsters do not attack first
NUM_PLACES = 10  # looked at together
FADE = 25  # tics after which explosions of the take before are over
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
class Segment:
    """One action, as played: the commands and what the game showed after each."""

    action: str
    weapon: Weapon
    first: int  # frame of the video
    commands: list[Command] = field(default_factory=list)
    moments: list[GameFrame] = field(default_factory=list)
    opens_take: bool = False

    @property
    def last(self) -> int:
        """One past the last frame of the video."""
        return self.first + len(self.moments)

    def central(self) -> slice:
        """The frames of the clip centred in the segment."""
        start = (len(self.moments) - CLIP) // 2
        return slice(start, start + CLIP)


@dataclass(slots=True)
class Plan:
    """What a segment is going to be."""

    action: str
    frames: int
    speed: float
    armed: bool  # shoots while moving


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
        self.frame = 0
        self.views: list[tuple[Spot, int]] = []
        self.cuts: list[int] = []
        self.segments: list[Segment] = []

    def play(self) -> list[Segment]:
        """Film takes until the video is long enough."""
        self._prepare()
        for _ in range(200):
            if self.frame >= self.num_frames:
                break
            self._take()
        return self.segments

    def _prepare(self) -> None:
        self.game.start(self.map, int(self.rng.integers(2**31)))
        self.game.console("buddha")
        if self.peaceful:
            self.game.console("notarget")
        for weapon in weapons_of(self.map.wad):
            self.game.console(f"give {weapon.game_class}")
        self.game.pass_time(2)
        self.game.console(f"use {self.weapon.game_class}")
        self.views = []
        self._find_views()

    def _find_views(self) -> None:
        """Look for more bright and open views."""
        spots = survey(self.game, self.map, self.rng, NUM_PLACES)
        self.views += [(s, h) for s in spots for h in range(HEADINGS) if is_good(s.views[h])]

    def _take(self) -> None:
        """Set up a scene, then play one to three segments there."""
        if self.game.over:
            self._prepare()
        first = self.actions.deal()
        view = self._set_up(first)
        if view is None:
            return
        if self.frame:
            self.cuts.append(self.frame)
        moves = first in (*MOVES, "armed")  # room is used up, and a walker glides on for a while
        count = 1 if moves else int(self.rng.choice([1, 2, 3], p=[0.25, 0.4, 0.35]))
        name = first
        for number in range(count):
            complete = self._segment(self._plan(name, *view), number)
            if not complete or name == "attack":  # a shot would be heard in the next segment
                break
            if number + 1 < count:
                name = self.actions.deal(lambda one: one not in (*MOVES, "armed"))

    def _set_up(self, action: str) -> tuple[Spot, int] | None:
        """Take a weapon and go to a view; None if the map has no room or the weapon fails."""
        for _ in range(3):
            if self._fitting(action):
                break
            self._find_views()
        else:
            return None
        if self.segments and any(command.attack for command in self.segments[-1].commands):
            self.game.pass_time(FADE)
        self._change_weapon(firing=action in ("attack", "armed"))
        view = self._go(action)
        if self._has_weapon():
            return view
        self.actions.put_back(action)
        return None

    def _change_weapon(self, *, firing: bool) -> None:
        """Take the weapon for the next take, or keep it; raising one takes most of a second."""
        wanted = self.weapon
        if firing:
            wanted = self.guns.deal()
        elif self.rng.random() < 0.3:
            wanted = self.weapons.deal()
        if wanted.ammo:
            self.game.console(f"give {wanted.ammo} {wanted.refill}")
        if wanted is not self.weapon:
            self.weapon = wanted
            self.game.console(f"use {wanted.game_class}")
            self.game.pass_time(26)

    def _fitting(self, action: str) -> list[tuple[Spot, int]]:
        """Views not filmed yet that have room for the action."""
        angle = DIRECTION.get(action, 0)
        return [
            (spot, heading)
            for spot, heading in self.views
            if action not in MOVES or spot.way(heading, angle) - BODY >= MIN_WALK
        ]

    def _go(self, action: str) -> tuple[Spot, int]:
        """Go to a view with room for the action, and put something there."""
        views = self._fitting(action)
        some = [views[int(i)] for i in self.rng.integers(len(views), size=3)]
        spot, heading = view = max(some, key=lambda one: score(one[0].views[one[1]]))
        self.views.remove(view)
        angle = spot.angle - heading * 360 / HEADINGS
        self.game.console(f"warp {spot.place[0]} {spot.place[1]}")
        self.game.turn(self.game.angle - angle)
        if self.rng.random() < 0.6:
            way = spot.views[heading].way
            dress(
                self.game,
                self.rng,
                place=spot.place,
                angle=angle,
                way=way,
                wad=self.map.wad,
                walks=action == "forward",
            )
        offset = 0.0 if action in ("forward", "backward") else float(self.rng.uniform(-20, 20))
        self.game.pass_time(2, Command(turn=offset / 2))
        return view

    def _has_weapon(self) -> bool:
        """Whether the weapon is up; asks for it once more if not."""
        for _ in range(2):
            now = self.game.step(tics=1)
            if now is None or now.slot == self.weapon.slot:
                return now is not None
            self.game.console(f"use {self.weapon.game_class}")
            self.game.pass_time(40)
        return False

    def _plan(self, name: str, spot: Spot, heading: int) -> Plan:
        """Length and speed of a segment; a move is slow enough to end before the wall."""
        rng = self.rng
        frames = int(rng.integers(SHORTEST, LONGEST + 1))
        armed = name == "armed"
        if armed:
            name = str(rng.choice([one for one in ACTIONS if one not in ("attack", "stand")]))
        if name in MOVES:
            way = spot.way(heading, DIRECTION[name]) - BODY
            fastest = way / (frames * UNITS_PER_FRAME)
            speed = float(np.clip(rng.uniform(8, 18), 6.0, max(fastest, 6.0)))
        else:
            speed = float(rng.uniform(0.8, 1.8))
        return Plan(name, frames, speed, armed)

    def _segment(self, plan: Plan, number: int) -> bool:
        """Play one segment; False when the take must end (blocked, or the map is over)."""
        part = Segment(
            action=plan.action,
            weapon=self.weapon,
            first=self.frame,
            opens_take=number == 0,
        )
        fire = _trigger(self.rng, plan.frames, plan.action == "attack" or plan.armed)
        for i in range(plan.frames):
            command = command_of(plan.action, plan.speed, attack=bool(fire[i]))
            moment = self.game.step(command)
            if moment is None:
                break
            part.commands.append(command)
            part.moments.append(moment)
            if is_blocked(part, plan.speed):
                break
        self.frame = part.last
        if part.moments:
            self.segments.append(part)
        complete = len(part.moments) == plan.frames
        if not complete:
            self.actions.put_back("armed" if plan.armed else plan.action)
        return complete


def command_of(action: str, speed: float, *, attack: bool) -> Command:
    """The buttons of one frame of an action."""
    moves = {
        "forward": Command(attack=attack, forward=speed),
        "backward": Command(attack=attack, forward=-speed),
        "strafe_left": Command(attack=attack, right=-speed),
        "strafe_right": Command(attack=attack, right=speed),
        "turn_left": Command(attack=attack, turn=-speed),
        "turn_right": Command(attack=attack, turn=speed),
    }
    return moves.get(action, Command(attack=attack))


def is_blocked(part: Segment, speed: float) -> bool:
    """Whether a move has come to a halt: under a third of its speed over the last three frames."""
    if part.action not in MOVES or len(part.moments) < 7:
        return False
    now, before = part.moments[-1], part.moments[-4]
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
