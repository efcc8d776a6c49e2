"""Labels, cuts and splits of files, from one CSV or JSONL table.

    file,kind,start_s,end_s,split,action
    train/a.mp4,label,0.0,2.1,train,forward
    train/a.mp4,cut,2.1,2.1,train,

`file` is relative to the manifest. A `label` row keeps its other columns as text; a `cut` row marks
a time that no clip may cross; a row without `kind` gives only the split.

Tables are read as people save them: blanks and case around names of columns, kinds and splits do
not count, columns may be parted by semicolons or tabs, the encoding may be that of an office
program. What looks like a setting and is not understood is refused, never passed over.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import logging
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from vatt.errors import DataError

_COLUMNS = ("file", "kind", "start_s", "end_s", "split")
_NO_TABLE = "not a table in UTF-8 or UTF-16 (.csv or .jsonl)"
_EXPECTED = (
    "expected a row with the columns file, kind (label or cut), start_s, end_s, split and any "
    "label columns, and no more values than columns"
)
SPLITS = {  # what folders and tables call them
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val",
}  # fmt: skip
# What others call our columns; close spellings are found without a list.
_OTHER_NAMES = {
    "file": ("filename", "filepath", "path", "video", "videopath", "videofile", "clip"),
    "start_s": ("start", "begin", "starttime", "startsec", "startseconds", "tstart"),
    "end_s": ("end", "stop", "endtime", "endsec", "endseconds", "tend"),
    "split": ("subset", "partition"),
}
_FOREVER_S = 86_400.0  # longer than any video
_LIKE = 0.8  # how close a misspelled column is, of 1
# Encodings in which spreadsheet programs save tables, when it is not UTF-8.
_OFFICE = ("cp1252", "cp1251", "cp1250", "cp932", "gb18030", "cp949", "big5", "mac_roman")
_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class ManifestEntry:
    """What the manifest says of one file; times in seconds as a player shows them."""

    split: str | None = None
    labels: list[dict[str, Any]] = field(default_factory=list)  # start_s, end_s, other columns
    cuts: list[float] = field(default_factory=list)


def split_named(name: str) -> str | None:
    """The split that a folder or a value of a table names, None for nothing."""
    name = name.strip()
    return SPLITS.get(name.casefold(), name) or None


def listed_name(folder: Path, written: str) -> str:
    """The name of a file as the disk has it that a list in `folder` names; may be absent.

    As written, if that exists; else without blanks and quotes around it, with / for a backslash,
    its accents as letters of their own or not, its bytes read as those of Windows.
    """
    plain = written.strip().strip("\"'").strip()
    forms = [written, plain, plain.replace("\\", "/")]
    forms += [unicodedata.normalize(form, forms[-1]) for form in ("NFC", "NFD")]
    if any("\udc80" <= c <= "\udcff" for c in plain):
        forms.append(os.fsencode(plain).decode("cp1252", "replace"))
    return next((name for name in forms if name and _exists(folder / name)), plain)


def read_list(path: Path) -> dict[str, None]:
    """The files of a list, one on a line, relative to it.

    Raises:
        DataError: it cannot be read.
    """
    try:
        content = path.read_bytes()
        text = decoded(content)
    except OSError as error:
        raise DataError(f"{path}: cannot read the list: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a list of files in UTF-8 or UTF-16: {error}") from error
    lines = re.split(r"\r\n|\n|\r", os.fsdecode(content) if text is None else text)
    return {listed_name(path.parent, line): None for line in lines if line.strip()}


def _exists(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 Path.exists() raises where a name is impossible


def decoded(content: bytes) -> str | None:
    """The text of a table or list in UTF-8 or UTF-16; None when it is in another encoding."""
    utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        if utf16 or b"\0" in content:
            raise
        return None


def read_manifest(path: Path) -> dict[str, ManifestEntry]:
    """File (relative to the manifest) → its labels, cuts and split, labels in order of time.

    Raises:
        DataError: the table cannot be read, or a column or a row of it is wrong; says which and
            why.
    """
    try:
        content = path.read_bytes()
        if (text := decoded(content)) is not None:
            return _read_table(path, text)
    except OSError as error:
        raise DataError(f"{path}: cannot read the manifest: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {_NO_TABLE}: {error}") from error
    tables = dict[str, dict[str, ManifestEntry]]()
    for encoding in _OFFICE:
        with suppress(UnicodeDecodeError):
            tables[encoding] = _read_table(path, content.decode(encoding))
    # Letters are as they should be where the files are found.
    best = max(tables, key=lambda one: sum(_exists(path.parent / name) for name in tables[one]))
    _logger.warning("%s: not in UTF-8; read as %s", path, best)
    return tables[best]


def read_label_table(path: Path, column: str, separator: str | None) -> dict[str, ManifestEntry]:
    """As `read_manifest`, of a plain table: file, label, and if given start, end and split.

    A label without times holds all the time; a table with a column `kind` is a manifest.

    Args:
        path: the table.
        column: the one with the labels.
        separator: between several labels of one row; JSON may have a list instead.

    Raises:
        DataError: the table cannot be read, or has no such column.
    """
    try:
        text = decoded(path.read_bytes())
        assert text is not None, "another encoding"
        rows = list(_rows(path, text, ours_by_other_names=True))
    except (OSError, AssertionError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {_NO_TABLE}: {error}") from error
    if any("kind" in row for _, row in rows):
        return read_manifest(path)
    columns = list(dict.fromkeys(chain.from_iterable(row for _, row in rows)))
    for needed in ("file", column):
        if needed not in columns:
            raise DataError(f"{path}: no column {needed!r}, found {', '.join(columns)}")
    entries, names = dict[str, ManifestEntry](), dict[str, str]()
    for line, row in rows:
        where, written, labels = f"{path}: line {line}", str(row.get("file") or ""), row.get(column)
        if not written:
            raise DataError(f"{where}: no file")
        if not isinstance(labels, list):
            labels = str(labels or "").split(separator) if separator else [str(labels or "")]
        name = names.setdefault(written, listed_name(path.parent, written))
        span = {"start_s": row.get("start_s") or 0.0, "end_s": row.get("end_s") or _FOREVER_S}
        for label in labels:
            if plain := str(label).strip():
                values = {"kind": "label", "split": row.get("split"), **span, column: plain}
                _add_row(entries.setdefault(name, ManifestEntry()), name, values, where)
    return entries


def _read_table(path: Path, text: str) -> dict[str, ManifestEntry]:
    entries, names = dict[str, ManifestEntry](), dict[str, str]()
    used, unused = set[str](), set[str]()  # other columns with values, in labels and elsewhere
    for line, row in _rows(path, text):
        where, written = f"{path}: line {line}", str(row.get("file") or "")
        if not written:
            raise DataError(f"{where}: {_EXPECTED}")
        if written not in names:
            names[written] = listed_name(path.parent, written)
        _add_row(entries.setdefault(names[written], ManifestEntry()), names[written], row, where)
        others = {name for name, value in row.items() if value not in (None, "")} - {*_COLUMNS}
        if row.get("kind") == "label":
            used |= others
        else:
            unused |= others
    if lost := ", ".join(sorted(unused - used)):
        _logger.warning("%s: not read: %s; labels are in rows of the kind label", path, lost)
    for entry in entries.values():
        entry.labels.sort(key=lambda label: (label["start_s"], label["end_s"]))
        entry.cuts.sort()
    return entries


def _rows(  # noqa: C901 one story
    path: Path, text: str, *, ours_by_other_names: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row with its line: our columns under their names, no blanks around names and values."""
    decimal = "."
    rows: list[tuple[int, Any]]
    try:
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            lines = enumerate(text.splitlines(), start=1)
            rows = [(line, json.loads(one)) for line, one in lines if one.strip()]
        else:
            text = re.sub(r"\r\n?", "\n", text)
            before = re.match(r"(?: *\n)*(?:sep=(.) *\n)?", text)  # sep=; of spreadsheet programs
            assert before is not None
            table = text[before.end() :]
            delimiter = before[1] or max(",;\t|", key=table.partition("\n")[0].count)
            decimal = "." if delimiter == "," else ","
            reader = csv.DictReader(
                io.StringIO(table), delimiter=delimiter, skipinitialspace=True, strict=True
            )
            rows = [(reader.line_num + before[0].count("\n"), row) for row in reader]
    except (csv.Error, json.JSONDecodeError) as error:
        raise DataError(f"{path}: {_NO_TABLE}: {error}") from error
    for line, row in rows:
        if not isinstance(row, Mapping):
            raise DataError(f"{path}: line {line}: {_EXPECTED}")
    columns = _columns(path, rows, ours_by_other_names)
    for line, row in rows:
        values = dict[str, Any]()
        for name, value in row.items():
            value = value.strip() if isinstance(value, str) else value
            if name in columns:
                values[columns[name]] = value
            elif "".join(value or ()).strip():  # more values than columns, or no name over it
                raise DataError(f"{path}: line {line}: {_EXPECTED}")
        for name in ("start_s", "end_s"):
            if isinstance(value := values.get(name), str):
                values[name] = value.replace(decimal, ".")
        if isinstance(kind := values.get("kind"), str):
            values["kind"] = kind.casefold()
        if any(value not in (None, "") for value in values.values()):
            yield line, values


