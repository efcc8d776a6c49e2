"""What is true of a played action: its labels and the facts that a caption may state.

All of it is measured in the `CLIP` frames in its middle, from the game's state and the pixels; what
the player meant to do is not enough.

A fact is a word with a kind, e.g. `action:turn_left`, `weapon:shotgun`, `object:imp@left`,
`count:imp=2`, `light:dark`, `colour:green`, `space:open`, `event:pain`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vatt_demo.game import DEPTH_UNIT, HEIGHT, WIDTH, GameFrame, Seen
from vatt_demo.player import DEGREES_RIGHT, MOVES, UNITS_PER_FRAME, PlayedAction

MIN_AREA = 140  # pixels of 19,200; people would not mention smaller things
MAX_DRIFT = 40.0  # map units that hits may move a player who is not walking
MIN_THING_LIGHT = 30.0  # of its brightest channel, 0 to 255
RINGING = 9  # frames for which a shot is still heard
DARK, BRIGHT = 41.0, 66.0  # mean of the pixels
NARROW, OPEN = 150.0, 310.0  # median depth, map units

# What people who see Freedoom would call the things; other classes are not mentioned.
MONSTERS = {
    "Zombieman": "zombie",
    "ShotgunGuy": "soldier",
    "ChaingunGuy": "gunner",
    "DoomImp": "serpent",
    "Demon": "worm",
    "Cacodemon": "trilobite",
    "LostSoul": "brain",
    "BaronOfHell": "baron",
    "HellKnight": "knight",
    "Revenant": "squid",
    "Fatso": "slug",
    "Arachnotron": "spider",
}
THINGS = {
    "HealthBonus": "potion",
    "ArmorBonus": "helmet",
    "Stimpack": "stimpack",
    "Medikit": "medkit",
    "GreenArmor": "green_vest",
    "BlueArmor": "red_vest",
    "ClipBox": "bullets",
    "ShellBox": "shells",
    "Shell": "shells",
    "RocketBox": "rockets",
    "CellPack": "battery",
    "Backpack": "backpack",
    "Soulsphere": "skull",
    "ExplosiveBarrel": "barrel",
    "TechLamp": "lamp",
    "TechLamp2": "lamp",
    "Column": "lamp",
    "RedTorch": "red_torch",
    "ShortRedTorch": "red_torch",
    "GreenTorch": "green_torch",
    "ShortGreenTorch": "green_torch",
    "BlueTorch": "blue_torch",
    "ShortBlueTorch": "blue_torch",
    "BigTree": "tree",
    "TorchTree": "tree",
    "Stalagtite": "tree",
    "TechPillar": "machine",
    "TallGreenColumn": "green_pillar",
    "ShortGreenColumn": "green_pillar",
    "TallRedColumn": "red_pillar",
    "ShortRedColumn": "red_pillar",
    "Candelabra": "candles",
    "DeadMarine": "corpse",
}
NOUNS = MONSTERS | THINGS
MONSTER_NOUNS = frozenset(MONSTERS.values())
PLURAL = frozenset({"bullets", "shells", "rockets", "candles"})


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """Labels and facts of one action; an empty label means ambiguous."""

    action: str
    sound_event: str
    weapon: str
    facts: frozenset[str]


def truth_of(played: PlayedAction, before: list[PlayedAction]) -> GroundTruth:
    """Labels and facts of an action.

    Args:
        played: at least as long as a clip.
        before: the actions before it in the same scene, for sounds that are still heard.
    """
    middle = played.central()
    frames = played.frames[middle]
    action = played.action if moved_as_intended(played, frames) else ""
    weapon = played.weapon.name if held_throughout(played) else ""
    fired, hurt = fired_frames(played), hurt_frames(played)
    shot, cry = bool(fired[middle].any()), bool(hurt[middle].any())

    facts = {f"weapon:{weapon}"} if weapon else set[str]()
    facts |= _things(frames[::2], played.action) | _scenery(frames)
    if hurt.any():  # the screen flashes red
        facts -= {fact for fact in facts if fact.startswith("colour:")}
    if action and (action != "attack" or shot):
        facts.add(f"action:{action}")
    if shot:
        facts.add("action:attack")
    if cry:
        facts.add("event:pain")
    if frames[-1].kills > frames[0].kills:
        facts.add("event:kill")
    if any(frame.messages for frame in frames):
        facts.add("event:pickup")

    if (action != "attack" and fired.any()) or (action == "attack" and not shot):
        action = ""
    event = _sound_event(played, before) if weapon else ""
    return GroundTruth(action, event, weapon, frozenset(facts))


def moved_as_intended(played: PlayedAction, frames: list[GameFrame]) -> bool:
    """Whether path and heading are those of the action: no wall or hit changed them."""
    dx, dy = frames[-1].x - frames[0].x, frames[-1].y - frames[0].y
    path = float(np.hypot(dx, dy))
    turned = (frames[-1].angle - frames[0].angle + 180) % 360 - 180
    if played.action in ("turn_left", "turn_right"):
        right_way = turned > 20 if played.action == "turn_left" else turned < -20
        return right_way and path < MAX_DRIFT
    if played.action not in MOVES:
        return path < MAX_DRIFT
    heading = np.deg2rad(frames[0].angle - DEGREES_RIGHT[played.action])
    along = dx * np.cos(heading) + dy * np.sin(heading)
    speed = max(abs(played.buttons[0].forward), abs(played.buttons[0].right))
    wanted = 0.55 * speed * UNITS_PER_FRAME * (len(frames) - 1)
    return bool(along > wanted and along > 0.85 * path)


def held_throughout(played: PlayedAction) -> bool:
    """Whether the wanted weapon was the one in hand.

    The two shotguns share a slot: what a shot takes tells them apart.
    """
    drops = [a.ammo - b.ammo for a, b in pairwise(played.frames) if b.ammo < a.ammo]
    whole = all(drop % played.weapon.per_shot == 0 for drop in drops)
    single = played.weapon.name != "shotgun" or all(drop == 1 for drop in drops)
    return whole and single and all(one.slot == played.weapon.slot for one in played.frames)


def fired_frames(played: PlayedAction) -> NDArray[np.bool_]:
    """Frames in which a shot is heard: ammunition went down, or a saw is held on."""
    fired = np.zeros(len(played.frames), bool)
    ammo = [frame.ammo for frame in played.frames]
    for i, (before, after) in enumerate(pairwise(ammo), 1):
        fired[i] = after < before
    if played.weapon.name in ("chainsaw", "bfg"):  # needs no ammunition; hums before the shot
        fired |= np.array([buttons.attack for buttons in played.buttons])
    return fired


def hurt_frames(played: PlayedAction) -> NDArray[np.bool_]:
    """Frames in which the player was hit."""
    hurt = np.zeros(len(played.frames), bool)
    for i, (before, after) in enumerate(pairwise(played.frames), 1):
        hurt[i] = after.hits_taken > before.hits_taken
    return hurt


def _sound_event(played: PlayedAction, before: list[PlayedAction]) -> str:
    """The one thing heard in the clip: a weapon, the player's pain, neither, or "" if unclear."""
    middle = played.central()
    fired, hurt = fired_frames(played), hurt_frames(played)
    if fired[middle].any() and not hurt[middle].any():
        return played.weapon.name
    ringing = any((fired_frames(one) | hurt_frames(one))[-RINGING:].any() for one in before[-1:])
    if fired.any() or ringing:
        return ""
    if hurt[middle].any():
        return "pain"
    idles = played.weapon.name == "chainsaw"  # its engine runs all the time
    return "" if hurt.any() or idles else "none"


