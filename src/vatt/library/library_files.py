"""Which files a library has, and which of them an index lacks, or has as they were before."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from vatt.ingest.sources import DUPLICATE, Skipped, find_items, printable
from vatt.library.vector_index import FileEntry
from vatt.media.captions.clean import Caption
from vatt.media.captions.sidecars import caption_files
from vatt.media.container import AUDIO_SUFFIXES, VIDEO_SUFFIXES, FilePart, MediaSource
from vatt.shards.layout import DATASET_FILE, shard_path
from vatt.shards.read import ShardFolder
from vatt.storage import sha256_of


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryFile:
    """A file to embed.

    path: absolute; of a stored video its shard and key, as `shard.tar#key`.
    library: the folder, list or file that the user named, absolute.
    captions: of a stored video, which has none beside it.
    file_id: SHA-256 of its content; "" if it is not known yet.
    state: what lies beside it, as JSON: another state is another file.
    """

    source: MediaSource
    path: str
    library: str
    size: int
    mtime_ns: int
    captions: tuple[Caption, ...] | None = None
    file_id: str = ""
    state: str = ""

    @property
    def number(self) -> int:
        """By which tasks share files, whatever other files there are."""
        name = os.fsencode(self.path)
        return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest())

    def is_as(self, entry: FileEntry) -> bool:
        """Whether it is still as it was embedded, as far as can be told without reading it."""
        then = (entry.size, entry.mtime_ns, entry.state)
        return (self.size, self.mtime_ns, self.state) == then


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLibrary:
    """What was found: files by path; and what was listed but is not there, or cannot be read.

    other_files: suffix → how many files of folders are no videos, no audio and no captions of one.
    """

    files: Sequence[LibraryFile]
    skipped: Sequence[Skipped]
    other_files: Mapping[str, int] = field(default_factory=dict)


def find_library(
    named: Sequence[Path], leave_out: Path | None = None, *, audio: bool = True
) -> FoundLibrary:
    """All files of folders, lists, prepared shards, and single files.

    Args:
        named: what the user named.
        leave_out: a folder that is not searched (where the index goes).
        audio: whether folders are searched for files of audio alone, too.

    Raises:
        DataError: something named does not exist; there is nothing to embed at all.
    """
    suffixes = VIDEO_SUFFIXES | (AUDIO_SUFFIXES if audio else set())
    files, skipped, others = dict[str, LibraryFile](), list[Skipped](), Counter[str]()
    for one in named:
        library = str(one.absolute())
        if (one / DATASET_FILE).is_file():
            files |= {file.path: file for file in _stored(one, library)}
            continue
        found = find_items([one], None, leave_out=leave_out, suffixes=suffixes)
        skipped += found.skipped
        others.update(found.other_files)
        for item in found.items:
            if not _is_text(item.path):
                name = printable(str(item.path))
                reason = f"{name}: its name is not UTF-8; rename it (convmv does many at once)"
                skipped.append(Skipped(source=name, cause="name", reason=reason))
                continue
            try:
                files[str(item.path)] = _plain(item.path, library)
            except OSError as error:
                reason = f"{item.path}: {error.strerror}"
                skipped.append(Skipped(source=str(item.path), cause="unreadable", reason=reason))
    return FoundLibrary(
        files=[files[path] for path in sorted(files)],
        skipped=skipped,
        other_files=dict(sorted(others.items())),
    )


def _is_text(path: Path) -> bool:
    """Whether a path is valid Unicode: a table, a page or a play list can hold nothing else."""
    return not any("\ud800" <= character <= "\udfff" for character in str(path))


def _plain(path: Path, library: str) -> LibraryFile:
    status, beside = path.stat(), {}
    for one in caption_files(path):
        with suppress(OSError):
            caption = path.with_name(one.name).stat()
            beside[one.name] = [caption.st_size, caption.st_mtime_ns]
    return LibraryFile(
        source=path,
        path=str(path),
        library=library,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        state=json.dumps(beside, sort_keys=True) if beside else "",
    )


def _stored(folder: Path, library: str) -> list[LibraryFile]:
    """The videos of a prepared folder, each with its captions."""
    data, found = ShardFolder.open(folder), []
    columns = [data.index[name].to_pylist() for name in ("shard", "key", "sha256", "video_size")]
    for row, (shard, key, sha256, size) in enumerate(zip(*columns, strict=True)):
        captions = data.read_record(row).captions
        content = json.dumps([[one.start_s, one.end_s, one.text] for one in captions])
        part = data.source(row)
        found.append(
            LibraryFile(
                source=part,
                path=f"{shard_path(folder, shard).absolute()}#{key}",
                library=library,
                size=part.size if isinstance(part, FilePart) else size,
                mtime_ns=0,
                captions=tuple(captions),
                file_id=sha256 if isinstance(part, FilePart) else "",
                state=f"{sha256} {hashlib.sha256(content.encode()).hexdigest()}",
            )
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is to be done so that an index holds a library.

    todo: files to embed. changed: paths of those that were embedded as they are no more.
    drop: ids of files that are gone, or have changed.
    describe: files that were moved or touched, and need not be embedded again.
    gone, moved: how many are in the library no more, and have another path.
    repeats: files with the bytes of another.
    """

    todo: Sequence[LibraryFile]
    drop: Collection[str]
    describe: Sequence[FileEntry]
    repeats: Sequence[Skipped]
    changed: Collection[str] = ()
    gone: int = 0
    moved: int = 0


