"""What is true of a segment: its labels and the facts that a caption may state.

All of it is measured in the frames of the clip centred in the segment, from the game's state and
the picture; the player's intention alone makes no fact.

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
from vatt_demo.player import DIRECTION, MOVES, UNITS_PER_FRAME, Segment

MIN_AREA = 140  # pixels of 19,200; smaller things nobody would mention
MAX_DRIFT = 40.0  # map units that blows may move a player who is not walking
MIN_THING_LIGHT = 30.0  # of its brightest channel, 0 to 255
RINGING = 9  # frames for which a shot is still heard
DARK, BRIGHT = 41.0, 66.0  # mean of the picture
NARROW, OPEN = 150.0, 310.0  # median depth, map units

# What people who see Freedoom's pictures would call the things; other classes are not mentioned.
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
class Truth:
    """Labels and facts of one segment; an empty label means ambiguous."""

    action: str
    sound_event: str
    weapon: str
    facts: frozenset[str]


def truth_of(part: Segment, before: list[Segment]) -> Truth:
    """Label a complete segment.

    Args:
        part: at least as long as a clip.
        before: the segments of the same take before it, for sounds that still ring.
    """
    moments = part.moments[part.central()]
    action = part.action if moved_as_meant(part, moments) else ""
    sure = part.weapon.name if held_throughout(part) else ""
    fired, hurt = fired_frames(part), hurt_frames(part)
    event = _sound_event(part, fired, hurt, ringing=_ringing(before)) if sure else ""
    facts = {f"weapon:{sure}"} if sure else set[str]()
    facts |= _things(moments[::2], part.action) | _scenery(moments)
    if hurt.any():  # the picture flashes red
        facts -= {fact for fact in facts if fact.startswith("colour:")}
    shot = bool(fired[part.central()].any())
    if action and (action != "attack" or shot):
        facts.add(f"action:{action}")
    if shot:
        facts.add("action:attack")
    if hurt[part.central()].any():
        facts.add("event:pain")
    if moments[-1].kills > moments[0].kills:
        facts.add("event:kill")
    if any(moment.messages for moment in moments):
        facts.add("event:pickup")
    blurred = (action != "attack" and bool(fired.any())) or (action == "attack" and not shot)
    return Truth("" if blurred else action, event, sure, frozenset(facts))


def moved_as_meant(part: Segment, moments: list[GameFrame]) -> bool:
    """Whether the player's path and heading are those of the action, not of a wall or a blow."""
    dx, dy = moments[-1].x - moments[0].x, moments[-1].y - moments[0].y
    path = float(np.hypot(dx, dy))
    turned = (moments[-1].angle - moments[0].angle + 180) % 360 - 180
    if part.action in ("turn_left", "turn_right"):
        right_way = turned > 20 if part.action == "turn_left" else turned < -20
        return right_way and path < MAX_DRIFT
    if part.action not in MOVES:
        return path < MAX_DRIFT
    heading = np.deg2rad(moments[0].angle - DIRECTION[part.action])
    along = dx * np.cos(heading) + dy * np.sin(heading)
    speed = max(abs(part.commands[0].forward), abs(part.commands[0].right))
    wanted = 0.55 * speed * UNITS_PER_FRAME * (len(moments) - 1)
    return bool(along > wanted and along > 0.85 * path)


def held_throughout(part: Segment) -> bool:
    """Whether the wanted weapon was the one in hand.

    The two shotguns share a slot: what a shot takes tells them apart.
    """
    drops = [a.ammo - b.ammo for a, b in pairwise(part.moments) if b.ammo < a.ammo]
    whole = all(drop % part.weapon.per_shot == 0 for drop in drops)
    single = part.weapon.name != "shotgun" or all(drop == 1 for drop in drops)
    return whole and single and all(one.slot == part.weapon.slot for one in part.moments)


