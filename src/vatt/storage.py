"""Files that are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, content: bytes) -> None:
    """Write a file aside, flush it to the disk and rename it."""
    aside = path.with_name(path.name + ".part")
    with aside.open("wb") as file:
        file.write(content)
        finish(file, aside, path)


def finish(file: BinaryIO, aside: Path, path: Path | None) -> None:
    """Flush a file that was written aside, and give it its name; remove it when `path` is None."""
    if path is None:
        file.close()
        aside.unlink(missing_ok=True)
        return
    file.flush()
    os.fsync(file.fileno())
    file.close()
    aside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)
