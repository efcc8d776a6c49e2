"""Finding what to prepare: videos in folders, files and lists, and what a manifest says of them."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from vatt.errors import DataError
from vatt.ingest.manifest import SPLITS, ManifestEntry, read_list, read_manifest
from vatt.media.captions.sidecars import caption_file, caption_files
from vatt.media.container import VIDEO_SUFFIXES
from vatt.shards.layout import FAILURES_FILE
from vatt.storage import sha256_of

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")  # lists that are manifests too
LIST_SUFFIXES = (".txt", *TABLE_SUFFIXES)
DUPLICATE = "duplicate"  # the only cause that is no fault of the file
_LONGEST_SUFFIX = 12  # what is longer is a dot in a sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A video to prepare; name is its path relative to the folder that is prepared."""

    path: Path  # absolute: FFmpeg takes "12:30 talk.mp4" for an address
    name: str
    split: str
    entry: ManifestEntry | None = None  # None: the manifest does not list it

    @property
    def digest(self) -> str:
        """16 hex digits of its name, whatever bytes the name consists of."""
        return hashlib.blake2b(os.fsencode(self.name), digest_size=8).hexdigest()

    @property
    def key(self) -> str:
        """Its name in the shards: readable, and unique because of the digits at its end."""
        words = re.sub(r"[^A-Za-z0-9_]+", "-", self.name.rpartition(".")[0] or self.name)
        return f"{words.strip('-')[:64]}-{self.digest}".lstrip("-")

    def part_key(self, number: int) -> str:
        """The name of one of its parts, when it is cut into several."""
        return f"{self.key}-p{number:04d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A skipped video: a short cause to count by, and the full reason."""

    source: str
    cause: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What lies under the sources: each file is in one of these.

    items: videos, ordered by name.
    skipped: listed but absent, no plain file, or a folder that cannot be read.
    caption_files: how many lie beside a video.
    other_files: how many there are of each suffix.
    lone_captions: names of those of the other files that are captions of no video.
    """

    items: Sequence[Item]
    skipped: Sequence[Skipped] = ()
    caption_files: int = 0
    other_files: Mapping[str, int] = field(default_factory=dict)
    lone_captions: Sequence[str] = ()


def split_of(name: str) -> str:
    """The split of a file that nothing else gives one: its first folder's, else `train`."""
    return SPLITS.get(name.split("/")[0].casefold(), "train")


