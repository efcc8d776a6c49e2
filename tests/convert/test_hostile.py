"""Flipped bits, cuts and nonsense: an error or the right weights, never anything else."""

import random
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tests.convert.bundle_writer import table
from tests.parity.recordings import FOLDER
from vatt.convert.plan import plan, tensor
from vatt.convert.sstable import read_table
from vatt.convert.tensor_bundle import Bundle
from vatt.errors import ConversionError

INDEX, DATA = "ckpt-0.index", "ckpt-0.data-00000-of-00001"
FILES = {name: (FOLDER / "tx_fac_spectrogram" / name).read_bytes() for name in (INDEX, DATA)}
HEADS = {"video": 16, "audio": 12}
MOST_S = 120.0


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Cut at either end, with flipped bits, bytes replaced, a part left out, repeated or zeroed."""
    kind = rng.randrange(6)
    at = rng.randrange(len(content))
    end = min(len(content), at + rng.randrange(1, 64))
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[at:]
    if kind == 2:
        return content[:at] + content[end:]
    if kind == 3:
        return content[:end] + content[at:]
    if kind == 4:
        return content[:at] + bytes(end - at) + content[end:]
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 5, 100])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def weights(prefix: Path) -> dict[str, np.ndarray]:
    bundle = Bundle(prefix)
    found = plan(bundle, HEADS)
    return {name: tensor(bundle, sources) for name, sources in found.names.items()}


def refused_or_right(prefix: Path, right: dict[str, np.ndarray]) -> bool:
    """Whether reading ends in an error that says where; if not, the weights must be right."""
    try:
        found = weights(prefix)
    except ConversionError as error:
        says_where = "offset" in str(error)
    else:
        assert found.keys() == right.keys()
        assert all(np.array_equal(found[key], right[key]) for key in right)
        return False
    assert says_where
    return True


@pytest.mark.parametrize("cases", [100, pytest.param(300, marks=pytest.mark.slow)])
def test_damaged_files_never_crash_hang_fill_memory_or_give_wrong_weights(tmp_path, cases):
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    right = weights(tmp_path / "ckpt-0")
    size = sum(map(len, FILES.values()))
    refused = 0
    tracemalloc.start()
    start = time.monotonic()
    for case in range(cases):
        rng = random.Random(case)
        name = rng.choice([INDEX, INDEX, DATA])
        (tmp_path / name).write_bytes(damaged(FILES[name], rng))
        tracemalloc.reset_peak()
        refused += refused_or_right(tmp_path / "ckpt-0", right)
        assert tracemalloc.get_traced_memory()[1] < 10 * size + 2**25, case
        (tmp_path / name).write_bytes(FILES[name])
    tracemalloc.stop()
    assert refused > 0.7 * cases  # the others hit what is not read, such as the object graph
    assert time.monotonic() - start < MOST_S


@pytest.mark.parametrize("seed", range(40))
def test_nonsense_with_right_checksums_is_an_error_too(tmp_path, seed):
    """Blocks that pass their checksum and hold random keys and values."""
    rng = random.Random(seed)
    items = {rng.randbytes(rng.randrange(9)): rng.randbytes(rng.randrange(40)) for _ in range(30)}
    (tmp_path / "x.index").write_bytes(table(sorted(items.items())))
    with pytest.raises(ConversionError, match="offset"):
        weights(tmp_path / "x")


@pytest.mark.parametrize("seed", range(60))
def test_damaged_entries_with_right_checksums_give_no_wrong_shapes(tmp_path, seed):
    """One entry of a genuine index altered, and the checksums of its blocks made right again."""

    rng = random.Random(seed)
    path = tmp_path / INDEX
    path.write_bytes(FILES[INDEX])
    (tmp_path / DATA).write_bytes(FILES[DATA])
    items = [(key, value) for key, value, _ in read_table(path)]
    right = weights(tmp_path / "ckpt-0")
    number = rng.randrange(len(items))
    key, value = items[number]
    items[number] = (key, damaged(value, rng))
    path.write_bytes(table(items))
    refused_or_right(tmp_path / "ckpt-0", right)
