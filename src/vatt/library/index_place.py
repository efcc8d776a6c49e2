"""Where an index lies, a folder or a URL of an object store, and what it says of itself there."""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

from vatt.errors import ConfigError, DataError, MissingExtraError
from vatt.storage import refuse_newer, write_atomically

FORMAT_VERSION = "1.0"
MANIFEST, FAILURES = "manifest.json", "failures.jsonl"
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(.+)")  # `Path` makes one slash of two
_STORES = ("s3", "gs")
_LONGEST = 300  # characters of a database's or a store's error


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an index was made with, and what it holds.

    model, model_hash: of the encoder; only vectors of the same one can be compared.
    clip_s: length of a window. every_s: from the start of one to the start of the next.
    dims: vector column → its width; a column that the encoder does not have is absent.
    """

    format_version: str = FORMAT_VERSION
    model: str
    model_hash: str
    clip_s: float
    every_s: float
    dims: Mapping[str, int]
    files: int = 0
    windows: int = 0
    hours: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)


class IndexPlace:
    """A folder, or a URL of an object store.

    Attributes:
        url: in an object store, else None.
        folder: on this machine, else None.
    """

    def __init__(self, path: Path | str) -> None:
        """Look at the name alone.

        Raises:
            ConfigError: it is a URL of another kind.
        """
        found = _URL.fullmatch(str(path))
        scheme, rest = (found[1], found[2]) if found else ("", "")
        if scheme not in ("", "file", *_STORES):
            raise ConfigError(
                f"{path}: an index cannot lie in {scheme}:, expected a folder, or a URL that "
                f"begins with {' or '.join(f'{one}://' for one in _STORES)}"
            )
        self.url = f"{scheme}://{rest.rstrip('/')}" if scheme in _STORES else None
        self.folder = None
        if self.url is None:
            self.folder = Path("/" + unquote(rest).lstrip("/") if scheme else path)

    def __str__(self) -> str:
        return self.url or str(self.folder)

    def connect(self) -> Any:
        """Its database.

        Raises:
            MissingExtraError: LanceDB is not installed.
        """
        os.environ.setdefault("LANCEDB_LOG", "error")  # it warns of every table that it makes
        try:
            lancedb = importlib.import_module("lancedb")
        except ImportError:
            raise MissingExtraError("lancedb", "search", "an index") from None
        return lancedb.connect(str(self))

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What the database and the object store raise, in our words.

        Raises:
            DataError: instead of whatever they raise.
        """
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(f"{self}: {_short(error)}; {self._advice()}") from error

    def _advice(self) -> str:
        if self.folder is not None:
            return "look at who may write there and how much room its disk has, or give --rebuild"
        return (
            "look at its bucket and at what the store needs to know (of S3: AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY, AWS_REGION; of another than Amazon's AWS_ENDPOINT_URL)"
        )

    def read(self, name: str) -> str | None:
        """A small file of it, None if there is none.

        Raises:
            DataError: it cannot be read.
        """
        with self.errors():
            try:
                if self.folder is not None:
                    return (self.folder / name).read_text("utf-8")
                system, base = self._system()
                with system.open_input_stream(f"{base}/{name}") as stream:
                    return cast(str, stream.read().decode())
            except (FileNotFoundError, NotADirectoryError):
                return None

    def write(self, name: str, text: str) -> None:
        """Write such a file; it appears whole.

        Raises:
            DataError: it cannot be written.
        """
        with self.errors():
            if self.folder is not None:
                write_atomically(self.folder / name, text)
                return
            system, base = self._system()
            with system.open_output_stream(f"{base}/{name}") as stream:
                stream.write(text.encode())

    def _system(self) -> tuple[Any, str]:
        fs = importlib.import_module("pyarrow.fs")
        return cast("tuple[Any, str]", fs.FileSystem.from_uri(self.url))

    def written(self) -> tuple[int, int] | None:
        """Another value when a writer has begun or ended; None where that cannot be asked."""
        try:
            status = None if self.folder is None else (self.folder / MANIFEST).stat()
        except OSError:
            return None
        return status and (status.st_mtime_ns, status.st_ino)

    def manifest(self) -> Manifest | None:
        """What it says of itself, None if there is no index.

        Raises:
            DataError: it is damaged, or of a newer format, or the store cannot be read.
        """
        text, where = self.read(MANIFEST), f"{self}/{MANIFEST}"
        if text is None:
            return None
        try:
            values = json.loads(text)
            refuse_newer(Path(where), values["format_version"], FORMAT_VERSION, DataError)
            known = {one.name for one in fields(Manifest)}
            return Manifest(**{name: one for name, one in values.items() if name in known})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f"{where}: damaged ({type(error).__name__}: {error}), expected the JSON that "
                "`vatt embed` writes; embed with --rebuild"
            ) from None


def as_values(manifest: Manifest) -> str:
    """The text of `manifest.json`."""
    return json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n"


def _short(error: Exception) -> str:
    """The first line of an error, or what the store says in it."""
    text = str(error)
    if said := re.search(r"<Message>(.*?)</Message>", text):
        return said[1]
    line = (text.strip() or type(error).__name__).splitlines()[0]
    line = re.sub(r", /\S+\.rs:\d+:\d+", "", line)  # where in LanceDB's own source
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"
