"""`vatt embed`: a library of films becomes an index that can be searched."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from vatt.any_encoder import OpenedEncoder, open_encoder
from vatt.errors import ConfigError, DataError
from vatt.hub import is_hub_name
from vatt.ingest.journal import BusyError, Share
from vatt.ingest.sources import DUPLICATE, Skipped, too_many_skipped
from vatt.library.embedding import Embedded, Embedding, dims_of, embed_files, failures_text
from vatt.library.index_copies import add_index
from vatt.library.index_place import FAILURES, IndexPlace, Manifest
from vatt.library.index_writer import IndexWriter, index_writer
from vatt.library.library_files import Changes, FoundLibrary, LibraryFile, compare, find_library
from vatt.library.vector_index import FileEntry, open_index
from vatt.library.windows import Reading
from vatt.media.captions.choose import CaptionChoice
from vatt.storage import write_atomically
from vatt.workers.process import Limits

logger = logging.getLogger(__name__)

_TASKS, _DONE = ".tasks", "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedConfig:
    """Embed a library window by window; the same command continues, and brings up to date."""

    library: Positional[tuple[Path, ...]]
    """Folders (read with their sub-folders), files, lists of files (.txt, .csv, .jsonl), and
    prepared shards."""
    model: Path | None = None
    """Run folder, model folder, or name on a hub (hf://owner/name@revision)."""
    encoder: str | None = None
    """Another encoder, as package.module:factory (docs/evaluation.md)."""
    out: str
    """Folder of the index, or its URL in an object store (s3://bucket/name …)."""
    every: float | None = None
    """Seconds from the start of one window to the next; "none": half a clip."""
    languages: str | None = None
    """Of captions: en,de takes German where there is no English, en,any whatever there is."""
    asr: str | None = None
    """Speech to text where there are none: pocketsphinx, or faster-whisper:MODEL_FOLDER."""
    batch: int = 32
    """Windows that are encoded at once."""
    device: str | None = None
    workers: int = 0
    """Processes that decode; 0 takes one per core."""
    executor: Literal["processes", "ray"] = "processes"
    """Where they run: on this machine, or on a Ray cluster (RAY_ADDRESS, or one started here)."""
    task: str | None = None
    """Do only a share of the work: 3/16 is task 3 of 16, counted from 1; the last one done joins
    them."""
    piece_minutes: float = 3.0
    """Time limit for the next few seconds of a file."""
    worker_gigabytes: float = 4.0
    """Memory that one process may ask for, used or not; its resident memory is less."""
    max_bad_fraction: float = 0.1
    """With a larger share of the files skipped, duplicates not counted, the exit code is 1."""
    retry_failed: bool = False
    """Try again what an earlier run skipped."""
    rebuild: bool = False
    """Remove what is in the index, and begin anew."""

    def __post_init__(self) -> None:
        if not self.library:
            raise ConfigError("library: found nothing, expected folders, files, lists or shards")
        least = {"batch": 1, "workers": 0, "worker_gigabytes": 0.25, "piece_minutes": 0.05}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected >= {minimum}")
        if self.every is not None and self.every < 0.05:
            raise ConfigError(f"every: found {self.every}, expected seconds, at least 0.05")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError(f"max_bad_fraction: found {self.max_bad_fraction}, expected 0 to 1")
        if self.task and Share.parse(self.task) and (self.rebuild or IndexPlace(self.out).url):
            what = "rebuild" if self.rebuild else "out in an object store"
            raise ConfigError(f"task: not with {what}; give a folder that all tasks can write")
        _ = self.choice  # checks itself

    @property
    def choice(self) -> CaptionChoice:
        """Which captions to take."""
        names = [name.strip() for name in (self.languages or "").split(",")]
        return CaptionChoice(languages=tuple(filter(None, names)), asr=self.asr)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedResult:
    """What the index holds, and what this run did.

    files, windows, hours: of the index.
    embedded: files that this run embedded; of them `new` and `changed` as they were found.
    gone: files that were dropped because they are in the library no more. moved: only their path
    has changed. duplicates: files with the bytes of another.
    other_files: suffix → how many files of folders are no videos, no audio and no captions of one.
    skipped: cause → how many; failures.jsonl names them.
    times_real_time: hours of video embedded in an hour.
    waiting: share of the time in which there was nothing to encode: decoding was the limit.
    unfinished_tasks: of a job of several; they are joined when there are none.
    problem: why the exit code is 1.
    """

    out: str
    files: int
    windows: int
    hours: float
    embedded: int
    new: int
    changed: int
    gone: int
    moved: int
    duplicates: int
    other_files: Mapping[str, int]
    skipped: Mapping[str, int]
    seconds: float
    times_real_time: float
    waiting: float
    unfinished_tasks: Sequence[str] = ()
    problem: str | None = None

    def shown(self) -> dict[str, Any]:
        """For people: without what there is none of."""
        given = {name: getattr(self, name) for name in self.__dataclass_fields__}
        often = ("files", "windows", "embedded")
        return {
            name: value
            for name, value in given.items()
            if name in often or (name != "problem" and value not in ((), {}, [], 0))
        }


def run(config: EmbedConfig) -> EmbedResult:
    """Embed what the index lacks, drop what is gone.

    Raises:
        ConfigError: the index is of another model, or has other windows.
        CheckpointError: there is no model.
        DataError: there is nothing to embed, or another process writes the index.
        MissingExtraError: LanceDB is not installed.
    """
    started = time.monotonic()
    encoder = open_encoder(config.model, config.encoder, config.device)
    place = IndexPlace(config.out)
    hears = "audio" in getattr(encoder.encoder, "has", {"audio"})
    library = find_library(config.library, leave_out=place.folder, audio=hears)
    if config.task is not None:
        return _run_task(config, encoder, place, library, started)
    with index_writer(place, _manifest(config, encoder), rebuild=config.rebuild) as writer:
        changes = _up_to_date(writer, library, config)
        done = _embed(config, encoder, writer, changes.todo, _failed(place))
    skipped = _save_failures(place, library, changes, done)
    return _result(config, writer.manifest, library, changes, done, skipped, started)


def _manifest(config: EmbedConfig, encoder: OpenedEncoder) -> Manifest:
    clip_s = encoder.spec.duration_s
    is_folder = config.model is not None and not is_hub_name(config.model)
    return Manifest(
        model=str(Path(encoder.name).absolute()) if is_folder else encoder.name,
        model_hash=encoder.hash,
        clip_s=clip_s,
        every_s=config.every or clip_s / 2,
        dims=dims_of(encoder),
    )


def _up_to_date(writer: IndexWriter, library: FoundLibrary, config: EmbedConfig) -> Changes:
    """Drop and describe files of an index as the library is now; what is left to embed."""
    changes = compare(library, writer.files, config.library)
    writer.drop(changes.drop)
    writer.describe(changes.describe)
    return changes


def _embed(
    config: EmbedConfig,
    encoder: OpenedEncoder,
    writer: IndexWriter,
    files: Sequence[LibraryFile],
    before: Mapping[str, tuple[Skipped, tuple[int, int, str]]],
) -> Embedded:
    """Embed files, but for those that failed `before` and are as they were then."""
    failed = {} if config.retry_failed or config.rebuild else before
    known = {
        one.path: failed[one.path]
        for one in files
        if failed.get(one.path, (None, None))[1] == _as(one)
    }
    dims = writer.manifest.dims
    how = Embedding(
        encoder=encoder,
        reading=Reading(
            spec=encoder.spec,
            path=encoder.frame_path,
            every_s=writer.manifest.every_s,
            captions=config.choice,
            has_video="vt" in dims or "va" in dims,
            has_audio="audio_va" in dims,
        ),
        batch=config.batch,
        workers=config.workers,
        limits=Limits(seconds=config.piece_minutes * 60, gigabytes=config.worker_gigabytes),
        executor=config.executor,
    )
    hours = sum(one.duration_s for one in writer.files.values()) / 3600
    done = embed_files([one for one in files if one.path not in known], writer, how, hours)
    return replace(done, skipped=[*done.skipped, *(one for one, _ in known.values())])


def _as(file: LibraryFile) -> tuple[int, int, str]:
    return file.size, file.mtime_ns, file.state


def _failed(place: IndexPlace) -> dict[str, tuple[Skipped, tuple[int, int, str]]]:
    """What earlier runs skipped: path → why, and what the file was."""
    found = {}
    for line in (place.read(FAILURES) or "").splitlines():
        values = json.loads(line)
        one = Skipped(**{name: values[name] for name in ("source", "cause", "reason")})
        if one.cause != DUPLICATE:
            found[one.source] = one, (values["size"], values["mtime_ns"], values["state"])
    return found


def _save_failures(
    place: IndexPlace, library: FoundLibrary, changes: Changes, done: Embedded
) -> list[Skipped]:
    by_path = {one.path: one for one in library.files}
    skipped = [*library.skipped, *changes.repeats, *done.skipped]
    skipped.sort(key=lambda one: one.source)
    place.write(FAILURES, failures_text([(one, by_path.get(one.source)) for one in skipped]))
    return skipped


def _result(
    config: EmbedConfig,
    manifest: Manifest,
    library: FoundLibrary,
    changes: Changes,
    done: Embedded,
    skipped: Sequence[Skipped],
    started: float,
    unfinished: Sequence[str] = (),
) -> EmbedResult:
    seconds = time.monotonic() - started
    failed = {one.source for one in done.skipped}
    embedded = [one.path for one in changes.todo if one.path not in failed]
    changed = sum(one in changes.changed for one in embedded)
    causes = Counter(one.cause for one in skipped)
    duplicates = causes.pop(DUPLICATE, 0)
    return EmbedResult(
        out=config.out,
        files=manifest.files,
        windows=manifest.windows,
        hours=manifest.hours,
        embedded=done.files,
        new=len(embedded) - changed,
        changed=changed,
        gone=changes.gone,
        moved=changes.moved,
        duplicates=duplicates,
        other_files=library.other_files,
        skipped=dict(sorted(causes.items())),
        seconds=seconds,
        times_real_time=done.seconds / seconds,
        waiting=done.waiting_s / seconds,
        unfinished_tasks=unfinished,
        problem=None
        if unfinished
        else too_many_skipped(
            [one for one in skipped if one.cause != DUPLICATE],
            stored=manifest.files,
            most=config.max_bad_fraction,
            what="files were skipped",
            folder=str(IndexPlace(config.out)),
        ),
    )


# ── several tasks ────────────────────────────────────────────────────────────────────────────────


def _run_task(
    config: EmbedConfig,
    encoder: OpenedEncoder,
    place: IndexPlace,
    library: FoundLibrary,
    started: float,
) -> EmbedResult:
    """Embed a share of the files into an index of its own; the last task joins all of them."""
    assert config.task is not None
    assert place.folder is not None
    share, manifest = Share.parse(config.task), _manifest(config, encoder)
    tasks = place.folder / _TASKS
    others = [Share(n, share.of) for n in range(1, share.of + 1)]
    own = IndexPlace(tasks / str(share))
    indexed = {one.file_id: one for one in _files_of(place, manifest)}
    todo = compare(library, indexed, config.library).todo
    mine = [one for one in todo if one.number % share.of == share.number - 1]
    with index_writer(own, manifest) as writer:
        assert own.folder is not None
        (own.folder / _DONE).unlink(missing_ok=True)
        here = compare(FoundLibrary(files=mine, skipped=()), writer.files, config.library)
        writer.drop(here.drop)
        done = _embed(config, encoder, writer, here.todo, _failed(place) | _failed(own))
    _save_failures(own, replace(library, skipped=()), here, done)
    write_atomically(own.folder / _DONE, "")
    if waiting := _unfinished(tasks, others):
        manifest = writer.manifest
        return _result(config, manifest, library, here, done, done.skipped, started, waiting)
    try:
        with index_writer(place, manifest) as joined:
            changes = _up_to_date(joined, library, config)
            if _unfinished(tasks, others):  # another task has joined them by now
                found = [one for one, _ in _failed(place).values()]
            else:
                skipped = list[Skipped]()
                for each in others:
                    add_index(joined, open_index(tasks / str(each)))
                    skipped += [one for one, _ in _failed(IndexPlace(tasks / str(each))).values()]
                found = _save_failures(place, library, changes, replace(done, skipped=skipped))
                shutil.rmtree(tasks)
    except BusyError:
        logger.info("%s: another task joins them", place)
        return _result(config, writer.manifest, library, here, done, done.skipped, started)
    changes = replace(changes, todo=here.todo)  # of this task
    return _result(config, joined.manifest, library, changes, done, found, started)


def _unfinished(tasks: Path, shares: Sequence[Share]) -> list[str]:
    return [str(one) for one in shares if not (tasks / str(one) / _DONE).exists()]


def _files_of(place: IndexPlace, manifest: Manifest) -> Sequence[FileEntry]:
    """The files of an index, if there is one; it must be of the same model and windows."""
    before = place.manifest()
    if before is None:
        return ()
    if (before.model_hash, before.every_s) != (manifest.model_hash, manifest.every_s):
        raise DataError(
            f"{place}: is of model {before.model_hash} with a window every {before.every_s:g} s, "
            f"found {manifest.model_hash} and {manifest.every_s:g} s; give another --out"
        )
    return open_index(str(place)).files()