@dataclass(slots=True)
class _Sorting:
    """What is known so far of each file of a library."""

    todo: list[LibraryFile] = field(default_factory=list)
    drop: set[str] = field(default_factory=set)
    describe: list[FileEntry] = field(default_factory=list)
    repeats: list[Skipped] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)
    moved: int = 0


def compare(
    library: FoundLibrary, indexed: Mapping[str, FileEntry], named: Sequence[Path]
) -> Changes:
    """Compare a library with what an index holds.

    A file of the index is gone if it was found by what is named now, and is not any more. Files
    are read only where their size is that of another file or their time of change differs.
    """
    work, here = _Sorting(), {one.path for one in library.files}
    by_path = {one.path: one for one in indexed.values()}
    libraries = {str(one.absolute()) for one in named}
    gone = {
        one.file_id: one
        for one in indexed.values()
        if one.path not in here and one.library in libraries
    }
    others = []
    for file in library.files:
        entry = by_path.get(file.path)
        if entry is not None and file.is_as(entry):
            continue
        if entry is not None and file.size == entry.size and file.state == entry.state:
            file = _with_id(file)
            if file.file_id == entry.file_id:  # touched
                work.describe.append(replace(entry, mtime_ns=file.mtime_ns))
                continue
        if entry is not None:
            work.drop.add(entry.file_id)
            work.changed.add(file.path)
        others.append(file)
    _sort_by_content(others, indexed, gone, work)
    work.drop |= gone.keys()
    return Changes(
        todo=work.todo,
        drop=work.drop,
        describe=work.describe,
        repeats=work.repeats,
        gone=len(gone),
        moved=work.moved,
        changed=work.changed,
    )


def _sort_by_content(
    files: Sequence[LibraryFile],
    indexed: Mapping[str, FileEntry],
    gone: dict[str, FileEntry],
    work: _Sorting,
) -> None:
    """Find files that have moved, and those that repeat another."""
    kept = {one.file_id: one for one in indexed.values() if one.file_id not in work.drop}
    sizes = Counter([one.size for one in files] + [one.size for one in kept.values()])
    first = {file_id: one.path for file_id, one in kept.items()}
    for file in files:
        if sizes[file.size] > 1:
            file = _with_id(file)
        before = kept.get(file.file_id)
        moved = file.file_id in gone and before is not None and before.state == file.state
        if moved and before is not None:
            del gone[file.file_id]
            work.describe.append(
                replace(before, path=file.path, library=file.library, mtime_ns=file.mtime_ns)
            )
            work.moved += 1
            first[file.file_id] = file.path
        elif file.file_id in first and file.file_id not in gone:
            reason = f"{file.path}: duplicate of {first[file.file_id]}"
            work.repeats.append(Skipped(source=file.path, cause=DUPLICATE, reason=reason))
        else:
            work.todo.append(file)
            if file.file_id:
                first[file.file_id] = file.path


def _with_id(file: LibraryFile) -> LibraryFile:
    """With the hash of its content; it stays unknown where it cannot be read."""
    if not file.file_id and isinstance(file.source, Path):
        with suppress(OSError):
            return replace(file, file_id=sha256_of(file.source))
    return file
