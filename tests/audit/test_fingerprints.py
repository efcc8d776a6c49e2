from __future__ import annotations

import numpy as np
import pytest

from vatt.audit import fingerprints
from vatt.audit.fingerprints import Fingerprint, Likeness, alike, groups


def random_prints(count: int, seed: int = 0) -> list[Fingerprint | None]:
    bits = np.random.default_rng(seed).integers(2**64, size=(count, 5), dtype=np.uint64)
    return [Fingerprint(frames=tuple(row), audio=None) for row in bits.tolist()]


def flipped(found: Fingerprint, count: int, rng: np.random.Generator) -> Fingerprint:
    """With so many bits changed in each picture."""
    changes = [
        sum(1 << int(bit) for bit in rng.choice(64, count, replace=False)) for _ in found.frames
    ]
    pictures = zip(found.frames, changes, strict=True)
    return Fingerprint(
        frames=tuple(one ^ change for one, change in pictures if one is not None),
        audio=found.audio,
    )


def test_nearly_all_copies_are_found_among_thousands_and_nothing_else() -> None:
    """Four bits of 64 are what encoding at a far lower quality changes."""
    rng = np.random.default_rng(1)
    prints = random_prints(3000)
    copies = [flipped(found, 4, rng) for found in prints[:200] if found is not None]
    pairs = alike([*prints, *copies], Likeness())
    right = {(place, 3000 + place) for place in range(200)}
    assert {(one, two) for one, two, _ in pairs} <= right
    assert len(pairs) >= 190  # 95 %: each third of a picture stays whole with probability 0.25
    assert {bits for *_, bits in pairs} == {4.0}


def test_the_work_grows_with_the_number_of_videos_not_of_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = 0

    def counted(*args):
        nonlocal compared
        for ones, twos in candidates(*args):
            compared += len(ones)
            yield ones, twos

    candidates = fingerprints._candidates
    monkeypatch.setattr(fingerprints, "_candidates", counted)
    alike(random_prints(16_000), Likeness())
    # By chance: 15 pieces of 21 or 22 bits, each shared by a pair with probability 2^-21 at most.
    assert compared < 15 * 16_000**2 / 2 / 2**21 * 1.5


def test_thousands_with_the_same_title_are_compared_with_neighbours_only() -> None:
    prints = random_prints(2000)
    title = [Fingerprint(frames=(7, *found.frames[1:]), audio=None) for found in prints if found]
    assert alike(title, Likeness()) == []


def test_flat_pictures_and_missing_videos_are_like_nothing() -> None:
    black = Fingerprint(frames=(None,) * 5, audio=1)
    assert alike([black, black, None, None], Likeness()) == []
    assert alike([None], Likeness()) == alike([], Likeness()) == []


def test_groups_are_what_is_connected_the_largest_first() -> None:
    assert groups([(1, 2), (7, 9), (2, 5)]) == [[1, 2, 5], [7, 9]]
    assert groups([]) == []