def _columns(
    path: Path, rows: Sequence[tuple[int, Mapping[str | None, Any]]], ours_by_other_names: bool
) -> dict[str, str]:
    """Name of a column in the table → its name for us, which for labels is the same.

    Raises:
        DataError: one looks like a setting, but is none that we know.
    """
    names = [name for name in dict.fromkeys(chain.from_iterable(row for _, row in rows)) if name]
    columns = {name: name.strip() for name in names if name.strip()}
    _check_no_files(path, columns.keys() - {*_COLUMNS})
    for name, plain in columns.items():
        if (ours := re.sub(r"[\s-]+", "_", plain.casefold())) in _COLUMNS:
            columns[name] = ours
        elif ours_by_other_names:
            letters = re.sub(r"[\W_]", "", plain.casefold())
            same = (one for one, others in _OTHER_NAMES.items() if letters in others)
            columns[name] = next(same, plain)
    given = Counter(columns.values())
    for name, column in columns.items():
        where = f"{path}: column {name!r}"
        if given[column] > 1:
            raise DataError(f"{where}: {column} is there twice; expected each column once")
        if column in _COLUMNS:
            continue
        letters = re.sub(r"[\W_]", "", column.casefold())
        values = {str(row[name]).strip().casefold() for _, row in rows if row.get(name)} - {""}
        for ours in (one for one in _COLUMNS if one not in given):
            like = difflib.SequenceMatcher(None, letters, ours.replace("_", "")).ratio()
            is_split = ours == "split" and values and values <= SPLITS.keys()
            if like >= _LIKE or letters in _OTHER_NAMES.get(ours, ()) or is_split:
                raise DataError(
                    f"{where}: not understood; it looks like {ours}: call it so, or otherwise if "
                    "it is a label"
                )
    return columns


