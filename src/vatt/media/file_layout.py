"""What containers say of their own bytes: broken chunks of AVI, whether a file is whole."""

from __future__ import annotations

import mmap
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from av.container import InputContainer
from av.packet import Packet

_CHUNK = re.compile(rb"\d\d(?:dc|db|wb|tx|pc)|ix\d\d|idx1|JUNK|LIST|RIFF")  # between others
_OTHER = re.compile(rb"[A-Z][A-Za-z0-9 ]{3}")  # names that programs give to their own chunks
_CHUNK_HEAD = 8  # bytes: name and size
_SEGMENT, _EBML_HEAD = b"\x18\x53\x80\x67", 4096  # what all of a Matroska file is in


class AviChunks:
    """The chunks of an AVI file, which has no times: they are counted, unless its index knows."""

    def __init__(self, container: InputContainer) -> None:
        self._broken = deque(_broken_chunks(container))
        self._due = {
            stream.index: {entry.pos: entry.timestamp for entry in stream.index_entries}
            for stream in (container.streams if self._broken else ())
        }
        self._scale = dict[int, int]()  # of the times of a track in its index; 0: not known

    def lost_before(self, packet: Packet[Any]) -> int:
        """Bytes of chunks that make no sense, up to a packet; it gets the time when it is due."""
        lost, track, time = 0, packet.stream.index, packet.dts
        while self._broken and self._broken[0][0] < (packet.pos or 0):
            first, end = self._broken.popleft()
            lost += end - first
        due = self._due.get(track, {}).get((packet.pos or 0) - _CHUNK_HEAD)
        if due is None or not time:
            return lost
        scale = self._scale.setdefault(track, due // time if due % time == 0 else 0)
        late = due // scale - time if scale else 0
        packet.dts = time + late
        packet.pts = packet.pts + late if packet.pts is not None else None
        return lost


def has_all_its_bytes(container: InputContainer) -> bool:
    """Whether a file says of itself how large it is, and is: only its duration may be wrong."""
    path, name = Path(container.name.removeprefix("file:")), container.format.name
    if not path.is_file() or name not in ("matroska,webm", "avi"):
        return False  # such files do not say
    end = 0
    with path.open("rb") as file:
        if name == "avi":
            while file.seek(end) == end and (head := file.read(_CHUNK_HEAD))[:4] == b"RIFF":
                end += _CHUNK_HEAD + int.from_bytes(head[4:], "little")
        else:
            before, found, head = file.read(_EBML_HEAD).partition(_SEGMENT)
            if found and head and head[0]:
                length = 9 - head[0].bit_length()  # in bytes, as EBML codes it
                size = int.from_bytes(head[:length], "big") & ((1 << 7 * length) - 1)
                end = len(before) + len(found) + length + size
    return 0 < end <= path.stat().st_size + 1


def _broken_chunks(container: InputContainer) -> Iterator[tuple[int, int]]:
    """Where the chunks of an AVI file make no sense: from byte to byte."""
    path = Path(container.name.removeprefix("file:"))
    if not path.is_file():
        return  # a file's content, or a part of a file
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = content.find(b"movi") + 4
        while at < len(content) - _CHUNK_HEAD:
            size = int.from_bytes(content[at + 4 : at + _CHUNK_HEAD], "little")
            if content[at : at + 4] == b"RIFF" or content[at + 8 : at + 12] in (b"movi", b"rec "):
                at += 12  # what they hold follows
            elif at + size <= len(content) and (
                _CHUNK.match(content, at) or _OTHER.match(content, at)
            ):
                at += _CHUNK_HEAD + size + size % 2
            elif found := _CHUNK.search(content, at + 1):
                yield at, found.start()
                at = found.start()
            else:
                return
