"""Decoding on past damage: what is healthy is decoded, what is not is left out and noted as a gap.

A frame counts as damaged when its packet is incomplete, cannot be decoded or is decoded with
errors, and with it all frames up to the next key frame, which may be made from it. So do frames
that are missing, as far as a container lets one notice it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream

from vatt.media.container import past_errors
from vatt.media.file_layout import AviChunks

CUT_OFF = "cut off"  # the cause of a gap at the end of a file that ends too early
# Where time jumps in broadcasts (TS, PS) and no other track goes on, packets were lost. In other
# formats a frame may stay for long; there bytes that belong to no packet say the same.
STEADY = ("mpegts", "mpeg")
_HOLES = {"matroska,webm": 64, "flv": 32, "avi": 0}  # more bytes than lie between packets
_LEAST = {"flv": 15}  # fewer than lie between them: reading began anew inside of a packet
_STRAY_S = 1.0  # a packet that is later than the next one by more has a damaged time
_JUMP_S, _JUMP_AT_HOLE_S = 0.5, 0.03
_UNTIMED = "avi"  # its times are counted, they do not jump
_READ_TO_ITS_END = 0.9  # of a file's bytes; an index may follow
_BEFORE_S, _AFTER_S = 0.25, 0.05  # B-frames are shown before what they are made from; overlaps


@dataclass(frozen=True, slots=True, order=True)
class Gap:
    """A stretch in which nothing is to be trusted, in seconds, and why."""

    start_s: float
    end_s: float
    cause: str


@dataclass(slots=True)
class Damage:
    """What is found to be damaged in a file while its streams are decoded.

    spans: damaged stretches in container time, in any order.
    end_s: where the last packet of any stream ends, in container time.
    read_bytes: where it ends in the file.
    hole_bytes: before it, that belong to no packet.
    error: the first, of what could not be decoded.
    """

    spans: list[Gap] = field(default_factory=list)
    end_s: float = 0.0
    read_bytes: int = 0
    hole_bytes: int = 0
    error: Exception | None = None

    def is_read_to_its_end(self, size: int) -> bool:
        """Whether the packets that were found fill a file of `size` bytes, all but an index."""
        return self.read_bytes - self.hole_bytes >= _READ_TO_ITS_END * size

    def gaps(self, zero_s: float) -> list[Gap]:
        """The spans in order, joined where they overlap, on the clock that starts at `zero_s`."""
        gaps: list[Gap] = []
        for span in sorted(set(self.spans)):
            gap = Gap(max(0.0, span.start_s - zero_s), span.end_s - zero_s, span.cause)
            if gap.end_s <= 0:
                continue  # before the first frame
            if gaps and gap.start_s <= gaps[-1].end_s:
                last = gaps.pop()
                known = gap.cause in last.cause
                cause = last.cause if known else f"{last.cause}, {gap.cause}"
                gap = Gap(last.start_s, max(last.end_s, gap.end_s), cause)
            gaps.append(gap)
        return gaps


def decode(
    container: InputContainer, stream: Stream, damage: Damage | None = None
) -> Iterator[Any]:
    """The decoded frames of a stream in the order shown.

    Args:
        container: read from where it stands.
        stream: of video or audio.
        damage: gets what is damaged, which is then left out; None: damage is an error.

    Raises:
        av.FFmpegError: a packet cannot be read or decoded, when there is no `damage` to note it in.
    """
    if damage is not None:
        yield from _Decoder(container, stream, damage).frames()
        return
    for packet in container.demux(stream):
        try:
            decoded = packet.decode()
        except av.InvalidDataError as error:
            if not packet.is_corrupt:
                raise
            # What of the file's last packet is there may be decoded, or be no valid data.
            incomplete = "a packet is incomplete; it is cut off or damaged: get it again"
            raise av.InvalidDataError(
                error.errno or 0, incomplete, error.filename, error.log
            ) from error
        yield from decoded


class _Decoder:
    """Decodes one stream; knows where the damage at hand begins and ends."""

    def __init__(self, container: InputContainer, stream: Stream, damage: Damage) -> None:
        assert stream.time_base is not None
        self._container, self._stream, self._damage = container, stream, damage
        self._tick_s = float(stream.time_base)
        self._is_video = stream.type == "video"
        rate = getattr(stream, "average_rate", None) or getattr(stream, "guessed_rate", None)
        self._usual_s = 1 / float(rate or 25) if self._is_video else 0.0
        # Seconds of the packets of each other stream, and what they were at the last few packets.
        self._others_s = defaultdict[int, float](float)
        self._recent = deque[tuple[float, dict[int, float]]](maxlen=4)
        # When the last packet of the stream begins and ends, by the order of decoding.
        self._before = self._now = 0.0
        self._first: float | None = None  # of the damage at hand; None: all is healthy
        self._last, self._causes = -inf, dict[str, None]()

    def frames(self) -> Iterator[Any]:
        """The healthy ones."""
        name = self._container.format.name
        begun, untimed, steady = False, name == _UNTIMED, name in STEADY
        least_s = max(_JUMP_S, 4 * self._usual_s) if steady else _JUMP_AT_HOLE_S
        least_s = max(least_s, self._usual_s / 2)
        for packet, hole, start_s in self._in_order():
            if start_s is not None:
                jump_s = start_s - self._now
                jumps = jump_s > least_s
                if steady and self._others_go_on(start_s, jump_s):
                    jumps = False
                if begun and hole and (untimed or jumps):
                    self._mark(self._now if steady else self._before, "missing")
                    shown_s = start_s if packet.pts is None else packet.pts * self._tick_s
                    self._last = max(self._last, shown_s - self._tick_s)
                if packet.is_corrupt:
                    self._mark(start_s, "incomplete")
                self._before = start_s  # bytes that are gone may be of this one, too
                self._now = start_s + ((packet.duration or 0) * self._tick_s or self._usual_s)
                begun = True
            try:
                decoded = packet.decode()
            except (av.FFmpegError, ValueError) as error:
                if isinstance(error, av.EOFError):
                    continue
                if isinstance(error, MemoryError):
                    raise
                self._damage.error = self._damage.error or error
                self._mark(self._now - self._usual_s, "undecodable")
                continue
            yield from filter(self._is_healthy, decoded)
        self._close(max(self._last + self._usual_s, self._now))

    def _others_go_on(self, start_s: float, jump_s: float) -> bool:
        """Whether other tracks have packets where this one has none: then it is a still, a pause.

        A lone track of a TS file says itself, by its counters, when packets of it are lost.
        """
        # A frame of a TS is known to be complete only when later ones have begun.
        since_s, before = self._recent[0] if self._recent else (start_s, self._others_s)
        self._recent.append((start_s, dict(self._others_s)))
        if not self._others_s:
            return self._container.format.name == "mpegts"
        read_s = max(now - before.get(track, 0.0) for track, now in self._others_s.items())
        return read_s > start_s - since_s - jump_s / 2

    def _in_order(self) -> Iterator[tuple[Packet[Any], int, float | None]]:
        """The packets of the stream, but for those with a damaged time, each with its time."""
        held: tuple[Packet[Any], int, float | None] | None = None
        before_s = -inf
        for packet, hole in self._packets():
            time = packet.dts if packet.dts is not None else packet.pts
            time_s = time * self._tick_s if packet.size and time is not None else None
            if held is not None:
                held_s = held[2]
                if held_s is None or time_s is None or not before_s <= time_s < held_s - _STRAY_S:
                    yield held
                    before_s = before_s if held_s is None else held_s
                else:
                    self._mark(self._now, "incomplete")
                    hole += held[1]
            held = packet, hole, time_s
        if held is not None:
            yield held

    def _packets(self) -> Iterator[tuple[Packet[Any], int]]:
        """Those of the stream, each with the bytes before it that may be lost packets."""
        damage, name, at, holes = self._damage, self._container.format.name, -1, 0
        hole = steady = int(name in STEADY)
        ticks_s = {one.index: float(one.time_base or 0) for one in self._container.streams}
        least, fewest = _HOLES.get(name, inf), _LEAST.get(name, -inf)
        chunks = AviChunks(self._container) if name == _UNTIMED else None
        for packet in past_errors(self._container):
            if packet is None:
                hole += 1
                continue
            size, pos, track = packet.size, packet.pos, packet.stream.index
            if size and pos is not None:
                lost = pos - at if at >= 0 else 0
                lost = chunks.lost_before(packet) if chunks is not None else lost
                if lost > least:
                    hole += lost
                    holes += lost
                    damage.hole_bytes = max(damage.hole_bytes, holes)
                elif at >= 0 and lost < fewest:
                    hole += 1
                at = max(pos + size, at)
                damage.read_bytes = max(damage.read_bytes, at)
            elif at >= 0:
                at += size  # one of several in a block
            if size:
                self._note_end(packet, track, ticks_s.get(track) or float(packet.time_base))
            if track == self._stream.index:
                yield packet, hole
                hole = steady

    def _note_end(self, packet: Packet[Any], track: int, tick_s: float) -> None:
        lasts_s = (packet.duration or 0) * tick_s
        if packet.pts is not None:
            self._damage.end_s = max(self._damage.end_s, packet.pts * tick_s + lasts_s)
        if track != self._stream.index:
            self._others_s[track] += lasts_s

    def _is_healthy(self, frame: Any) -> bool:
        corrupt = self._is_video and frame.is_corrupt
        if self._first is None and not corrupt:
            return True
        timestamp = frame.pts if frame.pts is not None else frame.dts
        start_s = timestamp * self._tick_s if timestamp is not None else self._now
        if corrupt:
            self._mark(start_s, "decoded with errors")
        if self._first is None or start_s < self._first:
            return True
        if start_s > self._last and (frame.key_frame or not self._is_video):
            self._close(start_s)
            return True
        return False

    def _mark(self, time_s: float, cause: str) -> None:
        """From this time on frames are damaged, until the next key frame after it."""
        self._first = time_s if self._first is None else min(self._first, time_s)
        self._last = max(self._last, time_s)
        self._causes[f"{self._stream.type} {cause}"] = None

    def _close(self, end_s: float) -> None:
        if self._first is not None:
            reordered = getattr(self._stream.codec_context, "has_b_frames", False)
            start_s = self._first - (_BEFORE_S if reordered else 0.0)
            end_s += 0.0 if self._is_video else _AFTER_S
            self._damage.spans.append(Gap(start_s, end_s, ", ".join(self._causes)))
            self._first, self._last = None, -inf
            self._causes.clear()


def what_is_damaged(gaps: Sequence[Gap], end_s: float) -> tuple[float, str]:
    """The share of a file that is damaged, and in words: how many seconds of it, and why.

    What a file that is cut off lacks does not count: what is there may be all healthy.

    Args:
        gaps: of the file.
        end_s: when the last healthy frame leaves the screen.
    """
    damaged = [gap for gap in gaps if gap.cause != CUT_OFF]
    whole_s, seconds = max([end_s, *(gap.end_s for gap in damaged)]), lost_s(damaged)
    share, causes = seconds / whole_s if whole_s else 0.0, dict.fromkeys(g.cause for g in damaged)
    return share, f"{seconds:.1f} of {whole_s:.1f} s: {'; '.join(causes)}"


def lost_s(gaps: Sequence[Gap]) -> float:
    """Seconds of all gaps."""
    return sum(gap.end_s - gap.start_s for gap in gaps)
