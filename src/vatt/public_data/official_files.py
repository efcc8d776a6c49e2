"""Annotation files below a folder: found by name, read line by line, and refused with reasons.

They come from the internet: nothing in them is believed before it is checked, and an error says
the file, the line, what was found, what was expected and what to do.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from vatt.errors import DataError
from vatt.ingest.sources import printable
from vatt.media.container import AUDIO_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES

logger = logging.getLogger(__name__)

MEDIA_SUFFIXES = VIDEO_SUFFIXES | AUDIO_SUFFIXES | IMAGE_SUFFIXES
ARCHIVE_SUFFIXES = (".rar", ".zip", ".tar", ".tgz", ".gz", ".7z")
MAX_BYTES = 2**30  # of a list; AudioSet's 2 million rows have 100 MB
MAX_LINE_BYTES = 2**20
MAX_S = 86_400.0
_AGAIN = "get it again from where the data set is published, or mend that row"
_SPLITS = {
    "train": "train", "training": "train", "development": "train", "val": "val", "valid": "val",
    "validate": "val", "validation": "val", "test": "test", "testing": "test", "eval": "test",
    "evaluation": "test",
}  # fmt: skip


class OfficialFiles:
    """What lies below a folder: media by path, lists by name.

    folder: as the user named it.
    media: paths relative to it, in order.
    archives: names of archives, which are not looked into.
    """

    def __init__(self, folder: Path) -> None:
        """Walk the folder, each sub-folder once, also linked ones.

        Raises:
            DataError: it is no folder.
        """
        if not folder.is_dir():
            raise DataError(
                f"{folder}: found no folder, expected one with the official annotation files and "
                "media anywhere below it"
            )
        self.folder = folder
        self.media: list[str] = []
        self.archives: list[str] = []
        self._lists: list[Path] = []
        seen = set[tuple[int, int]]()
        for root, folders, names in os.walk(folder, followlinks=True, onerror=_unlisted):
            status = Path(root).stat()
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(one for one in names if not one.startswith(".")):
                suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 names, not paths
                path = os.path.join(root, name)  # noqa: PTH118 a million of them
                if suffix in MEDIA_SUFFIXES:
                    self.media.append(os.path.relpath(path, folder))
                elif suffix in ARCHIVE_SUFFIXES:
                    self.archives.append(name)
                else:
                    self._lists.append(Path(path))

    def named(self, pattern: str) -> list[Path]:
        """The lists whose whole name is like a regular expression, in any case; nearest first."""
        found = [one for one in self._lists if re.fullmatch(pattern, one.name, re.IGNORECASE)]
        return sorted(found, key=lambda one: (len(one.parts), str(one)))

    def one(self, pattern: str) -> Path | None:
        """The nearest of those; a note says which, where there are others."""
        found = self.named(pattern)
        if len(found) > 1:
            others = ", ".join(str(one) for one in found[1:4])
            logger.info("%s is read; not read: %s", found[0], others)
        return found[0] if found else None

    def tables(self, *columns: str) -> list[Path]:
        """The CSV files whose first line names all these columns."""
        found = []
        for path in self.named(r".*\.(csv|tsv)"):
            head = ""
            with suppress(DataError):  # a table of something else
                _, head = next(lines(path), (0, ""))
            if set(columns) <= {name.strip().strip('"').casefold() for name in _cells(head)}:
                found.append(path)
        return found

    def json_lists(self, official: str, *keys: str) -> list[tuple[Path, Any]]:
        """The JSON files of an official name, each with what it holds; else those with some keys.

        Args:
            official: pattern of their names.
            keys: of the object, or of the first of a list of objects, in files of other names.
        """
        if known := self.named(official):
            return [(path, read_json(path)) for path in known]
        found = [(path, read_json(path)) for path in self.named(r".*\.json")]
        return [(path, data) for path, data in found if set(keys) <= _keys(data)]

    def missing(self, what: str) -> NoReturn:
        """Stop because the lists are not there.

        Raises:
            DataError: always.
        """
        found = ", ".join(printable(one.name) for one in self._lists[:5]) or "none"
        raise DataError(
            f"{self.folder}: found no {what}; other files there: {found}. Put the official "
            "annotation files anywhere below this folder (nothing is downloaded)"
        )


def _unlisted(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be listed: {error.strerror}") from error


def _keys(data: Any) -> set[str]:
    first = data[0] if isinstance(data, list) and data else data
    return set(first) if isinstance(first, dict) else set()


def _cells(head: str) -> list[str]:
    return re.split(r"[,;\t]", head.strip())


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Errors of the block are errors of the list that it reads.

    Raises:
        DataError: the list cannot be read, or is too large.
    """
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise DataError(
                f"{path}: found {size:,} bytes, expected an official list of at most "
                f"{MAX_BYTES:,}; get it again from where the data set is published"
            )
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _text(content: bytes, where: str, encoding: str = "utf-8-sig") -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: found bytes that are no text in UTF-8 or UTF-16 ({error.reason} at byte "
            f"{error.start:,} of it); save the file as UTF-8"
        ) from error


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text in UTF-8 or UTF-16, with their numbers, without their ends.

    Raises:
        DataError: it cannot be read, is too large, has a line that is, or another encoding.
    """
    with _reading(path), path.open("rb") as file:
        if file.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
            text = _text(file.read(), str(path), "utf-16")
            yield from enumerate(text.splitlines(), start=1)
            return
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            where = f"{path}: line {number}"
            if len(line) > MAX_LINE_BYTES:
                raise DataError(
                    f"{where}: longer than {MAX_LINE_BYTES:,} bytes, expected one row of a list; "
                    f"{_AGAIN}"
                )
            encoding = "utf-8-sig" if number == 1 else "utf-8"
            yield number, _text(line, where, encoding).rstrip("\r\n")


def rows(
    path: Path, needed: Sequence[str], *, header: Sequence[str] | None = None, comment: str = ""
) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV table, each with where it stands, values without blanks around them.

    Args:
        path: parted by commas, semicolons or tabs, as its first line is.
        needed: columns that must be there, in lower case.
        header: names of the columns, where the file has none.
        comment: what lines begin with that are none of the table.

    Raises:
        DataError: a column is missing, or a row has more or fewer values than columns.
    """
    at = [0]

    def counted() -> Iterator[str]:
        for number, line in lines(path):
            at[0] = number
            if line.strip() and not (comment and line.startswith(comment)):
                yield line + "\n"

    text = counted()
    first = next(text, "")
    delimiter = max(",;\t", key=first.count)

    def all_lines() -> Iterator[str]:
        yield first
        yield from text

    table = csv.reader(all_lines(), delimiter=delimiter, skipinitialspace=True, strict=True)
    names = list(header) if header else None
    try:
        for cells in table:
            where = f"{path}: line {at[0]}"
            if names is None:
                names = [cell.strip().casefold() for cell in cells]
                absent = [name for name in needed if name not in names]
                if absent:
                    raise DataError(
                        f"{where}: found the columns {', '.join(names)}, expected "
                        f"{', '.join(needed)}; get the official list"
                    )
                continue
            if len(cells) < len(needed) or (len(cells) != len(names) and header is None):
                raise DataError(
                    f"{where}: found {len(cells)} values, expected {len(names)} "
                    f"({', '.join(names)}); {_AGAIN}"
                )
            yield where, {name: c.strip() for name, c in zip(names, cells, strict=False)}
    except csv.Error as error:
        raise DataError(
            f"{path}: line {at[0]}: not a row of a table ({error}), expected "
            f"{', '.join(needed)}; {_AGAIN}"
        ) from error


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: it is none, or too large or deep.
    """
    with _reading(path):
        text = _text(path.read_bytes(), str(path))
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: not a JSON file ({error}); get it again from where the data set is published"
        ) from error


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def field_of(entry: Any, name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """A field of a JSON object.

    Raises:
        DataError: it is absent, or of another kind.
    """
    if not isinstance(entry, Mapping):
        refuse(where, entry, f"an object with {name!r}")
    if not isinstance(value := entry.get(name), kind) or isinstance(value, bool):
        names = [one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,))]
        refuse(f"{where}: {name}", value, " or ".join(names))
    return value


def refuse(where: str, found: object, expected: str) -> NoReturn:
    """Stop because of one row.

    Raises:
        DataError: always.
    """
    shown = printable(repr(found))
    shown = shown if len(shown) < 80 else f"{shown[:77]}…"
    raise DataError(f"{where}: found {shown}, expected {expected}; {_AGAIN}")


def seconds(value: object, where: str) -> float:
    """A time, in a file of at most a day.

    Raises:
        DataError: it is none.
    """
    try:
        time_s = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        time_s = math.nan
    if not 0 <= time_s <= MAX_S:
        refuse(where, value, f"seconds, from 0 to {MAX_S:,.0f}")
    return time_s


def span(start: object, end: object, where: str) -> tuple[float, float]:
    """Start and end of something that lasts.

    Raises:
        DataError: they are no times, or it ends before it starts.
    """
    start_s, end_s = seconds(start, where), seconds(end, where)
    if end_s < start_s:
        refuse(where, f"{start_s:g} to {end_s:g} s", "an end after the start")
    return start_s, end_s


def inside(name: str, where: str) -> str:
    """A file's name as a list writes it, / for a backslash.

    Raises:
        DataError: it is empty, or leads out of the folder.
    """
    plain = name.strip().replace("\\", "/").removeprefix("./")
    odd = not plain.isprintable() or plain.startswith(("/", "~")) or re.match("[A-Za-z]:/", plain)
    if not plain or odd or {"..", ""} & set(plain.split("/")):
        refuse(where, name, "the name of a file below the folder of the data set")
    return plain


def youtube_id(value: str, where: str) -> str:
    """A video's id, which may begin with a minus.

    Raises:
        DataError: it is none.
    """
    if not re.fullmatch(r"[\w-]{1,64}", value, re.ASCII):
        refuse(where, value, "a YouTube id")
    return value


def split_named_in(text: str, where: str) -> str:
    """The split that a value, or a file's name, names.

    Raises:
        DataError: it names none, or several.
    """
    words = re.findall(r"[a-z]+", text.casefold())
    found = {_SPLITS[word] for word in words if word in _SPLITS}
    if len(found) != 1:
        refuse(where, text, "train, val or test")
    return found.pop()
