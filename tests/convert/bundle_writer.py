"""A small writer of TensorFlow's checkpoint format, for tests of its reader."""

import struct
from collections.abc import Mapping
from pathlib import Path

import google_crc32c
import numpy as np
import torch

from vatt.convert.names import Names
from vatt.convert.protobuf import masked
from vatt.convert.sstable import MAGIC
from vatt.convert.tensor_bundle import SUFFIX
from vatt.models.classifier import Classifier
from vatt.models.vatt import Vatt

NUMBERS = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "bool": 10, "float16": 19}


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def entry(
    *, dtype: int, shape: tuple[int, ...], shard: int, offset: int, size: int, checksum: int
) -> bytes:
    dims = b"".join(field(2, field(1, n)) for n in shape)
    numbers = field(1, dtype) + field(2, dims)
    numbers += (field(3, shard) if shard else b"") + (field(4, offset) if offset else b"")
    return numbers + field(5, size) + varint(6 << 3 | 5) + struct.pack("<I", checksum)


def block(items: list[tuple[bytes, bytes]]) -> bytes:
    """Entries whose keys share their beginnings, a restart point every 16."""
    out, restarts, last = bytearray(), [], b""
    for number, (key, value) in enumerate(items):
        shared = 0
        if number % 16:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        else:
            restarts.append(len(out))
        rest = key[shared:]
        out += varint(shared) + varint(len(rest)) + varint(len(value)) + rest + value
        last = key
    out += b"".join(struct.pack("<I", at) for at in restarts or [0])
    return bytes(out) + struct.pack("<I", len(restarts or [0]))


def table(items: list[tuple[bytes, bytes]], *, per_block: int = 20) -> bytes:
    out = bytearray()

    def put(content: bytes) -> bytes:
        handle = varint(len(out)) + varint(len(content))
        checksum = masked(google_crc32c.value(content + b"\0"))
        out.extend(content + b"\0" + struct.pack("<I", checksum))
        return handle

    parts = [items[at : at + per_block] for at in range(0, len(items), per_block)]
    index = [(part[-1][0], put(block(part))) for part in parts]
    handles = put(block([])) + put(block(index))
    return bytes(out) + handles.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def official_shapes(
    model: Vatt | Classifier, theirs: Names
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Of every official variable: our tensor that it is a part of, and its own shape."""
    signals = model.config.model if isinstance(model, Classifier) else model.config
    inward = {
        "voxel_to_patch": (*signals.video.patch, 3),
        "wave_to_patch": (signals.audio.patch, 1),
        "spectrum_to_patch": (*signals.audio.spectrogram.patch, 1),
    }
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    ours = model.state_dict()
    for name, sources in theirs.items():
        rows, *rest = ours[name].shape
        for source in sources:
            part = rows // len(sources)
            into = inward.get(source.split("/")[-2], tuple(rest))
            shapes[source] = name, (*into, part) if source.endswith("/kernel") else (part, *rest)
    return shapes


def official_values(
    model: Vatt | Classifier, theirs: Names, values: Mapping[str, torch.Tensor]
) -> dict[str, np.ndarray]:
    """Tensors by our names as the official variables that `vatt convert` makes them of."""
    found: dict[str, np.ndarray] = {}
    for source, (name, shape) in official_shapes(model, theirs).items():
        if name in values:
            sources = theirs[name]
            part = values[name].chunk(len(sources))[sources.index(source)].numpy()
            turned = part.T if source.endswith("/kernel") else part
            found[source] = np.ascontiguousarray(turned).reshape(shape)
    return found


def write_bundle(
    prefix: Path,
    tensors: Mapping[str, np.ndarray],
    *,
    shards: int = 1,
    bfloat16: frozenset[str] = frozenset(),
) -> None:
    """Write `prefix`.index and its data files; `bfloat16`: names of uint16 arrays that are that."""
    data = [bytearray() for _ in range(shards)]
    items = [(b"", field(1, shards) + field(3, field(1, 1)))]
    for number, name in enumerate(sorted(tensors)):
        values = tensors[name]
        raw, shard = values.tobytes(), number % shards
        dtype = 14 if name in bfloat16 else NUMBERS[str(values.dtype)]
        value = entry(
            dtype=dtype,
            shape=values.shape,
            shard=shard,
            offset=len(data[shard]),
            size=len(raw),
            checksum=masked(google_crc32c.value(raw)),
        )
        items.append(((name + SUFFIX).encode(), value))
        data[shard] += raw
    prefix.with_name(prefix.name + ".index").write_bytes(table(items))
    for shard, content in enumerate(data):
        name = f"{prefix.name}.data-{shard:05d}-of-{shards:05d}"
        prefix.with_name(name).write_bytes(content)
