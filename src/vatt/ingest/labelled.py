"""Labelled files: found in a folder with a sub-folder for each class, or in a table; prepared."""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vatt.errors import DataError
from vatt.ingest.item import Making
from vatt.ingest.manifest import SPLITS, ManifestEntry, read_label_table
from vatt.ingest.run import IngestPlan, ingest
from vatt.ingest.sources import TABLE_SUFFIXES, Found, Item, Skipped, too_many_skipped
from vatt.media.container import AUDIO_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES
from vatt.media.stored_form import StoredForm
from vatt.shards.layout import FAILURES_FILE
from vatt.workers.process import Limits

_logger = logging.getLogger(__name__)

SUFFIXES = {  # of files that can be videos, audio or images
    "video": VIDEO_SUFFIXES,
    "audio": AUDIO_SUFFIXES | VIDEO_SUFFIXES,
    "image": IMAGE_SUFFIXES,
}
_SHARD_MEGABYTES, _PART_S = 256, 3600.0
_FOREVER_S = 86_400.0  # longer than any video


def find_labelled(
    source: Path,
    column: str,
    *,
    separator: str | None = None,
    suffixes: Collection[str],
    shares: Mapping[str, float],
    leave_out: Path,
) -> Found:
    """All labelled files of a source, each with its labels and a split.

    Where the source gives no splits, each class gives its share to each of `shares`, by a hash of
    the names: at least one file where it has as many to give, and at least one stays for training.

    Args:
        source: a folder, or a table (see `read_label_table`). The sub-folders of a folder are the
            classes; if all are named like splits, those of each of these are.
        column: what the labels are called in the records, and in the table.
        separator: between several labels in a row of the table.
        suffixes: of the files that are wanted of a folder; others are counted.
        shares: split → share of each class.
        leave_out: a folder that is not searched.

    Raises:
        DataError: the source cannot be read, or names no class.
    """
    skipped, others = list[Skipped](), Counter[str]()
    if source.is_dir():
        items = list(_in_folders(source, column, leave_out, suffixes, others))
    elif source.suffix.lower() in TABLE_SUFFIXES and source.is_file():
        items = []
        for file, entry in read_label_table(source, column, separator).items():
            name, path = os.path.normpath(file).lstrip("/"), (source.parent / file).absolute()
            if path.is_file():
                items.append(Item(path=path, name=name, split=entry.split or "", entry=entry))
            else:
                reason = f"{source}: lists {file!r}, which is absent"
                skipped.append(Skipped(source=name, cause="not found", reason=reason))
    else:
        raise DataError(
            f"{source}: found neither a folder nor a table; expected a folder with a sub-folder "
            f"for each class, or a table ({' '.join(TABLE_SUFFIXES)}) with the columns file and "
            f"{column}"
        )
    if not items and not skipped:
        raise DataError(
            f"{source}: found no labelled file (others: {dict(others)}); expected a sub-folder for "
            f"each class, with files in it that end in {' '.join(sorted(suffixes))}"
        )
    items.sort(key=lambda item: os.fsencode(item.name))
    if not any(item.split for item in items):
        items = _with_splits(items, column, shares)
    items = [replace(item, split=item.split or "train") for item in items]
    return Found(items=items, skipped=skipped, other_files=dict(sorted(others.items())))


def store_labelled(
    found: Found, out: Path, form: StoredForm, *, column: str, lone_audio: bool, workers: int
) -> dict[str, int]:
    """Prepare labelled files as `vatt prepare` does, as far as that is not done.

    Args:
        found: the files.
        out: where the shards go.
        form: in which they are stored.
        column: what their labels are called.
        lone_audio: store audio files too.
        workers: processes; 0 takes one per core.

    Returns:
        Cause → how many were skipped; the log names the first, and classes that have none left.
    """
    settings = {
        "command": "finetune", "label": column, "fps": float(form.fps or 0),
        "short_side": form.short_side, "gop": form.gop, "shard_megabytes": _SHARD_MEGABYTES,
    }  # fmt: skip
    plan = IngestPlan(
        found=found,
        out=out,
        making=Making(form=form, part_s=_PART_S, lone_audio=lone_audio),
        settings=settings,
        free_settings=(),
        shard_bytes=_SHARD_MEGABYTES * 1_000_000,
        executor="processes",
        workers=workers,
        limits=Limits(),
    )
    if found.other_files:
        _logger.info("files of other kinds, not taken: %s", found.other_files)
    outcome = ingest(plan)
    lost = {one.source for one in outcome.skipped}
    stored = [item for item in found.items if item.name not in lost]
    for name in sorted(_classes(found.items, column) - _classes(stored, column)):
        _logger.warning("class %r: none of its files could be prepared; it is left out", name)
    number, what = len(outcome.table), "files were skipped"
    problem = too_many_skipped(outcome.skipped, stored=number, most=0.0, what=what, folder=out)
    if problem is not None:
        _logger.warning("%s", problem.partition(", expected at most")[0])
        _logger.warning("each with its reason: %s", out / FAILURES_FILE)
    return dict(Counter(one.cause for one in outcome.skipped))


def _classes(items: Sequence[Item], column: str) -> set[str]:
    entries = [item.entry for item in items if item.entry is not None]
    return {str(label.get(column, "")) for entry in entries for label in entry.labels}


def _in_folders(
    root: Path, column: str, leave_out: Path, suffixes: Collection[str], others: Counter[str]
) -> Iterator[Item]:
    def folders(parent: Path) -> list[Path]:
        found = [path for path in parent.iterdir() if path.is_dir() and path.name[0] != "."]
        return sorted(path for path in found if path.resolve() != leave_out.resolve())

    top = folders(root)
    are_splits = bool(top) and all(path.name.casefold() in SPLITS for path in top)
    classes = [one for split in top for one in folders(split)] if are_splits else top
    others.update(path.suffix.lower() or "(none)" for path in root.iterdir() if path.is_file())
    for folder in classes:
        split = SPLITS[folder.parent.name.casefold()] if are_splits else ""
        for path in sorted(folder.rglob("*")):
            if not path.is_file() or leave_out.resolve() in path.resolve().parents:
                continue
            if path.suffix.lower() not in suffixes or path.name.startswith("."):
                others[path.suffix.lower() or "(none)"] += 1
                continue
            label = {"start_s": 0.0, "end_s": _FOREVER_S, column: folder.name}
            yield Item(
                path=path.absolute(),
                name=path.relative_to(root).as_posix(),
                split=split,
                entry=ManifestEntry(split=split or None, labels=[label]),
            )


def _with_splits(items: Sequence[Item], column: str, shares: Mapping[str, float]) -> list[Item]:
    """Each class's files are shared out in an order that is a function of their names."""
    of_class = defaultdict[str, list[Item]](list)
    for item in items:
        assert item.entry is not None
        of_class[str(item.entry.labels[0].get(column, ""))].append(item)
    split = dict[str, str]()
    for files in of_class.values():
        left = sorted(files, key=lambda item: item.digest)
        for name, share in shares.items():
            number = max(1, round(share * len(files))) if share > 0 else 0
            for item in left[: min(number, len(left) - 1)]:
                split[item.name] = name
            left = left[min(number, len(left) - 1) :]
    return [replace(item, split=split.get(item.name, "train")) for item in items]
