"""TensorFlow 2's checkpoint format, the tensor bundle, read without TensorFlow.

`PREFIX.index` is a table from variable names to type, shape, place and checksum of a tensor;
`PREFIX.data-00000-of-00001` (and more shards) hold the numbers. Only tensors that are asked for
are read. Nothing is allocated before its size was compared with that of the files.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from vatt.convert.protobuf import Cursor, Field, masked, read_message
from vatt.convert.sstable import read_table
from vatt.errors import ConversionError

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"  # of the name of every variable
CHUNK_BYTES = 8 << 20
MOST_DIMENSIONS = 8
BFLOAT16, INT64 = 14, 9
FLOATS = (1, 2, BFLOAT16, 19)
DTYPES: Mapping[int, str] = {
    1: "<f4",
    2: "<f8",
    3: "<i4",
    INT64: "<i8",
    10: "|b1",
    BFLOAT16: "<u2",
    19: "<f2",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """What the index says of one tensor.

    dtype: TensorFlow's number of the type; offset: in the data file; index_offset: of the block
    of the index that says all this.
    """

    name: str
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    sliced: bool
    index_offset: int


class Bundle:
    """An open checkpoint.

    Args:
        prefix: path without `.index`.

    Attributes:
        entries: what is in it, by name without `SUFFIX`.

    Raises:
        ConversionError: files are missing, damaged, too short, or something else.
    """

    def __init__(self, prefix: Path) -> None:
        prefix = prefix if prefix.name else prefix.absolute()  # "." has no name
        self.prefix = prefix
        self.index = prefix.with_name(prefix.name + ".index")
        _check_prefix(prefix, self.index)
        self.entries: dict[str, Entry] = {}
        self.num_shards = 0
        for key, value, offset in read_table(self.index):
            if not key:
                self.num_shards = _num_shards(Cursor(value, where=str(self.index), offset=offset))
            else:
                self._add(key, value, offset)
        if not self.num_shards:
            raise self._error("has no header", 0)
        self._check_places()

    def _add(self, key: bytes, value: bytes, offset: int) -> None:
        try:
            name = key.decode().removesuffix(SUFFIX)
        except UnicodeDecodeError as error:
            raise self._error(f"the name {key!r} is not text", offset) from error
        if name in self.entries:
            raise self._error(f"{name}: is there twice", offset)
        where = f"{self.index}: {name}"
        self.entries[name] = _entry(name, Cursor(value, where=where, offset=offset))

    def _check_places(self) -> None:
        """Every tensor lies within its shard, and is as long as its type and shape say."""
        sizes: dict[int, int] = {}
        for entry in self.entries.values():
            if entry.shard >= self.num_shards:
                raise self._error(
                    f"{entry.name}: in shard {entry.shard} of {self.num_shards}", entry.index_offset
                )
            if entry.shard not in sizes:
                sizes[entry.shard] = self._shard_size(entry)
            if entry.offset + entry.size > sizes[entry.shard]:
                raise ConversionError(
                    f"{self.shard_path(entry.shard)}: {entry.name}: offset {entry.offset}: "
                    f"expected {entry.size} bytes, but the file ends at {sizes[entry.shard]}; it "
                    "is cut off, copy it again"
                )
            width = np.dtype(DTYPES[entry.dtype]).itemsize if entry.dtype in DTYPES else 0
            if width and not entry.sliced and math.prod(entry.shape) * width != entry.size:
                raise self._error(
                    f"{entry.name}: has {entry.size} bytes, expected {list(entry.shape)} × {width}",
                    entry.index_offset,
                )

    def _shard_size(self, entry: Entry) -> int:
        path = self.shard_path(entry.shard)
        try:
            return path.stat().st_size
        except OSError as error:
            raise ConversionError(
                f"{path}: {entry.name}: offset {entry.offset}: cannot be read: {error.strerror}; "
                "the data file belongs beside the index"
            ) from error

    def shard_path(self, shard: int) -> Path:
        """The file that holds shard number `shard`."""
        return self.prefix.with_name(
            f"{self.prefix.name}.data-{shard:05d}-of-{self.num_shards:05d}"
        )

    def index_hash(self) -> str:
        """SHA-256 of the index, which holds the checksum of every tensor: of all the content."""
        return hashlib.sha256(self.index.read_bytes()).hexdigest()

    def read(self, name: str) -> NDArray[np.float32]:
        """One tensor of floating point numbers, as float32.

        Raises:
            ConversionError: it is not there, of another type, in slices, or damaged.
        """
        entry = self._entry_of(name, FLOATS, "floats")
        return _floats(self._read_bytes(entry), entry.dtype).reshape(entry.shape)

    def read_count(self, name: str) -> int:
        """One 64-bit integer, such as the number of steps made.

        Raises:
            ConversionError: it is not there, something else, or damaged.
        """
        entry = self._entry_of(name, (INT64,), "64-bit integers")
        if entry.shape:
            raise self._error(f"{name}: has {list(entry.shape)} numbers", entry.index_offset)
        return int(self._read_bytes(entry).view(DTYPES[INT64])[0])

    def _entry_of(self, name: str, dtypes: tuple[int, ...], what: str) -> Entry:
        if name not in self.entries:
            raise self._error(f"variable {name} is missing", 0)
        entry = self.entries[name]
        if entry.sliced or entry.dtype not in dtypes:
            found = "in slices" if entry.sliced else f"of TensorFlow's type {entry.dtype}"
            raise self._error(f"{name}: is {found}, expected {what}", entry.index_offset)
        return entry

    def _read_bytes(self, entry: Entry) -> NDArray[np.uint8]:
        """The bytes of a tensor, once their checksum is right."""
        path, where = self.shard_path(entry.shard), f"{entry.name}: offset {entry.offset}"
        raw = np.empty(entry.size, np.uint8)
        checksum = 0
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(entry.offset)
                for start in range(0, entry.size, CHUNK_BYTES):
                    chunk = raw[start : start + CHUNK_BYTES]
                    _fill(file, chunk)
                    checksum = google_crc32c.extend(checksum, chunk)
        except OSError as error:
            raise ConversionError(f"{path}: {where}: cannot be read: {error}") from error
        if masked(checksum) != entry.checksum:
            raise ConversionError(
                f"{path}: {where}: the checksum of its {entry.size} bytes is wrong; the file is "
                "damaged or of another checkpoint, copy both files again"
            )
        return raw

    def _error(self, found: str, offset: int) -> ConversionError:
        return ConversionError(f"{self.index}: offset {offset}: {found}; is it the right file?")


def _fill(file: Any, chunk: NDArray[np.uint8]) -> None:
    view, done = chunk.data, 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise OSError("the file ends early")
        done += count


def _floats(raw: NDArray[np.uint8], dtype: int) -> NDArray[np.float32]:
    values = raw.view(DTYPES[dtype])
    if dtype == BFLOAT16:
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.astype(np.float32, copy=False)


def _check_prefix(prefix: Path, index: Path) -> None:
    if index.is_file():
        return
    hint = "expected PREFIX of the files PREFIX.index and PREFIX.data-00000-of-00001"
    if prefix.suffix == ".index" or ".data-" in prefix.name:
        hint = f"give {prefix.name.removesuffix('.index').split('.data-')[0]} alone"
    elif prefix.is_dir():
        found = sorted(path.stem for path in prefix.glob("*.index"))
        hint = f"this is a folder; checkpoints in it: {', '.join(found) or 'none'}"
    elif prefix.is_file():
        hint = "this is a single file, not the prefix of a TensorFlow checkpoint's files"
    raise ConversionError(f"{prefix}: offset 0: {index.name} not found; {hint}")


def _num_shards(cursor: Cursor) -> int:
    header = read_message(cursor)
    num_shards, endianness = _integer(header, 1, cursor, default=1), _integer(header, 2, cursor)
    if endianness:
        raise cursor.error("found numbers in big-endian order, which are not read here")
    if not 1 <= num_shards <= 99_999:
        raise cursor.error(f"found {num_shards} shards")
    return num_shards


def _entry(name: str, cursor: Cursor) -> Entry:
    fields = read_message(cursor)
    shape = _bytes(fields, 2, cursor)
    return Entry(
        name=name,
        dtype=_integer(fields, 1, cursor),
        shape=_shape(Cursor(shape, where=cursor.where, offset=cursor.offset)),
        shard=_integer(fields, 3, cursor),
        offset=_integer(fields, 4, cursor),
        size=_integer(fields, 5, cursor),
        checksum=_integer(fields, 6, cursor),
        sliced=7 in fields,
        index_offset=cursor.offset,
    )


def _shape(cursor: Cursor) -> tuple[int, ...]:
    sizes = []
    for dimension in read_message(cursor).get(2, []):
        if not isinstance(dimension, bytes):
            raise cursor.error("found a shape of unknown form")
        inner = Cursor(dimension, where=cursor.where, offset=cursor.offset)
        sizes.append(_integer(read_message(inner), 1, inner))
    if len(sizes) > MOST_DIMENSIONS or any(size >> 62 for size in sizes):
        raise cursor.error(f"found the shape {sizes}")
    return tuple(sizes)


def _integer(
    fields: Mapping[int, list[Field]], number: int, cursor: Cursor, *, default: int = 0
) -> int:
    value = fields.get(number, [default])[-1]
    if not isinstance(value, int):
        raise cursor.error(f"field {number} is not a number")
    return value


def _bytes(fields: Mapping[int, list[Field]], number: int, cursor: Cursor) -> bytes:
    value = fields.get(number, [b""])[-1]
    if not isinstance(value, bytes):
        raise cursor.error(f"field {number} is not a message")
    return value
