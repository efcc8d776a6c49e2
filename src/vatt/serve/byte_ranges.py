"""Range requests (RFC 9110 §14): what is asked for of a file, in time linear in the header."""

from __future__ import annotations

import re

MOST_RANGES = 20  # more is no player; the whole file is sent instead
_LONGEST = 1000  # characters of a header that is looked at
_RANGE = re.compile(r"(\d{1,18})-(\d{0,18})|-(\d{1,18})", flags=re.ASCII)


class RangeNotSatisfiableError(Exception):
    """All of the ranges lie beyond the end of the file."""


def asked_ranges(header: str, size: int) -> list[tuple[int, int]]:
    """First byte of each range and the one after its last, ascending, joined where they touch.

    Args:
        header: the value of `Range`.
        size: bytes of the file.

    Returns:
        Empty where the header is to be ignored and the whole file sent: another unit than bytes,
        no sense, too many ranges.

    Raises:
        RangeNotSatisfiableError: it makes sense, but the file has nothing of it.
    """
    unit, _, given = header[:_LONGEST].partition("=")
    parts = [part.strip(" \t") for part in given.split(",")]
    parts = [part for part in parts if part]  # RFC 9110 §5.6.1: empty elements are skipped
    found = [_RANGE.fullmatch(part) for part in parts]
    too_long = len(header) > _LONGEST or len(parts) > MOST_RANGES
    if unit.strip().lower() != "bytes" or not parts or too_long or not all(found):
        return []
    ranges: list[tuple[int, int]] = []
    for one in found:
        assert one is not None
        first, last, suffix = one.groups()
        if suffix is not None:
            start, end = max(size - int(suffix), 0), size
        else:
            start, end = int(first), min(int(last) + 1, size) if last else size
            if last and int(last) < int(first):
                return []
        if start < end:
            ranges.append((start, end))
    if not ranges:
        raise RangeNotSatisfiableError
    ranges.sort()
    joined = [ranges[0]]
    for start, end in ranges[1:]:
        if start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined
