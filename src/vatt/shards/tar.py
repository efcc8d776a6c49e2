"""Tars made by others, read safely: plain members with their places, the rest refused.

The headers are read by `tarfile`, the file is walked here: `tarfile` ends in silence at a damaged
header, and lets extended headers change what a member is and how much memory it takes to read.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

STRANGE, DAMAGED, COMPRESSED = "strange member", "damaged tar", "compressed tar"

_BLOCK = tarfile.BLOCKSIZE
_MAX_NAME, _MAX_PART = 1024, 255  # characters with all folders; bytes of a folder or file
_MAX_HEADER_BYTES = 2**20  # of an extended header: a name or a few numbers
_PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE)
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
# What extended headers may say: nothing that changes where the content lies or what it is.
_HARMLESS = re.compile(
    r"path|[amc]time|[ug]id|[ug]name|comment|(?:SCHILY|LIBARCHIVE)\.(?!realsize).*"
)
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}


@dataclass(frozen=True, slots=True)
class Member:
    """A plain file in a tar: its name, and where its content lies."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A member that is not read, or the place where the tar is damaged."""

    name: str
    cause: str
    reason: str


def read_members(path: Path) -> Iterator[Member | Refused]:
    """All plain files of a tar in their order, and what is refused; after damage, nothing.

    A tar without its closing zeros counts as damaged, its members as good: it was cut, or its
    writer was interrupted.
    """
    offset = 0
    try:
        with path.open("rb") as file:
            if (packed := _COMPRESSED.get(file.read(2))) is not None:
                reason = f"{path}: compressed by {packed}, so that nothing in it can be read alone"
                yield Refused(path.name, COMPRESSED, f"{reason}; unpack it to a plain .tar")
                return
            for offset, header, said in _headers(file):
                if header.type != tarfile.DIRTYPE:
                    yield _judged(path, offset, header, said)
    except (tarfile.HeaderError, ValueError, OSError) as error:
        reason = f"{path}: damaged behind the member at byte {offset:,} ({error}); get it again"
        yield Refused(path.name, DAMAGED, reason)


def _headers(file: BinaryIO) -> Iterator[tuple[int, tarfile.TarInfo, Mapping[str, str]]]:
    """Each member: where its header is, the header, and what extended headers say of it."""
    length = file.seek(0, 2)
    offset, everywhere, said = 0, dict[str, str](), dict[str, str]()
    while (block := _read(file, offset, _BLOCK)).strip(b"\0"):
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if header.type in (*_PAX, *_LONG):
            if header.size > _MAX_HEADER_BYTES:
                raise ValueError(f"found an extended header of {header.size:,} bytes")
            text = _read(file, offset + _BLOCK, header.size)
            if header.type == tarfile.XGLTYPE:
                everywhere |= _pax_records(text)
            elif header.type in _PAX:
                said |= _pax_records(text)
            elif header.type == tarfile.GNUTYPE_LONGNAME:
                said["path"] = text.rstrip(b"\0").decode("utf-8", "surrogateescape")
        else:
            header.size = int(said.get("size", header.size))
            header.offset_data = offset + _BLOCK * (1 + _sparse_blocks(file, offset, block))
            if not 0 <= header.size <= length - header.offset_data:
                raise ValueError(
                    f"a member of {header.size:,} bytes from byte {header.offset_data:,} in a "
                    f"file of {length:,}"
                )
            yield offset, header, {**everywhere, **said}
            said, offset = {}, header.offset_data - _BLOCK
        offset += _BLOCK + -(-header.size // _BLOCK) * _BLOCK


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    content = file.read(size)
    if len(content) < size:
        raise ValueError(f"the file ends at byte {offset + len(content):,}")
    return content


def _sparse_blocks(file: BinaryIO, offset: int, block: bytes) -> int:
    """How many blocks more the map of a sparse file has."""
    count, more = 0, block[156:157] == tarfile.GNUTYPE_SPARSE and block[482]
    while more:
        count += 1
        more = _read(file, offset + _BLOCK * count, _BLOCK)[504]
    return count


def _pax_records(text: bytes) -> dict[str, str]:
    """The entries of an extended header: lines of `length key=value`."""
    records = {}
    while text:
        size = int(text.partition(b" ")[0])
        if not 0 < size <= len(text):
            raise ValueError("found an extended header whose lengths make no sense")
        line, text = text[:size], text[size:]
        name, _, value = line.partition(b" ")[2].removesuffix(b"\n").partition(b"=")
        records[name.decode(errors="replace")] = value.decode("utf-8", "surrogateescape")
    return records


def _judged(
    path: Path, offset: int, header: tarfile.TarInfo, said: Mapping[str, str]
) -> Member | Refused:
    """A member if it is a plain file with a harmless name; else why it is refused."""
    name = said.get("path", header.name)
    odd = sorted(word for word in said if not _HARMLESS.fullmatch(word))
    if header.type in _KINDS:
        what = _KINDS[header.type]
    elif header.type not in _PLAIN:
        what = f"of the unknown type {header.type!r}"
    elif odd:
        what = f"changed by extended headers ({', '.join(odd)[:200]})"
    elif name.startswith("/") or "\\" in name or ".." in PurePosixPath(name).parts:
        what = "named to leave its folder"
    elif not name.isprintable() or not 0 < len(name) <= _MAX_NAME:
        what = f"not named by up to {_MAX_NAME:,} printable characters"
    elif max(len(part.encode(errors="replace")) for part in name.split("/")) > _MAX_PART:
        what = f"named by more than {_MAX_PART} bytes, which no disk takes"
    else:
        return Member(name, header.offset_data, header.size)
    shown = name[:200].encode(errors="backslashreplace").decode()
    reason = f"{path}: member {shown!r} at byte {offset:,} is {what}; not read"
    return Refused(shown, STRANGE, reason)
