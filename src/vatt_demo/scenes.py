"""Where a scene is played: places with light and room, found by looking around; things put there.

All of this happens between two scenes and is not recorded; a cut marks the spot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from vatt_demo.game import DEPTH_UNIT, HEIGHT, WIDTH, Buttons, Game, GameFrame
from vatt_demo.maps import GameMap, places

HEADINGS = 4  # directions looked at from a place, 90 degrees apart
MIN_LIGHT = 32.0  # mean of the pixels, 0 to 255
MIN_ROOM = 180.0  # map units of median depth; less is a wall close by
BODY = 40.0  # map units kept free of walls at the end of a walk

MONSTERS = (
    "Zombieman",
    "ShotgunGuy",
    "DoomImp",
    "Demon",
    "Cacodemon",
    "LostSoul",
    "BaronOfHell",
)
MONSTERS_OF_FREEDOOM2 = ("ChaingunGuy", "HellKnight", "Revenant", "Fatso", "Arachnotron")
ITEMS = (
    "HealthBonus",
    "ArmorBonus",
    "Stimpack",
    "Medikit",
    "GreenArmor",
    "BlueArmor",
    "ClipBox",
    "ShellBox",
    "RocketBox",
    "CellPack",
    "Backpack",
    "Soulsphere",
)
DECOR = (
    "ExplosiveBarrel",
    "TechLamp",
    "RedTorch",
    "GreenTorch",
    "BlueTorch",
    "TallGreenColumn",
    "TallRedColumn",
    "BigTree",
    "Stalagtite",
    "Candelabra",
)


@dataclass(frozen=True, slots=True)
class Way:
    """What one direction from a place offers."""

    light: float  # mean of the pixels
    room: float  # median depth in map units
    free: float  # map units to walk straight ahead before a wall


@dataclass(frozen=True, slots=True)
class Spot:
    """A place and the ways from it, `360 / HEADINGS` degrees apart, turning right."""

    place: tuple[int, int]
    angle: float  # of the first way, degrees anticlockwise
    ways: tuple[Way, ...]

    def room_to_walk(self, heading: int, degrees_right: int) -> float:
        """Map units free at an angle to a heading."""
        return self.ways[(heading + degrees_right * HEADINGS // 360) % HEADINGS].free


def way_of(frame: GameFrame) -> Way:
    """Measure light, room and the free way straight ahead.

    Free is what the depth buffer shows just around the horizon in the width of the player: lower
    rows would show the floor, higher ones what one walks under.
    """
    middle, half = WIDTH // 2, 11
    ahead = frame.depth[52:67, middle - half : middle + half]
    band = frame.depth[HEIGHT // 3 : HEIGHT * 2 // 3]
    return Way(
        light=float(frame.pixels[::3, ::3].mean()),
        room=float(np.median(band[::3, ::3])) * DEPTH_UNIT,
        free=float(np.partition(ahead.reshape(-1), 16)[16]) * DEPTH_UNIT,
    )


def survey(game: Game, game_map: GameMap, rng: Generator, num_places: int) -> list[Spot]:
    """Go to some places of a map and look around at each; stops early when the map ends."""
    known = places(game_map)
    found: list[Spot] = []
    for i in rng.permutation(len(known))[:num_places]:
        place = known[int(i)]
        game.console(f"warp {place[0]} {place[1]}")
        game.pass_time(2, Buttons(turn=float(rng.uniform(0, 45))))
        frames = [game.step(Buttons(turn=360 / HEADINGS), tics=1) for _ in range(HEADINGS)]
        complete = [frame for frame in frames if frame is not None]
        if len(complete) < HEADINGS:
            break
        found.append(Spot(place, complete[0].angle, tuple(map(way_of, complete))))
    return found


def is_good(way: Way) -> bool:
    """Bright and open enough to show something."""
    return way.light >= MIN_LIGHT and way.room >= MIN_ROOM


def score(way: Way) -> float:
    """How much a direction shows; more light than enough and more room than enough do not count."""
    return min(way.light, 60.0) * min(way.room, 450.0)


def summon(game: Game, what: str, bearing: float) -> None:
    """Put a thing about 55 units away, `bearing` degrees to the right of where the player looks."""
    game.turn(bearing)
    game.console(f"summon {what}")
    game.turn(-bearing)


def put_things(
    game: Game,
    rng: Generator,
    *,
    place: tuple[int, int],
    angle: float,
    free: float,
    wad: str,
    walks: bool,
) -> None:
    """Put a monster, things or both in view, then come back to the place.

    Args:
        game: the player stands at `place` and looks where the scene begins.
        rng: draws what is put where.
        place: where the scene is played, in map units.
        angle: where the player looks, in degrees anticlockwise.
        free: map units ahead without a wall.
        wad: which monsters exist.
        walks: the player will walk ahead: only what can be picked up may lie ahead.
    """
    if free < 170:
        return
    ahead = min(rng.uniform(0.25, 0.7) * free - 55, 260.0)
    x = place[0] + ahead * math.cos(math.radians(angle))
    y = place[1] + ahead * math.sin(math.radians(angle))
    game.console(f"warp {x:.0f} {y:.0f}")
    game.pass_time(1)
    monsters = MONSTERS + (MONSTERS_OF_FREEDOOM2 if wad == "freedoom2.wad" else ())
    side = float(rng.choice([-70.0, 70.0]))
    if walks:
        summon(game, str(rng.choice(ITEMS)), 0.0)
    kind = rng.random()
    if kind < 0.6:
        monster = str(rng.choice(monsters))
        summon(game, monster, side if walks else float(rng.choice([side, side / 2, 0.0])))
        if rng.random() < 0.35:
            summon(game, monster, float(rng.choice([side + 50.0, side - 50.0])))
    if kind > 0.4:
        summon(game, str(rng.choice(DECOR)), -side)
    game.console(f"warp {place[0]} {place[1]}")
    game.pass_time(1)
