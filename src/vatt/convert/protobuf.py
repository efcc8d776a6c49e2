"""Bytes of an untrusted file, read front to back: varints, protocol buffer fields, checksums."""

from __future__ import annotations

import struct

from vatt.errors import ConversionError


class Cursor:
    """Reads `data`; every error says where in the file.

    Args:
        data: a part of a file.
        where: the file, for errors.
        offset: of `data` in the file.
        at: where in `data` to begin.
    """

    def __init__(self, data: bytes, *, where: str, offset: int, at: int = 0) -> None:
        self.data = data
        self.where = where
        self.offset = offset
        self.at = at

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return self.at < len(self.data)

    def error(self, found: str) -> ConversionError:
        """What to raise when something is wrong here."""
        return ConversionError(
            f"{self.where}: offset {self.offset + self.at}: {found}; the file is damaged, copy it "
            "again"
        )

    def varint(self) -> int:
        """An unsigned integer below 2**64, seven bits a byte, the lowest first."""
        value = shift = 0
        for byte in self.data[self.at : self.at + 10]:
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> 64:
                    break
                return value
            shift += 7
        raise self.error("found no end of a number")

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        if size > len(self.data) - self.at:
            raise self.error(f"expected {size} more bytes, found {len(self.data) - self.at}")
        self.at += size
        return self.data[self.at - size : self.at]


class Message:
    """A protocol buffer message: values by field number, the last of each when there are several.

    Args:
        cursor: at its first byte; it is read to its end.

    Raises:
        ConversionError: the bytes are no such message.
    """

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._fields: dict[int, list[int | bytes]] = {}
        while cursor:
            tag = cursor.varint()
            number, kind = tag >> 3, tag & 7
            value: int | bytes
            if kind == 0:
                value = cursor.varint()
            elif kind == 1:
                value = int(struct.unpack("<Q", cursor.take(8))[0])
            elif kind == 2:
                value = cursor.take(cursor.varint())
            elif kind == 5:
                value = int(struct.unpack("<I", cursor.take(4))[0])
            else:
                raise cursor.error(f"found a field of unknown kind {kind}")
            self._fields.setdefault(number, []).append(value)

    def __contains__(self, number: int) -> bool:
        """Whether the field is there."""
        return number in self._fields

    def integer(self, number: int, *, default: int = 0) -> int:
        """The value of a field that holds a number."""
        value = self._fields.get(number, [default])[-1]
        if not isinstance(value, int):
            raise self._cursor.error(f"field {number} is not a number")
        return value

    def messages(self, number: int) -> list[Message]:
        """All values of a field that holds messages."""
        found = []
        for value in self._fields.get(number, []):
            if not isinstance(value, bytes):
                raise self._cursor.error(f"field {number} is not a message")
            inside = Cursor(value, where=self._cursor.where, offset=self._cursor.offset)
            found.append(Message(inside))
        return found


def masked(crc32c: int) -> int:
    """The form in which TensorFlow's files store a CRC-32C."""
    return (((crc32c >> 15) | (crc32c << 17)) + 0xA282EAD8) & 0xFFFFFFFF
