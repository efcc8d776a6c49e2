from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.convert.bundle_writer import entry, field, table, write_bundle
from tests.parity.recordings import FOLDER
from vatt.convert.sstable import read_table
from vatt.convert.tensor_bundle import Bundle
from vatt.errors import ConversionError

RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shards", [1, 3])
def test_what_was_written_is_read(tmp_path, shards):
    tensors = {
        f"model/part/{number % 7}/w{number}": floats(number % 5 + 1, 3) for number in range(90)
    }
    tensors["scalar"] = floats()
    write_bundle(tmp_path / "ckpt-1", tensors, shards=shards)
    bundle = Bundle(tmp_path / "ckpt-1")
    assert bundle.num_shards == shards
    assert bundle.entries.keys() == tensors.keys()
    for name, values in tensors.items():
        assert bundle.entries[name].shape == values.shape
        assert np.array_equal(bundle.read(name), values)


def test_all_float_types_become_float32(tmp_path):
    values = floats(4, 5)
    upper_half = (values.view(np.uint32) >> 16).astype(np.uint16)
    tensors: dict[str, np.ndarray] = {
        "a": values.astype(np.float64),
        "b": values.astype(np.float16),
        "c": upper_half,
    }
    write_bundle(tmp_path / "ckpt", tensors, bfloat16=frozenset("c"))
    bundle = Bundle(tmp_path / "ckpt")
    assert np.array_equal(bundle.read("a"), values)
    assert np.array_equal(bundle.read("b"), values.astype(np.float16).astype(np.float32))
    assert np.array_equal(bundle.read("c"), (upper_half.astype(np.uint32) << 16).view(np.float32))


def test_integers_are_no_weights(tmp_path):
    write_bundle(tmp_path / "ckpt", {"iter": np.array(7)})
    with pytest.raises(ConversionError, match="iter: is of TensorFlow's type 9"):
        Bundle(tmp_path / "ckpt").read("iter")


@pytest.mark.parametrize("name", ["tx_fac", "ut_fac", "tx_fac_spectrogram"])
def test_every_tensor_of_a_genuine_checkpoint_is_read(name):
    bundle = Bundle(FOLDER / name / "ckpt-0")
    weights = [entry.name for entry in bundle.entries.values() if entry.dtype == 1]
    assert len(weights) == len(bundle.entries) - 2  # the object graph and a counter
    assert all(np.isfinite(bundle.read(weight)).all() for weight in weights)


def test_a_large_tensor_is_read_and_checked_to_its_end(tmp_path):
    values = np.arange(2_500_000, dtype=np.float32)
    write_bundle(tmp_path / "ckpt", {"w": values})
    assert np.array_equal(Bundle(tmp_path / "ckpt").read("w"), values)
    path = tmp_path / "ckpt.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[9_000_001] ^= 4
    path.write_bytes(content)
    with pytest.raises(ConversionError, match=r"data-00000-of-00001: w: offset 0: the checksum"):
        Bundle(tmp_path / "ckpt").read("w")


def write_entry(folder, **changes) -> None:
    """A checkpoint of one tensor of 16 bytes whose entry says something else."""
    facts: dict[str, Any] = {
        "dtype": 1,
        "shape": (4,),
        "shard": 0,
        "offset": 0,
        "size": 16,
        "checksum": 0,
    }
    items = [(b"", field(1, 1)), (b"w", entry(**(facts | changes)))]
    (folder / "ckpt.index").write_bytes(table(items))
    (folder / "ckpt.data-00000-of-00001").write_bytes(bytes(16))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size": 2**62, "shape": (2**60,)}, "expected 4611686018427387904 bytes, but the file"),
        ({"offset": 2**63}, "expected 16 bytes, but the file ends at 16"),
        ({"offset": 4}, "offset 4: expected 16 bytes, but the file ends at 16"),
        ({"shape": (5,)}, r"w: has 16 bytes, expected \[5\] × 4"),
        ({"shape": (2**63, 2)}, "found the shape"),
        ({"shape": (1,) * 20}, "found the shape"),
        ({"shard": 3}, "w: in shard 3 of 1"),
    ],
)
def test_absurd_entries_are_refused_before_anything_is_allocated(tmp_path, changes, says):
    write_entry(tmp_path, **changes)
    with pytest.raises(ConversionError, match=says):
        Bundle(tmp_path / "ckpt")


def test_wrong_files_are_told_from_damaged_ones(tmp_path, monkeypatch):
    write_bundle(tmp_path / "ckpt-5", {"w": floats(2)})
    with pytest.raises(ConversionError, match=r"ckpt-6\.index not found; expected PREFIX"):
        Bundle(tmp_path / "ckpt-6")
    with pytest.raises(ConversionError, match="give ckpt-5 alone"):
        Bundle(tmp_path / "ckpt-5.index")
    with pytest.raises(ConversionError, match="this is a folder; checkpoints in it: ckpt-5"):
        Bundle(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConversionError, match="this is a folder"):
        Bundle(Path())
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ConversionError, match="this is a single file"):
        Bundle(tmp_path / "model.pt")
    (tmp_path / "model.pt").rename(tmp_path / "model.index")
    with pytest.raises(ConversionError, match="expected the magic number"):
        Bundle(tmp_path / "model")
    (tmp_path / "ckpt-5.data-00000-of-00001").unlink()
    with pytest.raises(ConversionError, match="data-00000-of-00001: w: offset 0: cannot be read"):
        Bundle(tmp_path / "ckpt-5")


def test_a_block_with_a_wrong_checksum_is_refused(tmp_path):
    write_bundle(tmp_path / "ckpt", {"w": floats(2)})
    path = tmp_path / "ckpt.index"
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConversionError, match=r"index: offset 0: the checksum of a block"):
        Bundle(tmp_path / "ckpt")


def test_data_of_another_byte_order_is_refused(tmp_path):
    items = [(b"", field(1, 1) + field(2, 1))]
    (tmp_path / "ckpt.index").write_bytes(table(items))
    with pytest.raises(ConversionError, match="big-endian"):
        Bundle(tmp_path / "ckpt")


def test_keys_out_of_order_are_refused(tmp_path):
    (tmp_path / "ckpt.index").write_bytes(table([(b"b", b"1"), (b"a", b"2")]))
    with pytest.raises(ConversionError, match="found the key b'a' after b'b'"):
        list(read_table(tmp_path / "ckpt.index"))