def printable(name: str) -> str:
    """A file's name for people: bytes that are no text and control characters are escaped."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def find_items(
    sources: Sequence[Path],
    manifest: Path | None,
    *,
    leave_out: Path | None = None,
    suffixes: Collection[str] = VIDEO_SUFFIXES,
) -> Found:
    """All videos under the sources, with what lists and manifest say of them.

    A list or manifest names files relative to itself. The split is theirs, else the first folder's
    (train, val, test), else `train`.

    Args:
        sources: folders; videos; and lists of videos: `.txt`, or tables as a manifest.
        manifest: labels, cuts and splits; a file of another suffix that it lists is a video too.
        leave_out: a folder that is not searched (where the shards go).
        suffixes: of what counts as a video in folders.

    Raises:
        DataError: a source does not exist, there is no video, or two videos have the same name.
    """
    search = _Search(leave_out, suffixes)
    for source in sources:
        search.add(source, prefixed=len(sources) > 1)
    if manifest is not None:
        search.describe(manifest)
    items = sorted(search.items.values(), key=lambda item: os.fsencode(item.name))
    for item, after in pairwise(items):
        if item.name == after.name:
            raise DataError(
                f"{printable(item.name)}: two of the sources hold a video of this name; rename one"
            )
    if not items and not search.skipped:
        where = ", ".join(map(str, sources))
        raise DataError(f"{where}: holds no video; looked for {' '.join(sorted(suffixes))}")
    return Found(
        items=items,
        skipped=search.skipped,
        caption_files=search.caption_files,
        other_files=dict(sorted(search.other_files.items())),
        lone_captions=sorted(search.lone_captions),
    )


class _Search:
    """What was found so far."""

    def __init__(self, leave_out: Path | None, suffixes: Collection[str]) -> None:
        self._suffixes = suffixes
        self.items: dict[tuple[str, Path], Item] = {}
        self.skipped: list[Skipped] = []
        self.caption_files = 0
        self.other_files = Counter[str]()
        self.lone_captions: list[str] = []
        self._others: dict[str, str] = {}  # real path → name
        self._leave_out = leave_out and _identity(leave_out)

    def add(self, source: Path, *, prefixed: bool) -> None:
        """A folder, a list or a file that the user named."""
        suffix = source.suffix.lower()
        if source.is_dir():
            self._add_folder(source, f"{source.resolve().name}/" if prefixed else "")
        elif not source.exists():
            raise DataError(
                f"{printable(str(source))}: no such file or folder; expected videos, folders of "
                f"them, or a list ({' '.join(LIST_SUFFIXES)})"
            )
        elif suffix in LIST_SUFFIXES:
            listed: Mapping[str, ManifestEntry | None]
            listed = read_manifest(source) if suffix in TABLE_SUFFIXES else read_list(source)
            for file, entry in listed.items():
                name, path = os.path.normpath(file).lstrip("/"), source.parent / file
                if path.exists():
                    self._add_video(name, path, entry)
                else:
                    self._skip(name, "not found", f"{source}: lists {file!r}, which is absent")
        else:
            self._add_video(source.name, source)

    def describe(self, manifest: Path) -> None:
        """Give the videos what the manifest says; name those of its files that are absent."""
        entries = {
            _real(manifest.parent / file): (file, entry)
            for file, entry in read_manifest(manifest).items()
        }
        if (name := self._others.get(_real(manifest))) is not None:
            self._forget(manifest, name)
        for at, item in list(self.items.items()):
            if (found := entries.pop(_real(item.path), None)) is not None:
                split = found[1].split or item.split
                self.items[at] = replace(item, split=split, entry=found[1])
        for real, (file, entry) in entries.items():
            path = Path(real)
            if (name := self._others.get(real)) is not None:
                self._forget(path, name)
                self._add_video(name, path, entry)
            elif not path.exists():
                self._skip(file, "not found", f"{manifest}: lists {file!r}, which is absent")

    def _add_folder(self, root: Path, prefix: str) -> None:  # noqa: C901 one story
        """All files in it and below; each folder once, real ones before linked ones."""
        seen = {self._leave_out}
        real, linked = [root], list[Path]()
        while real or linked:
            folder = (real or linked).pop()
            if (identity := _identity(folder)) in seen:
                continue
            seen.add(identity)
            files = []
            try:
                for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
                    path = folder / entry.name
                    if entry.is_dir(follow_symlinks=False):
                        real.append(path)
                    elif path.is_dir():
                        linked.append(path)
                    else:
                        files.append(path)
            except OSError as error:
                name = folder.relative_to(root).as_posix()
                self._skip(name, "unreadable", f"{folder}: cannot be listed: {error.strerror}")
            videos = [path for path in files if self._is_video(path)]
            captions = {one.name for path in videos for one in caption_files(path)}
            for path in files:
                name = prefix + path.relative_to(root).as_posix()
                if self._is_video(path):
                    self._add_video(name, path)
                elif path.name in captions:
                    self.caption_files += 1
                else:
                    self.other_files[_suffix(path)] += 1
                    self._others[_real(path)] = name
                    is_data = path.suffix.lower() in (".json", ".tsv")  # as a rule of much else
                    if not is_data and caption_file(path.name, path.stem) is not None:
                        self.lone_captions.append(name)

    def _add_video(self, name: str, path: Path, entry: ManifestEntry | None = None) -> None:
        """A plain file becomes an item; what is none, or would block its reader, is skipped."""
        try:
            mode = path.stat().st_mode
        except OSError as error:  # a link that leads nowhere
            self._skip(name, "not found", f"{path}: {error.strerror}")
            return
        if not stat.S_ISREG(mode):
            kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
            kind = kinds.get(stat.S_IFMT(mode), "a device")
            self._skip(name, "unreadable", f"{path}: expected a file, found {kind}")
            return
        split = (entry.split if entry else None) or split_of(name)
        item = Item(path=path.absolute(), name=name, split=split, entry=entry)
        self.items[name, item.path] = item

    def _forget(self, path: Path, name: str) -> None:
        """No longer among the other files: the manifest, or a video that it lists."""
        self.other_files[_suffix(path)] -= 1
        self.other_files += Counter()  # drops zeros
        if name in self.lone_captions:
            self.lone_captions.remove(name)

    def _is_video(self, path: Path) -> bool:
        # `._talk.mp4` holds what macOS knows of talk.mp4, and no video.
        return path.suffix.lower() in self._suffixes and not path.name.startswith("._")

    def _skip(self, name: str, cause: str, reason: str) -> None:
        self.skipped.append(Skipped(source=name, cause=cause, reason=reason))


def _real(path: Path) -> str:
    """Without links; unlike `Path.resolve` also where these run in a circle."""
    return os.path.realpath(path)


def _suffix(path: Path) -> str:
    """By which a file that is no video is counted."""
    if path.name.startswith("._"):
        return "AppleDouble"
    suffix = printable(path.suffix.lower())
    return suffix if 0 < len(suffix) <= _LONGEST_SUFFIX else "(none)"


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def without_duplicates(
    items: Sequence[Item],
    known: Mapping[tuple[int, str], str],
    sha256: Callable[[Item], str] = lambda item: sha256_of(item.path),
) -> tuple[list[Item], list[Skipped]]:
    """Videos with content of their own; and those that repeat the bytes of another.

    Of equal files the one that the manifest lists is kept, else one with captions beside it, else
    the first by name. Only files of equal size are read.

    Args:
        items: ordered by name.
        known: (size in bytes, SHA-256) → name of what is stored already.
        sha256: of a video's file.
    """
    sizes = dict[str, int]()
    for item in items:
        with suppress(OSError):  # it is named when it is prepared
            sizes[item.name] = item.path.stat().st_size
    count = Counter(sizes.values()) + Counter({size for size, _ in known})
    alike = [item for item in items if count[sizes.get(item.name) or -1] > 1]
    alike.sort(key=lambda item: (item.entry is None, not caption_files(item.path)))
    seen, repeats = dict(known), dict[str, Skipped]()
    for item in alike:
        try:
            content = (sizes[item.name], sha256(item))
        except OSError:
            continue
        first = seen.setdefault(content, item.name)
        if first != item.name:
            reason = f"{item.path}: duplicate of {first}"
            repeats[item.name] = Skipped(source=item.name, cause=DUPLICATE, reason=reason)
    return [item for item in items if item.name not in repeats], list(repeats.values())


def too_many_skipped(
    skipped: Sequence[Skipped], *, stored: int, most: float, what: str, folder: Path | str
) -> str | None:
    """Why the exit code is 1: of all, more than the fraction `most` were skipped."""
    total = stored + len(skipped)
    if len(skipped) <= most * total:
        return None
    causes = Counter(one.cause for one in skipped).most_common()
    counts = ", ".join(f"{count} {cause}" for cause, count in causes)
    return (
        f"{folder}: {len(skipped)} of {total} {what} ({counts}; first: "
        f"{printable(skipped[0].reason)}), expected at most {most:.0%}; see "
        f"{folder}/{FAILURES_FILE}, or raise max_bad_fraction"
    )
