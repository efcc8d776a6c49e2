"""What lies in a folder of shards: names of its files, and the version of the format.

    shard-000000.tar     members <key>.mp4 and <key>.json, in WebDataset's layout
    index.parquet        one row per video: where its bytes lie, and what a sampler needs to know
    dataset.json         format version, totals, how it was made, counts of what was skipped
    failures.jsonl       one line per skipped item
    records.jsonl        the records of videos in tars that others made (`vatt index-shards`)
    sources.jsonl        what each source was when `vatt prepare` stored or skipped it

Each file is written atomically. Index and dataset.json can be made again from the shards alone.
"""

from __future__ import annotations

import re
from pathlib import Path

from vatt.errors import DataError

FORMAT_VERSION = "1.2"  # a reader refuses a newer major version
INDEX_FILE, DATASET_FILE, FAILURES_FILE = "index.parquet", "dataset.json", "failures.jsonl"
SOURCES_FILE = "sources.jsonl"
RECORDS_FILE = "records.jsonl"  # all records, where they do not lie in the shards
KEY = re.compile(r"[A-Za-z0-9_-]{1,90}")  # no dots: WebDataset cuts names at the first one
# Of others' shards, also in folders below; never one that leads out of the folder.
SHARD_NAME = re.compile(r"(?:[\w+=@,~-][\w .+=@,~-]{0,100}/){0,4}[\w .+=@,~-]{1,200}\.tar")
MAX_RECORD_BYTES = 64 * 2**20


def shard_paths(folder: Path) -> list[Path]:
    """The finished shards of a folder, in order."""
    return sorted(path for path in folder.glob("shard-*.tar") if SHARD_NAME.fullmatch(path.name))


def tar_paths(folder: Path) -> list[Path]:
    """All tars of a folder and the folders in it, in order; hidden ones are left out."""
    found = (path for path in folder.rglob("*.tar") if path.is_file())
    return sorted(path for path in found if "/." not in f"/{path.relative_to(folder).as_posix()}")


def is_shard_name(name: str) -> bool:
    """Whether a shard may be called so, relative to its folder."""
    return SHARD_NAME.fullmatch(name) is not None


def shard_path(folder: Path, name: str) -> Path:
    """Where the shard of that name lies.

    Raises:
        DataError: it is no name of a shard; it could lead out of the folder.
    """
    if not is_shard_name(name):
        raise DataError(f"{folder / INDEX_FILE}: {name!r} is no name of a shard")
    return folder / name
