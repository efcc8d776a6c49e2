"""A library of a few real films, with an encoder that needs no weights."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from tests.library.peer_encoder import HASH
from tests.library.small_index import entry, manifest, windows_of
from tests.media.clips import Recipe, write
from vatt.library.index_place import IndexPlace
from vatt.library.index_writer import index_writer
from vatt.library.search import Library, open_index

PEER = "tests.library.peer_encoder:make"
SECONDS = 11
FILMS = {
    "plays.mp4": Recipe(frames=110, flash=50, size=(90, 160)),
    "does not play.avi": Recipe(
        frames=110, flash=20, size=(90, 160), video_codec="mpeg4", audio_codec="mp2", options={}
    ),
    "silent <b>film.mp4": Recipe(frames=110, fps=Fraction(10), audio_codec=None, size=(90, 160)),
}


def write_films(folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return [write(folder / name, recipe) for name, recipe in FILMS.items()]


def film_library(folder: Path) -> Library:
    """The library of films in a new folder; of the last film nothing is heard."""
    with index_writer(
        IndexPlace(folder / "index"), replace(manifest(), model=PEER, model_hash=HASH)
    ) as writer:
        for path in write_films(folder / "films"):
            stat = path.stat()
            file = entry(
                str(path),
                SECONDS - 1,
                audio=FILMS[path.name].audio_codec is not None,
                size=stat.st_size,
                mtime_ns=stat.st_mtime_ns,
                title=path.name,
            )
            writer.add(windows_of(file), [file])
    return open_index(folder / "index", device="cpu")
