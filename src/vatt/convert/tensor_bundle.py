"""TensorFlow 2's checkpoint format, the tensor bundle, read without TensorFlow.

`PREFIX.index` is a table from variable names to type, shape, place and checksum of a tensor;
`PREFIX.data-00000-of-00001` (and more shards) hold the numbers. Only tensors that are asked for
are read. Nothing is allocated before its size was compared with that of the files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from vatt.convert.protobuf import Cursor, Message, masked
from vatt.convert.sstable import read_table
from vatt.errors import ConversionError
from vatt.storage import sha256_of

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"  # of the name of every variable
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
class TensorEntry:
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
        if not self.index.is_file():
            raise ConversionError(
                f"{prefix}: offset 0: {self.index.name} not found; {_expected(prefix)}"
            )
        self.entries: dict[str, TensorEntry] = {}
        self.num_shards = 0
        for key, value, offset in read_table(self.index):
            if not key:
                self.num_shards = _num_shards(Cursor(value, where=str(self.index), offset=offset))
                continue
            try:
                name = key.decode().removesuffix(SUFFIX)
            except UnicodeDecodeError as error:
                raise self._error(f"the name {key!r} is not text", offset) from error
            if name in self.entries:
                raise self._error(f"{name}: is there twice", offset)
            cursor = Cursor(value, where=f"{self.index}: {name}", offset=offset)
            self.entries[name] = _tensor_entry(name, cursor)
        if not self.num_shards:
            raise self._error("has no header", 0)
        self._check_places()

    def _check_places(self) -> None:
        """Every tensor lies within its shard, and is as long as its type and shape say."""
        sizes: dict[int, int] = {}
        for entry in self.entries.values():
            if entry.shard >= self.num_shards:
                raise self._error(
                    f"{entry.name}: in shard {entry.shard} of {self.num_shards}", entry.index_offset
                )
            path = self.shard_path(entry.shard)
            where = f"{path}: {entry.name}: offset {entry.offset}"
            if entry.shard not in sizes:
                try:
                    sizes[entry.shard] = path.stat().st_size
                except OSError as error:
                    raise ConversionError(
                        f"{where}: cannot be read: {error.strerror}; the data file belongs beside "
                        "the index"
                    ) from error
            if entry.offset + entry.size > sizes[entry.shard]:
                raise ConversionError(
                    f"{where}: expected {entry.size} bytes, but the file ends at "
                    f"{sizes[entry.shard]}; it is cut off, copy it again"
                )
            width = np.dtype(DTYPES[entry.dtype]).itemsize if entry.dtype in DTYPES else 0
            if width and not entry.sliced and math.prod(entry.shape) * width != entry.size:
                raise self._error(
                    f"{entry.name}: has {entry.size} bytes, expected {list(entry.shape)} × {width}",
                    entry.index_offset,
                )

    def shard_path(self, shard: int) -> Path:
        """The file that holds shard number `shard`."""
        return self.prefix.with_name(
            f"{self.prefix.name}.data-{shard:05d}-of-{self.num_shards:05d}"
        )

    def index_hash(self) -> str:
        """SHA-256 of the index; it holds the checksum of every tensor, so of all the content."""
        return sha256_of(self.index)

    def read(self, name: str) -> NDArray[np.float32]:
        """One tensor of floating point numbers, as float32.

        Raises:
            ConversionError: it is not there, of another type, in slices, or damaged.
        """
        entry, raw = self._read_bytes(name, FLOATS, "floats")
        values = raw.view(DTYPES[entry.dtype])
        if entry.dtype == BFLOAT16:  # the upper half of a float32
            values = (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return values.astype(np.float32, copy=False).reshape(entry.shape)

    def read_count(self, name: str) -> int:
        """One 64-bit integer, such as the number of steps made.

        Raises:
            ConversionError: it is not there, something else, or damaged.
        """
        entry, raw = self._read_bytes(name, (INT64,), "64-bit integers")
        if entry.shape:
            raise self._error(f"{name}: has {list(entry.shape)} numbers", entry.index_offset)
        return int(raw.view(DTYPES[INT64])[0])

    def _read_bytes(
        self, name: str, dtypes: tuple[int, ...], expected: str
    ) -> tuple[TensorEntry, NDArray[np.uint8]]:
        """The entry and the bytes of a tensor of one of `dtypes`, once its checksum is right."""
        if name not in self.entries:
            raise self._error(f"variable {name} is missing", 0)
        entry = self.entries[name]
        if entry.sliced or entry.dtype not in dtypes:
            found = "in slices" if entry.sliced else f"of TensorFlow's type {entry.dtype}"
            raise self._error(f"{name}: is {found}, expected {expected}", entry.index_offset)
        path = self.shard_path(entry.shard)
        where = f"{path}: {name}: offset {entry.offset}"
        try:
            raw = np.fromfile(path, np.uint8, entry.size, offset=entry.offset)
        except OSError as error:
            raise ConversionError(f"{where}: cannot be read: {error}") from error
        if len(raw) < entry.size:
            raise ConversionError(f"{where}: cannot be read: the file ends early")
        if masked(google_crc32c.value(raw)) != entry.checksum:
            raise ConversionError(
                f"{where}: the checksum of its {entry.size} bytes is wrong; the file is damaged or "
                "of another checkpoint, copy both files again"
            )
        return entry, raw

    def _error(self, found: str, offset: int) -> ConversionError:
        return ConversionError(f"{self.index}: offset {offset}: {found}; is it the right file?")


def _expected(prefix: Path) -> str:
    """What to give instead of a prefix that has no index."""
    if prefix.suffix == ".index" or ".data-" in prefix.name:
        return f"give {prefix.name.removesuffix('.index').split('.data-')[0]} alone"
    if prefix.is_dir():
        found = sorted(path.stem for path in prefix.glob("*.index"))
        return f"this is a folder; checkpoints in it: {', '.join(found) or 'none'}"
    if prefix.is_file():
        return "this is a single file, not the prefix of a TensorFlow checkpoint's files"
    return "expected PREFIX of the files PREFIX.index and PREFIX.data-00000-of-00001"


def _num_shards(cursor: Cursor) -> int:
    """What the header of the index says: a message `BundleHeaderProto`."""
    header = Message(cursor)
    num_shards = header.integer(1, default=1)
    if header.integer(2):
        raise cursor.error("found numbers in big-endian order, which are not read here")
    if not 1 <= num_shards <= 99_999:
        raise cursor.error(f"found {num_shards} shards")
    return num_shards


def _tensor_entry(name: str, cursor: Cursor) -> TensorEntry:
    """What the index says of a tensor: a message `BundleEntryProto`."""
    fields = Message(cursor)
    sizes = [
        dimension.integer(1) for shape in fields.messages(2)[-1:] for dimension in shape.messages(2)
    ]
    if len(sizes) > MOST_DIMENSIONS or any(size >> 62 for size in sizes):
        raise cursor.error(f"found the shape {sizes}")
    return TensorEntry(
        name=name,
        dtype=fields.integer(1),
        shape=tuple(sizes),
        shard=fields.integer(3),
        offset=fields.integer(4),
        size=fields.integer(5),
        checksum=fields.integer(6),
        sliced=7 in fields,
        index_offset=cursor.offset,
    )
