"""The 68 Freedoom maps inside ViZDoom's wheel: which exist, their split, where one can stand.

Places come from the THINGS lump of each map: wherever the map's author put an item, a weapon or a
starting point, a player can stand.
"""

from __future__ import annotations

import importlib.util
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from vatt.errors import DataError, MissingExtraError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
WADS = ("freedoom1.wad", "freedoom2.wad")

# Kinds of THINGS (Doom's editor numbers) that lie where a player can walk: starting points,
# weapons, ammunition, keys, health and armour. Monsters and decor are left out: the first would
# stand in the way, next to the second one gets stuck; power-ups, because some tint the screen.
_STARTS = (1, 2, 3, 4, 11)
_WEAPONS = (82, 2001, 2002, 2003, 2004, 2005, 2006)
_AMMUNITION = (8, 17, 2007, 2008, 2010, 2046, 2047, 2048, 2049)
_KEYS = (5, 6, 13, 38, 39, 40)
_HEALTH = (
    83,
    2011,
    2012,
    2013,
    2014,
    2015,
    2018,
    2019,
    2022,
    2023,
    2024,
    2025,
    2026,
    2045,
)
_WALKABLE = frozenset((*_STARTS, *_WEAPONS, *_AMMUNITION, *_KEYS, *_HEALTH))


@dataclass(frozen=True, slots=True)
class GameMap:
    """One map: the wad file it lives in and its name there."""

    wad: str
    name: str

    @property
    def label(self) -> str:
        """A name that is unique over both wads, e.g. `freedoom1-E1M1`."""
        return f"{Path(self.wad).stem}-{self.name}"


def engine_folder() -> Path:
    """The installed vizdoom package, found without importing it.

    Raises:
        MissingExtraError: vizdoom is not installed.
    """
    spec = importlib.util.find_spec("vizdoom")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("vizdoom", "demo", "recording the demo's clips")
    return Path(next(iter(spec.submodule_search_locations)))


@cache
def _directory(wad: str) -> tuple[tuple[int, int, str], ...]:
    """(offset, length, name) of each lump of a wad file."""
    path = engine_folder() / wad
    if not path.is_file():
        raise DataError(f"{path}: Freedoom's maps are missing here; reinstall vizdoom >= 1.3")
    with path.open("rb") as file:
        signature, count, offset = struct.unpack("<4sii", file.read(12))
        if signature not in (b"IWAD", b"PWAD"):
            raise DataError(f"{path}: not a wad file (starts with {signature!r})")
        file.seek(offset)
        entries = struct.iter_unpack("<ii8s", file.read(16 * count))
        return tuple((at, size, name.rstrip(b"\0").decode()) for at, size, name in entries)


@cache
def all_maps() -> tuple[GameMap, ...]:
    """Every map of both wads, in the order of the files."""
    found = []
    for wad in WADS:
        names = [name for _, _, name in _directory(wad)]
        found += [GameMap(wad, names[i - 1]) for i, name in enumerate(names) if name == "THINGS"]
    return tuple(found)


@cache
def maps_of(split: Split) -> tuple[GameMap, ...]:
    """The maps of one split: every fourth is for test, every twelfth for validation.

    The test maps are none of those that an earlier trial of the demo was tuned on (`[3::4]`).
    """
    test, val = all_maps()[2::4], all_maps()[5::12]
    if split == "train":
        return tuple(one for one in all_maps() if one not in (*test, *val))
    return test if split == "test" else val


@cache
def places(game_map: GameMap) -> tuple[tuple[int, int], ...]:
    """Positions (x, y in map units) of one map where a player can stand."""
    lumps = _directory(game_map.wad)
    start = next(i for i, (_, _, name) in enumerate(lumps) if name == game_map.name)
    at, size, _ = next(lump for lump in lumps[start:] if lump[2] == "THINGS")
    with (engine_folder() / game_map.wad).open("rb") as file:
        file.seek(at)
        things = struct.iter_unpack("<hhHHH", file.read(size))
        return tuple(sorted({(x, y) for x, y, _, kind, _ in things if kind in _WALKABLE}))
