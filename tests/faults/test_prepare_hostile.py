"""Hostile files cost themselves and nothing else, and each of them is counted."""

from __future__ import annotations

import json
import random
import re
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.media.clips import write
from tests.media.test_sync import FILES
from vatt.shards.read import ShardFolder
from vatt.tasks.prepare import PrepareConfig, PrepareResult, run

NAMES = ["plain.mp4", "opus.mkv", "vp9.webm", "pcm.avi", "b-frames.ts", "44100.flv", "mpeg2.mpg"]
ABSURD = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
HEADER = 4096  # bytes at the start that say what is in a file


@contextmanager
def largest_worker() -> Iterator[list[float]]:
    """The most memory, in megabytes, that each look found a worker to have had so far."""
    seen: list[float] = [0.0]
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.02):
            for children in Path("/proc/self/task").glob("*/children"):
                for server in children.read_text().split():
                    seen.extend(peaks(server))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


def peaks(server: str) -> Iterator[float]:
    """Of the processes that a fork server has started."""
    with suppress(OSError):
        for child in Path(f"/proc/{server}/task/{server}/children").read_text().split():
            with suppress(OSError):
                status = Path(f"/proc/{child}/status").read_text()
                if found := re.search(r"VmHWM:\s+(\d+) kB", status):
                    yield int(found[1]) / 1e3


def flipped(content: bytearray, chance: random.Random) -> bytes:
    for _ in range(chance.choice([1, 5, 50])):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(content)


def cut(content: bytearray, chance: random.Random) -> bytes:
    start = chance.randrange(len(content)) if chance.random() < 0.3 else 0
    return bytes(content[start : chance.randrange(start, len(content)) + 1])


def swapped(content: bytearray, chance: random.Random) -> bytes:
    """Two pieces change places; the boxes of an MP4 file do when it is one."""
    if content[4:8] == b"ftyp":
        boxes, at = [], 0
        while at + 8 <= len(content) and (size := struct.unpack_from(">I", content, at)[0]) >= 8:
            boxes.append(bytes(content[at : at + size]))
            at += size
        chance.shuffle(boxes)
        return b"".join(boxes) + bytes(content[at:])
    first, second, third = sorted(chance.sample(range(len(content)), 3))
    return bytes(content[:first] + content[second:third] + content[first:second] + content[third:])


def absurd(content: bytearray, chance: random.Random) -> bytes:
    """Sizes, counts, rates and times in the header that no file has."""
    for _ in range(chance.choice([1, 3, 10])):
        at = chance.randrange(min(HEADER, len(content) - 8))
        struct.pack_into(chance.choice([">I", "<I"]), content, at, chance.choice(ABSURD))
    return bytes(content)


def prepare_mutants(folder: Path, *, mutants: int, seed: int) -> PrepareResult:
    """Write mutants of all containers beside one good video, and prepare them."""
    chance = random.Random(seed)
    whole = {name: write(folder / name, FILES[name]).read_bytes() for name in NAMES}
    library = folder / "library"
    library.mkdir()
    for number in range(mutants):
        name = NAMES[number % len(NAMES)]
        change = (flipped, cut, swapped, absurd)[number // len(NAMES) % 4]
        content = change(bytearray(whole[name]), chance)
        (library / f"{number:04d} {change.__name__}{Path(name).suffix}").write_bytes(content)
    (library / "!good.mp4").write_bytes(whole["plain.mp4"])
    settings = PrepareConfig(
        src=(library,),
        out=folder / "out",
        workers=2,
        item_minutes=0.5,
        worker_gigabytes=1,
        max_bad_fraction=1,
    )
    result = run(settings)
    assert isinstance(result, PrepareResult)
    assert result.sources == mutants + 1
    assert result.videos + result.duplicates + sum(result.skipped.values()) == mutants + 1
    lines = list(map(json.loads, (folder / "out/failures.jsonl").read_text().splitlines()))
    assert len({line["source"] for line in lines}) == len(lines) == mutants + 1 - result.videos
    counted = Counter(line["cause"] for line in lines)
    assert counted == Counter(result.skipped) + Counter(duplicate=result.duplicates)
    assert all(line["source"] in line["reason"] for line in lines)
    data = ShardFolder.open(folder / "out")
    assert any(data.read_record(row).source == "!good.mp4" for row in range(len(data)))
    return result


def test_damaged_files_are_stored_or_counted(tmp_path: Path) -> None:
    result = prepare_mutants(tmp_path, mutants=40, seed=0)
    assert result.videos >= 8  # the mutants are not all beyond recognition …
    assert sum(result.skipped.values()) >= 8  # … nor all harmless


@pytest.mark.slow
def test_many_damaged_files_do_not_hang_or_fill_the_memory(tmp_path: Path) -> None:
    with largest_worker() as megabytes:
        result = prepare_mutants(tmp_path, mutants=560, seed=1)
    assert result.videos >= 100
    assert sum(result.skipped.values()) >= 100
    assert "took too long" not in result.skipped  # 30 s for 3 s of video of 64 x 48
    assert 20 < max(megabytes) < 600  # of the 1,000 that are allowed; libraries take 60
