"""Labelled files: found in a folder with a sub-folder for each class, or in a table; prepared."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vatt.errors import DataError
from vatt.ingest.item import Making
from vatt.ingest.manifest import SPLITS, ManifestEntry, read_label_table
from vatt.ingest.run import IngestPlan, ingest
from vatt.ingest.sources import (
    DUPLICATE,
    TABLE_SUFFIXES,
    Found,
    Item,
    Skipped,
    printable,
    too_many_skipped,
)
from vatt.media.container import AUDIO_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES
from vatt.media.stored_form import StoredForm
from vatt.shards.layout import FAILURES_FILE, INDEX_FILE
from vatt.workers.process import Limits

_logger = logging.getLogger(__name__)

SUFFIXES = {  # of files that can be videos, audio or images
    "video": VIDEO_SUFFIXES,
    "audio": AUDIO_SUFFIXES | VIDEO_SUFFIXES,
    "image": IMAGE_SUFFIXES,
}
_SHARD_MEGABYTES = 32  # what an interruption can lose
_PART_S = 6 * 3600.0  # a labelled file is one example: it is cut only where a shard would burst
_FOREVER_S = 86_400.0  # longer than any video
_NAMED = 20  # classes that a message names


def find_labelled(
    source: Path,
    column: str,
    *,
    separator: str | None = None,
    suffixes: Collection[str],
    leave_out: Path,
) -> Found:
    """All labelled files of a source, each with its labels; no splits where it gives none.

    Args:
        source: a folder, or a table (see `read_label_table`). The sub-folders of a folder are the
            classes; if all are named like splits, those of each of these are.
        column: what the labels are called in the records, and in the table.
        separator: between several labels in a row of the table.
        suffixes: of the files that are wanted of a folder; others are counted.
        leave_out: a folder that is not searched.

    Raises:
        DataError: the source cannot be read, or names no class.
    """
    skipped, others = list[Skipped](), Counter[str]()
    if source.is_dir():
        items = list(_in_folders(source, column, leave_out, suffixes, others, skipped))
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
    if any(item.split for item in items):
        items = [replace(item, split=item.split or "train") for item in items]
    return Found(items=items, skipped=skipped, other_files=dict(sorted(others.items())))


def store_labelled(
    found: Found,
    out: Path,
    form: StoredForm,
    *,
    column: str,
    shares: Mapping[str, float],
    for_audio: bool,
    workers: int,
) -> dict[str, int]:
    """Prepare labelled files as `vatt prepare` does, as far as that is not done.

    Where they have no splits, each class gives its share to each of `shares`, by a hash of the
    names: at least one file where it has as many to give, and at least one stays for training.
    Only files count that can be used. Which these are is known once all are prepared: then a few
    get another split, and are prepared again.

    Args:
        found: the files.
        out: where the shards go.
        form: in which they are stored.
        column: what their labels are called.
        shares: split → share of each class.
        for_audio: audio files are stored too, and what has no audio is of no use.
        workers: processes; 0 takes one per core.

    Returns:
        Cause → how many are of no use; the log names the first, and what classes lack.
    """
    settings = {
        "command": "finetune", "label": column, "fps": float(form.fps or 0),
        "short_side": form.short_side, "gop": form.gop, "shard_megabytes": _SHARD_MEGABYTES,
    }  # fmt: skip
    plan = IngestPlan(
        found=found,
        out=out,
        making=Making(form=form, part_s=_PART_S, lone_audio=for_audio),
        settings=settings,
        free_settings=("shard_megabytes",),
        shard_bytes=_SHARD_MEGABYTES * 1_000_000,
        executor="processes",
        workers=workers,
        limits=Limits(),
    )
    if found.other_files:
        _logger.info("files that are hidden, of other kinds or of no class: %s", found.other_files)
    lost, before = _lost_before(out, for_audio), None
    while lost != before:
        items = with_splits(found.items, column, shares, lost)
        outcome = ingest(replace(plan, found=replace(found, items=items)))
        lost, before = _lost(outcome.table, outcome.skipped, for_audio), lost
    _say_what_classes_lack(items, lost, column, shares)
    number, what = len(outcome.table), "files were skipped"
    problem = too_many_skipped(outcome.skipped, stored=number, most=0.0, what=what, folder=out)
    if problem is not None:
        _logger.warning("%s", problem.partition(", expected at most")[0])
        _logger.warning("each with its reason: %s", out / FAILURES_FILE)
    _say_what_is_in_two_classes(items, outcome.skipped, column)
    counts = Counter(one.cause for one in outcome.skipped)
    if mute := sorted(lost - {one.source for one in outcome.skipped}):
        counts["no audio"] = len(mute)
        _logger.warning("%d files have no audio; first: %s", len(mute), printable(mute[0]))
    return dict(counts)


def _lost(table: pa.Table, skipped: Sequence[Skipped], for_audio: bool) -> set[str]:
    """Names of the files that are of no use."""
    lost = {one.source for one in skipped}
    if for_audio:
        lost |= set(table.filter(pc.invert(table["has_audio"]))["source"].to_pylist())
    return lost


def _lost_before(out: Path, for_audio: bool) -> set[str]:
    """The same of an earlier preparation that was completed."""
    if not (out / INDEX_FILE).is_file():
        return set()
    lines = (out / FAILURES_FILE).read_text(encoding="utf-8").splitlines()
    skipped = [Skipped(**json.loads(line)) for line in lines]
    return _lost(pq.read_table(out / INDEX_FILE), skipped, for_audio)


def _say_what_classes_lack(
    items: Sequence[Item], lost: Collection[str], column: str, shares: Mapping[str, float]
) -> None:
    """The log names classes without any file, and without one in a split."""
    count = dict[str, Counter[str]]()
    for item in items:
        for name in _classes(item, column):
            count.setdefault(name, Counter())[item.split] += item.name not in lost
    for name, parts in sorted(count.items()):
        if not parts.total():
            _logger.warning("class %r: none of its files can be used; it is left out", name)
    left = {name: parts for name, parts in sorted(count.items()) if parts.total()}
    total = sum(left.values(), Counter[str]())
    words = ", ".join(f"{total[split]} in {split}" for split in ("train", *shares))
    _logger.info("%d classes, %d files: %s", len(left), total.total(), words)
    for split in ("train", *shares):
        without = [name for name, parts in left.items() if not parts[split]]
        if without and total[split]:
            more = f" and {len(without) - _NAMED} more" if len(without) > _NAMED else ""
            _logger.warning("classes without a file in %s: %s%s", split, without[:_NAMED], more)


def _say_what_is_in_two_classes(
    items: Sequence[Item], skipped: Sequence[Skipped], column: str
) -> None:
    """The log names a file that is stored with the label of another one of the same bytes."""
    classes = {item.name: _classes(item, column) for item in items}
    pairs = [
        (one.source, one.reason.rpartition("duplicate of ")[2])
        for one in skipped
        if one.cause == DUPLICATE
    ]
    differ = [pair for pair in pairs if classes.get(pair[0]) != classes.get(pair[1])]
    if differ:
        name, first = map(printable, differ[0])
        _logger.warning(
            "%d files have the bytes of a file of another class, whose label alone is kept; first: "
            "%s is %s",
            len(differ), name, first,
        )  # fmt: skip


def _classes(item: Item, column: str) -> list[str]:
    """Each once."""
    assert item.entry is not None
    return list(dict.fromkeys(str(label.get(column, "")) for label in item.entry.labels))


def _in_folders(
    root: Path,
    column: str,
    leave_out: Path,
    suffixes: Collection[str],
    others: Counter[str],
    skipped: list[Skipped],
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
            name = path.relative_to(root).as_posix()
            if path.is_symlink() and not path.exists():
                reason = f"{path}: a link that leads nowhere"
                skipped.append(Skipped(source=name, cause="not found", reason=reason))
            if not path.is_file() or leave_out.resolve() in path.resolve().parents:
                continue
            if path.suffix.lower() not in suffixes or path.name.startswith("."):
                others[path.suffix.lower() or "(none)"] += 1
                continue
            label = {"start_s": 0.0, "end_s": _FOREVER_S, column: folder.name}
            yield Item(
                path=path.absolute(),
                name=name,
                split=split,
                entry=ManifestEntry(split=split or None, labels=[label]),
            )


def with_splits(
    items: Sequence[Item], column: str, shares: Mapping[str, float], lost: Collection[str]
) -> list[Item]:
    """The same with splits: see `store_labelled`. A function of the names, and of which are `lost`.

    What is lost has a split too, as if nothing was, so that it is not tried again for a new one.
    """
    if any(item.split for item in items):
        return list(items)
    usable = [item for item in items if item.name not in lost]
    split = _shared_out(items, column, shares) | _shared_out(usable, column, shares)
    return [replace(item, split=split[item.name]) for item in items]


def _shared_out(items: Sequence[Item], column: str, shares: Mapping[str, float]) -> dict[str, str]:
    """Name → split."""
    of_class = defaultdict[str, list[Item]](list)
    for item in items:
        of_class[_classes(item, column)[0]].append(item)
    split = {item.name: "train" for item in items}
    for files in of_class.values():
        left = sorted(files, key=lambda item: item.digest)
        for name, share in shares.items():
            number = max(1, round(share * len(files))) if share > 0 else 0
            for item in left[: min(number, len(left) - 1)]:
                split[item.name] = name
            left = left[min(number, len(left) - 1) :]
    return split
