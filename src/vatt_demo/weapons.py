"""The eight weapons: how the game, its console and people call them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Weapon:
    """One weapon of the player."""

    name: str  # in labels and facts
    game_class: str  # for the console
    slot: int
    ammo: str  # what to give, "" if it needs none
    refill: int
    per_shot: int = 1  # ammunition that a shot takes
    wad: str = ""  # the only wad that has it, "" if both do


WEAPONS = (
    Weapon("chainsaw", "Chainsaw", 1, "", 0),
    Weapon("pistol", "Pistol", 2, "Clip", 40),
    Weapon("shotgun", "Shotgun", 3, "Shell", 16),
    Weapon("super_shotgun", "SuperShotgun", 3, "Shell", 24, per_shot=2, wad="freedoom2.wad"),
    Weapon("chaingun", "Chaingun", 4, "Clip", 80),
    Weapon("rocket_launcher", "RocketLauncher", 5, "RocketAmmo", 12),
    Weapon("plasma_rifle", "PlasmaRifle", 6, "Cell", 80),
    Weapon("bfg", "BFG9000", 7, "Cell", 160, per_shot=40),
)
SOUND_EVENTS = (*(weapon.name for weapon in WEAPONS), "pain", "none")


def weapons_of(wad: str) -> tuple[Weapon, ...]:
    """The weapons that a wad has."""
    return tuple(weapon for weapon in WEAPONS if weapon.wad in ("", wad))
