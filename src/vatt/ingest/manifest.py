"""Labels, cuts and splits of files, from one CSV or JSONL table.

    file,kind,start_s,end_s,split,action
    train/a.mp4,label,0.0,2.1,train,forward
    train/a.mp4,cut,2.1,2.1,train,

`file` is relative to the manifest. A `label` row keeps its other columns as text; a `cut` row marks
a time that no clip may cross; a row without `kind` gives only the split.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vatt.errors import DataError

_COLUMNS = ("file", "kind", "start_s", "end_s", "split")


@dataclass(slots=True)
class ManifestEntry:
    """What the manifest says of one file; times in seconds as a player shows them."""

    split: str | None = None
    labels: list[dict[str, Any]] = field(default_factory=list)  # start_s, end_s, other columns
    cuts: list[float] = field(default_factory=list)


def read_manifest(path: Path) -> dict[str, ManifestEntry]:
    """File (as written in the manifest) → its labels, cuts and split, labels in order of time.

    Raises:
        DataError: the table cannot be read, or a row of it is wrong; says which line and why.
    """
    entries: dict[str, ManifestEntry] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows: Iterable[tuple[int, Any]]
            if path.suffix.lower() in (".jsonl", ".ndjson"):
                lines = enumerate(file, start=1)
                rows = ((line, json.loads(text)) for line, text in lines if text.strip())
            else:
                reader = csv.DictReader(file, strict=True)
                rows = ((reader.line_num, row) for row in reader)
            for line, row in rows:
                _add_row(entries, row, where=f"{path}: line {line}")
    except OSError as error:
        raise DataError(f"{path}: cannot read the manifest: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not a table in UTF-8 (.csv or .jsonl): {error}") from error
    for entry in entries.values():
        entry.labels.sort(key=lambda label: (label["start_s"], label["end_s"]))
        entry.cuts.sort()
    return entries


def _add_row(entries: dict[str, ManifestEntry], row: Mapping[str, Any], *, where: str) -> None:
    if not isinstance(row, Mapping) or not row.get("file") or None in row:
        raise DataError(
            f"{where}: expected a row with the columns file, kind (label or cut), start_s, end_s, "
            "split and any label columns, and no more values than columns"
        )
    entry = entries.setdefault(str(row["file"]), ManifestEntry())
    split = str(row.get("split") or "") or None
    if split and entry.split and split != entry.split:
        raise DataError(
            f"{where}: {row['file']} is in split {split!r}, but in {entry.split!r} above; "
            "a file is in one split"
        )
    entry.split = split or entry.split
    match row.get("kind") or None:
        case "label":
            start_s, end_s = _seconds(row, "start_s", where), _seconds(row, "end_s", where)
            if end_s < start_s:
                raise DataError(f"{where}: the label ends at {end_s} s, before its start")
            columns = {
                name: str(value if value is not None else "")
                for name, value in row.items()
                if name not in _COLUMNS
            }
            entry.labels.append({"start_s": start_s, "end_s": end_s, **columns})
        case "cut":
            entry.cuts.append(_seconds(row, "start_s", where))
        case None:
            pass
        case other:
            raise DataError(f"{where}: kind: found {other!r}, expected 'label' or 'cut'")


def _seconds(row: Mapping[str, Any], column: str, where: str) -> float:
    try:
        seconds = float(row.get(column) or "")
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise DataError(f"{where}: {column}: found {row.get(column)!r}, expected seconds >= 0")
    return seconds