def side_of(thing: Seen) -> str:
    """Where it is on the screen: left, right or ahead."""
    if thing.centre < WIDTH * 0.36:
        return "left"
    return "right" if thing.centre > WIDTH * 0.64 else "ahead"


def is_plain(thing: Seen, frame: GameFrame) -> bool:
    """Whether it is large and bright enough to be noticed."""
    if thing.area < MIN_AREA:
        return False
    box = frame.pixels[thing.top : thing.top + thing.height, thing.left : thing.left + thing.width]
    return float(box[::2, ::2].max(-1).mean()) > MIN_THING_LIGHT


def _things(frames: list[GameFrame], action: str) -> set[str]:
    """Things seen in most frames, with a side if they keep to it, and how many of a kind."""
    present: Counter[str] = Counter()
    sides: Counter[tuple[str, str]] = Counter()
    counts: dict[str, list[int]] = {}
    for frame in frames:
        large: dict[str, list[Seen]] = {}
        for thing in frame.seen:
            if thing.name in NOUNS and is_plain(thing, frame):
                large.setdefault(NOUNS[thing.name], []).append(thing)
        for noun, things in large.items():
            present[noun] += 1
            counts.setdefault(noun, []).append(len(things))
            sides.update({(noun, side_of(thing)) for thing in things})
    facts: set[str] = set()
    turning = action.startswith("turn")
    for noun, num_frames in present.items():
        if num_frames < len(frames) * (0.4 if turning else 0.65):
            continue
        facts.add(f"object:{noun}")
        facts |= {
            f"object:{noun}@{side}"
            for (what, side), n in sides.items()
            if what == noun and n >= 0.65 * len(frames)
        }
        several = int(np.median(counts[noun]))
        if several > 1 and noun not in PLURAL:
            facts.add(f"count:{noun}={'2' if several == 2 else 'many'}")
    return facts


def _scenery(frames: list[GameFrame]) -> set[str]:
    """Light, main colour and width of the place, where they are clear."""
    some = frames[::3]
    pixels = np.stack([frame.pixels[: HEIGHT * 3 // 4 : 2, ::2] for frame in some])
    light = float(pixels.mean())
    room = float(np.median([np.median(frame.depth[40:80:2, ::2]) for frame in some])) * DEPTH_UNIT
    facts = set()
    if light < DARK or light > BRIGHT:
        facts.add("light:dark" if light < DARK else "light:bright")
    if room < NARROW or room > OPEN:
        facts.add("space:narrow" if room < NARROW else "space:open")
    colour = main_colour(pixels.reshape(-1, 3).mean(0))
    if colour:
        facts.add(f"colour:{colour}")
    return facts


def main_colour(mean: NDArray[np.floating]) -> str:
    """A colour word for a mean [R, G, B], or "" when it is between two."""
    red, green, blue = (float(value) / (float(mean.mean()) + 1e-6) for value in mean)
    if green > red * 1.04 and green > blue * 1.1:
        return "green"
    if blue > red * 1.05 and blue >= green:
        return "blue"
    if red > 1.65:
        return "red"
    if 1.24 < red < 1.55:
        return "brown"
    return "gray" if max(red, green, blue) < 1.16 else ""
