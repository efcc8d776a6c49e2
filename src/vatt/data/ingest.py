"""From files to what a shard takes: videos are found, and made ready by a pool of processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from vatt.data.manifest import ManifestEntry, read_manifest
from vatt.data.records import SampleRecord
from vatt.errors import DataError, MediaError
from vatt.media.captions import Caption, CaptionError, find_sidecars, read_captions
from vatt.media.copying import has_stored_form
from vatt.media.encode import StoredForm, encode
from vatt.media.video import MediaFacts, probe

# fmt: off
VIDEO_SUFFIXES = frozenset((
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts",
    ".flv", ".f4v", ".wmv", ".asf", ".3gp", ".3g2", ".ogv", ".mxf", ".vob", ".gif", ".nut", ".ivf",
    ".dv", ".rm", ".rmvb", ".wtv",
))
# fmt: on
_SPLIT_FOLDERS = {"val": "val", "valid": "val", "validation": "val", "test": "test"}
_AHEAD = 4  # files per worker that may wait for an earlier one to be stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A video to prepare; name is its path relative to the folder that is prepared."""

    path: Path
    name: str
    split: str
    entry: ManifestEntry | None = None  # None: the manifest does not list it

    @property
    def key(self) -> str:
        """Its name in the shards: readable, and unique because of the digits at its end."""
        words = re.sub(r"[^A-Za-z0-9_]+", "-", self.name.rpartition(".")[0] or self.name)
        digits = hashlib.blake2b(self.name.encode(), digest_size=4).hexdigest()
        return f"{words.strip('-')[:80]}-{digits}".lstrip("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A video ready to be stored; `temporary` when its file is ours to remove afterwards."""

    record: SampleRecord
    video: Path
    temporary: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A skipped video: a short cause to count by, and the full reason."""

    source: str
    cause: str
    reason: str


def find_items(sources: Sequence[Path], manifest: Path | None) -> tuple[list[Item], list[Failure]]:
    """All videos under the sources, ordered by name, with what the manifest says of them.

    A manifest names files relative to itself. The split is the manifest's, else the first folder's
    (train, val, test), else `train`.

    Returns:
        The videos; and a failure for each file that the manifest lists but that is not there.

    Raises:
        DataError: a source does not exist, holds no video, or two videos have the same name.
    """
    found = sorted(
        pair for source in sources for pair in _videos(source, prefixed=len(sources) > 1)
    )
    names = [name for name, _ in found]
    if twice := [name for name, after in pairwise(names) if name == after]:
        raise DataError(f"{twice[0]}: two of the sources hold a video of this name; rename one")
    listed = read_manifest(manifest) if manifest else {}
    entries = {(manifest.parent / file).resolve(): file for file in listed} if manifest else {}
    items = []
    for name, path in found:
        file = entries.pop(path.resolve(), None)
        entry = listed[file] if file is not None else None
        folder = _SPLIT_FOLDERS.get(name.split("/")[0].lower(), "train")
        split = (entry.split if entry else None) or folder
        items.append(Item(path=path, name=name, split=split, entry=entry))
    absent = [
        Failure(source=file, cause="not found", reason=f"{manifest}: lists {file}, which is absent")
        for file in entries.values()
    ]
    return items, absent


def _videos(source: Path, *, prefixed: bool) -> Iterator[tuple[str, Path]]:
    if source.is_file():
        yield source.name, source
        return
    if not source.is_dir():
        raise DataError(f"{source}: no such file or folder; expected videos or folders of them")
    videos = [path for path in source.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES]
    if not videos:
        raise DataError(f"{source}: holds no video; looked for {' '.join(sorted(VIDEO_SUFFIXES))}")
    for path in videos:
        relative = path.relative_to(source).as_posix()
        yield (f"{source.resolve().name}/{relative}" if prefixed else relative), path


def prepare_item(item: Item, *, form: StoredForm, copy: bool, folder: Path) -> Prepared | Failure:
    """Make one video ready: encode it into `folder`, or keep the file when it already fits.

    Args:
        item: the video.
        form: the form to store it in.
        copy: keep files that already have the form (or a smaller one) byte for byte.
        folder: where encoded files go.
    """
    cause = "unreadable"
    try:
        source_facts = probe(item.path)
        if source_facts.video is None:
            return Failure(source=item.name, cause="no picture", reason=f"{item.path}: only sound")
        cause = "damaged"
        kept = copy and has_stored_form(item.path, source_facts, form)
        video = item.path if kept else folder / f"{item.key}.mp4"
        if not kept:
            encode(item.path, video, form)
        facts = source_facts if kept else probe(video)
    except MediaError as error:
        return Failure(source=item.name, cause=cause, reason=str(error))
    record = _record(item, facts, source_facts)
    return Prepared(record=record, video=video, temporary=not kept)


def _record(item: Item, facts: MediaFacts, source_facts: MediaFacts) -> SampleRecord:
    captions, no_captions = _captions(item.path)
    missing = {"captions": no_captions} if no_captions else {}
    if facts.audio is None:
        silent = source_facts.audio is not None
        missing["audio"] = "nothing in the sound track" if silent else "no sound track"
    entry = item.entry or ManifestEntry()
    shift_s, end_s = source_facts.start_s, facts.duration_s  # player time → video clock
    cuts = [cut_s + shift_s for cut_s in entry.cuts]
    return SampleRecord(
        key=item.key,
        source=item.name,
        split=item.split,
        facts=facts,
        source_facts=source_facts,
        captions=tuple(_within(captions, shift_s, end_s)),
        labels=tuple(_labels_within(entry.labels, shift_s, end_s)),
        cuts=tuple(cut_s for cut_s in cuts if 0 < cut_s < end_s),
        missing=missing,
    )


def _captions(path: Path) -> tuple[list[Caption], str]:
    """The captions of the first sidecar that can be read, or why there are none."""
    reason = "no caption file beside the video"
    for sidecar in find_sidecars(path):
        try:
            captions = read_captions(sidecar)
        except CaptionError as error:
            reason = str(error)
        else:
            return captions, "" if captions else f"{sidecar.name} holds no text"
    return [], reason


def _within(captions: Iterable[Caption], shift_s: float, end_s: float) -> Iterator[Caption]:
    for caption in captions:
        start, end = caption.start_s + shift_s, caption.end_s + shift_s
        if end > 0 and start < end_s:
            yield replace(caption, start_s=max(start, 0.0), end_s=min(end, end_s))


def _labels_within(
    labels: Iterable[Mapping[str, Any]], shift_s: float, end_s: float
) -> Iterator[Mapping[str, Any]]:
    for label in labels:
        start, end = label["start_s"] + shift_s, label["end_s"] + shift_s
        if end > 0 and start < end_s:
            yield {**label, "start_s": max(start, 0.0), "end_s": min(end, end_s)}


def outcomes(
    items: Sequence[Item], job: Callable[[Item], Prepared | Failure], *, workers: int
) -> Iterator[Prepared | Failure]:
    """What `job` makes of each item, in order, computed by a pool of processes.

    A process that dies (a decoder that crashes, too little memory) costs one item: the pool is
    started again, and the item that was waited for runs alone; if it dies again, it has failed.
    """
    rest = list(items)
    while rest:
        finished = 0
        try:
            for outcome in _pooled(rest, job, workers):
                finished += 1
                yield outcome
        except BrokenProcessPool:
            yield _alone(rest[finished], job)
            finished += 1
        rest = rest[finished:]


def _pooled(
    items: Iterable[Item], job: Callable[[Item], Prepared | Failure], workers: int
) -> Iterator[Prepared | Failure]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        waiting = deque[Any]()
        try:
            for item in items:
                waiting.append(pool.submit(job, item))
                if len(waiting) >= _AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _alone(item: Item, job: Callable[[Item], Prepared | Failure]) -> Prepared | Failure:
    try:
        return next(_pooled([item], job, workers=1))
    except BrokenProcessPool:
        reason = f"{item.path}: the process that decoded it died"
        return Failure(source=item.name, cause="crashed the decoder", reason=reason)


def _start_worker() -> None:
    """End silently on Ctrl-C, and when the parent is gone (also when it was killed)."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
