"""Checksums of a folder's files, written into it last and compared before it is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import google_crc32c

CHECKSUMS = "checksums.json"


def checksum(path: Path) -> str:
    """The CRC-32C of a file's content, in hexadecimal."""
    found = 0
    with path.open("rb") as file:
        while block := file.read(2**24):
            found = google_crc32c.extend(found, block)
    return f"{found:08x}"


def write_checksums(folder: Path, known: Mapping[str, str] | None = None) -> None:
    """Write `checksums.json` for the files in a folder; `known` are those computed already."""
    known = known or {}
    # A network disk may not list at once what another machine has written.
    names = {path.name for path in folder.iterdir()} | known.keys()
    files = {name: known.get(name) or checksum(folder / name) for name in sorted(names)}
    files.pop(CHECKSUMS, None)
    (folder / CHECKSUMS).write_text(json.dumps(files, indent=1), encoding="utf-8")


def damage(folder: Path) -> str | None:
    """What differs from when the folder was written; None where nothing does.

    A folder without `checksums.json` is not judged.
    """
    path = folder / CHECKSUMS
    if not path.exists():
        return None
    try:
        files = json.loads(path.read_text(encoding="utf-8"))
        for name, expected in files.items():
            if Path(name).name != name:
                return f"{CHECKSUMS} names {name!r}, which is no file of the folder"
            if checksum(folder / name) != expected:
                return f"{name} is not what was written (its checksum differs)"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        return f"a file of it cannot be read: {error}"
    return None