def fired_frames(part: Segment) -> NDArray[np.bool_]:
    """Frames in which a shot is heard: ammunition went down, or a saw is held on."""
    fired = np.zeros(len(part.moments), bool)
    ammo = [moment.ammo for moment in part.moments]
    for i, (before, after) in enumerate(pairwise(ammo), 1):
        fired[i] = after < before
    if part.weapon.name in (
        "chainsaw",
        "bfg",
    ):  # the one needs no ammunition, the other hums before
        fired |= np.array([command.attack for command in part.commands])
    return fired


def hurt_frames(part: Segment) -> NDArray[np.bool_]:
    """Frames in which the player was hit."""
    hurt = np.zeros(len(part.moments), bool)
    for i, (before, after) in enumerate(pairwise(part.moments), 1):
        hurt[i] = after.hits_taken > before.hits_taken
    return hurt


def _ringing(before: list[Segment]) -> bool:
    """Whether a shot or a cry of the segment before may still be heard."""
    return any(
        bool((fired_frames(part) | hurt_frames(part))[-RINGING:].any()) for part in before[-1:]
    )


def _sound_event(
    part: Segment, fired: NDArray[np.bool_], hurt: NDArray[np.bool_], *, ringing: bool
) -> str:
    """The one thing heard in the clip: a weapon, the player's pain, neither, or "" if unclear."""
    shot, cry = bool(fired[part.central()].any()), bool(hurt[part.central()].any())
    if shot and not cry:
        return part.weapon.name
    if shot or ringing or fired.any():
        return ""
    if cry:
        return "pain"
    idles = part.weapon.name == "chainsaw"  # its engine runs all the time
    return "" if hurt.any() or idles else "none"


def side_of(thing: Seen) -> str:
    """left, right or ahead."""
    if thing.centre < WIDTH * 0.36:
        return "left"
    return "right" if thing.centre > WIDTH * 0.64 else "ahead"


def is_plain(thing: Seen, moment: GameFrame) -> bool:
    """Large and bright enough to be noticed."""
    if thing.area < MIN_AREA:
        return False
    box = moment.picture[
        thing.top : thing.top + thing.height, thing.left : thing.left + thing.width
    ]
    return float(box[::2, ::2].max(-1).mean()) > MIN_THING_LIGHT


def _things(moments: list[GameFrame], action: str) -> set[str]:
    """Things seen in most frames, with a side if they keep to it, and how many of a kind."""
    present: Counter[str] = Counter()
    sides: Counter[tuple[str, str]] = Counter()
    counts: dict[str, list[int]] = {}
    for moment in moments:
        large: dict[str, list[Seen]] = {}
        for thing in moment.seen:
            if thing.name in NOUNS and is_plain(thing, moment):
                large.setdefault(NOUNS[thing.name], []).append(thing)
        for noun, things in large.items():
            present[noun] += 1
            counts.setdefault(noun, []).append(len(things))
            sides.update({(noun, side_of(thing)) for thing in things})
    facts: set[str] = set()
    turning = action.startswith("turn")
    for noun, frames in present.items():
        if frames < len(moments) * (0.4 if turning else 0.65):
            continue
        facts.add(f"object:{noun}")
        facts |= {
            f"object:{noun}@{side}"
            for (what, side), n in sides.items()
            if what == noun and n >= 0.65 * len(moments)
        }
        several = int(np.median(counts[noun]))
        if several > 1 and noun not in PLURAL:
            facts.add(f"count:{noun}={'2' if several == 2 else 'many'}")
    return facts


def _scenery(moments: list[GameFrame]) -> set[str]:
    """Light, main colour and width of the place, where they are plain to see."""
    some = moments[::3]
    pictures = np.stack([moment.picture[: HEIGHT * 3 // 4 : 2, ::2] for moment in some])
    light = float(pictures.mean())
    room = float(np.median([np.median(moment.depth[40:80:2, ::2]) for moment in some])) * DEPTH_UNIT
    facts = set()
    if light < DARK or light > BRIGHT:
        facts.add("light:dark" if light < DARK else "light:bright")
    if room < NARROW or room > OPEN:
        facts.add("space:narrow" if room < NARROW else "space:open")
    colour = main_colour(pictures.reshape(-1, 3).mean(0))
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