def _check_no_files(table: Path, columns: Iterable[str]) -> None:
    """A table without a header has a file where the columns should be named."""
    for name in columns:
        if os.path.isfile(table.parent / listed_name(table.parent, name)):  # noqa: PTH113 as above
            raise DataError(f"{table}: line 1: found the file {name!r}, expected names of columns")


def _add_row(entry: ManifestEntry, file: str, row: Mapping[str, Any], where: str) -> None:
    split = split_named(str(row.get("split") or ""))
    if split and entry.split and split != entry.split:
        raise DataError(
            f"{where}: {file} is in split {split!r}, but in {entry.split!r} above; "
            "a file is in one split"
        )
    entry.split = split or entry.split
    match row.get("kind") or "":
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
        case "":
            if any(row.get(name) not in (None, "") for name in ("start_s", "end_s")):
                raise DataError(f"{where}: kind: found nothing beside times, expected label or cut")
        case _:
            raise DataError(f"{where}: kind: found {row['kind']!r}, expected 'label' or 'cut'")


def _seconds(row: Mapping[str, Any], column: str, where: str) -> float:
    try:
        value = row.get(column)
        seconds = float("" if value is None else value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise DataError(f"{where}: {column}: found {row.get(column)!r}, expected seconds >= 0")
    return seconds
