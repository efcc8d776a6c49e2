"""CRC-32C, the checksum of TensorFlow's files, at hundreds of megabytes a second in NumPy.

A CRC is linear: that of `a + b` is that of `a`, moved on by the length of `b`, xor that of `b`. So
a piece is cut into thousands of lanes of equal length, which go forward side by side, four bytes a
step; their remainders are then folded in pairs.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
_PIECE = 1 << 23  # bytes whose lanes are made at once: bounds the memory
_ONES = 0xFFFFFFFF


def crc32c(data: bytes | NDArray[np.uint8], before: int = 0) -> int:
    """The checksum of bytes, or of `data` after earlier bytes whose checksum was `before`."""
    rows = np.frombuffer(data, np.uint8)
    register = before ^ _ONES
    for start in range(0, len(rows), _PIECE):
        piece = rows[start : start + _PIECE]
        register = _moved_on(register, len(piece)) ^ _remainder(piece)
    return register ^ _ONES


def masked(checksum: int) -> int:
    """The form in which TensorFlow's files store a checksum."""
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & _ONES


def _remainder(data: NDArray[np.uint8]) -> int:
    """What `data` leaves in a register that starts at zero; zeros before it change nothing."""
    if not len(data):
        return 0
    doublings = max(4, (len(data) - 1).bit_length())
    lane_bits = max(2, min(doublings // 2, 8))  # of bytes per lane
    padded = np.zeros(1 << doublings, np.uint8)
    padded[len(padded) - len(data) :] = data
    words = padded.view("<u4").reshape(-1, 1 << (lane_bits - 2))
    low, high = _word_tables()
    state = np.zeros(len(words), "<u4")
    for column in np.ascontiguousarray(words.T):
        state ^= column
        halves = state.view("<u2")
        state = low.take(halves[::2]) ^ high.take(halves[1::2])
    while len(state) > 1:
        state = _apply(_move(lane_bits), state[::2]) ^ state[1::2]
        lane_bits += 1
    return int(state[0])


def _moved_on(register: int, num_bytes: int) -> int:
    """What a register holds after `num_bytes` zeros."""
    state = np.array([register], np.uint32)
    for bit in range(num_bytes.bit_length()):
        if num_bytes >> bit & 1:
            state = _apply(_move(bit), state)
    return int(state[0])


@cache
def _word_tables() -> tuple[Words, Words]:
    """What four zero bytes make of a register, for its lower and its upper 16 bits."""
    values = np.arange(1 << 16, dtype=np.uint32)
    return _apply(_move(2), values), _apply(_move(2), values << np.uint32(16))


@cache
def _move(bit: int) -> Words:
    """What 2**bit zero bytes make of each of a register's 32 bits."""
    if bit:
        half = _move(bit - 1)
        return _apply(half, half)
    state = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(8):
        state = (state >> np.uint32(1)) ^ np.where(state & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return state


def _apply(move: Words, state: Words) -> Words:
    moved = np.zeros_like(state)
    for bit in range(32):
        moved ^= (state >> np.uint32(bit) & np.uint32(1)) * move[bit]
    return moved
