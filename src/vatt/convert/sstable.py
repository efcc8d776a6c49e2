"""LevelDB's sorted table, the format of a checkpoint's index file.

    data block … | metaindex block | index block | footer (48 bytes, ends with a magic number)

A block holds keys in ascending order, each as the length it shares with the one before and the
rest; then restart points, which only a search needs. After it come its compression (one byte) and
a checksum. The values of the index block say where the data blocks are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

from vatt.convert.protobuf import Cursor, masked
from vatt.errors import ConversionError

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
TRAILER_BYTES = 5
MOST_BYTES = 256 << 20  # of an index file; the largest official one has 0.4 MB


def read_table(path: Path) -> Iterator[tuple[bytes, bytes, int]]:
    """Keys, values, and the offset of each value's block, in the order of the keys.

    Raises:
        ConversionError: the file is no such table, or is damaged; says where.
    """
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ConversionError(
                f"{path}: offset 0: has {size} bytes, expected an index of at most {MOST_BYTES}"
            )
        data = path.read_bytes()
    except OSError as error:
        raise ConversionError(f"{path}: cannot be read: {error.strerror}") from error
    footer = Cursor(data[-FOOTER_BYTES:], where=str(path), offset=max(0, len(data) - FOOTER_BYTES))
    if len(data) < FOOTER_BYTES or struct.unpack("<Q", data[-8:])[0] != MAGIC:
        raise ConversionError(
            f"{path}: offset {max(0, len(data) - 8)}: expected the magic number that ends the "
            "index of a TensorFlow 2 checkpoint; the file is cut off, or is not one"
        )
    _block_handle(footer)  # of the metaindex, which is empty
    last = b""
    for _, handle, where in _entries(data, _block_handle(footer), path):
        cursor = Cursor(handle, where=str(path), offset=where)
        for key, value, offset in _entries(data, _block_handle(cursor), path):
            if last >= key and last:
                raise cursor.error(f"found the key {key!r} after {last!r}")
            last = key
            yield key, value, offset


def _block_handle(cursor: Cursor) -> tuple[int, int]:
    return cursor.varint(), cursor.varint()


def _entries(
    data: bytes, handle: tuple[int, int], path: Path
) -> Iterator[tuple[bytes, bytes, int]]:
    """Keys and values of a block, once its checksum is right, and the block's offset."""
    start, size = handle
    whole = Cursor(data, where=str(path), offset=0, at=start)
    if start > len(data) - FOOTER_BYTES:
        raise whole.error("expected a block, found the end of the file")
    block = whole.take(size)
    compression, checksum = struct.unpack("<BI", whole.take(TRAILER_BYTES))
    if masked(google_crc32c.value(data[start : start + size + 1])) != checksum:
        raise ConversionError(
            f"{path}: offset {start}: the checksum of a block of {size} bytes is wrong; the file "
            "is damaged, copy it again"
        )
    if compression:
        raise whole.error("found a compressed block, which TensorFlow does not write")
    (restarts,) = struct.unpack("<I", block[-4:]) if size >= 4 else (0,)
    entries_end = size - 4 - 4 * restarts
    if entries_end < 0:
        raise whole.error(f"found {restarts} restart points in a block of {size} bytes")

    cursor = Cursor(block[:entries_end], where=str(path), offset=start)
    key = b""
    while cursor:
        shared, rest, value_size = cursor.varint(), cursor.varint(), cursor.varint()
        if shared > len(key):
            raise cursor.error(f"a key shares {shared} bytes with one of {len(key)}")
        key = key[:shared] + cursor.take(rest)
        yield key, cursor.take(value_size), start
