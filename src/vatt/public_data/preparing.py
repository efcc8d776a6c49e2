"""Shards of a public data set to evaluate a run on: given, its own, or prepared beside it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from vatt.config import CONFIG_FILE, NONE, read_toml
from vatt.errors import DataError
from vatt.ingest.item import Making
from vatt.ingest.run import IngestPlan, ingest
from vatt.media.stored_form import StoredForm
from vatt.public_data.catalogue import DatasetFolder
from vatt.public_data.choice import DatasetChoice, found_files, refuse_below
from vatt.public_data.listing import CAPTION, numbers, roles
from vatt.shards.layout import FAILURES_FILE
from vatt.shards.read import ShardFolder
from vatt.workers.process import Limits

logger = logging.getLogger(__name__)

_SHARD_MEGABYTES, _PART_S = 256, 3600.0


def shards_for(
    run: Path | None,
    choice: DatasetChoice,
    found: DatasetFolder,
    given: Sequence[Path],
    *,
    out: Path,
    fps: float,
    short_side: int,
) -> tuple[Path, ...]:
    """Where the data set is prepared; what is not is prepared now, in OUT/shards-NAME.

    Args:
        run: what is evaluated; None: nothing that was trained here.
        choice: the data set.
        found: its folder.
        given: shards of it that the user has.
        out: where results go.
        fps: what the clips of the model need.
        short_side: the same.

    Returns:
        Shard folders; none when they are those of the run.

    Raises:
        DataError: the shards that are given are of something else, or hold less.
    """
    trained = trained_on(run) if run is not None else DatasetChoice()
    for folder in given:
        refuse_below(ShardFolder.open(folder), choice, fps=fps, short_side=short_side)
    own = (trained.dataset, trained.dataset_split) == (choice.dataset, choice.dataset_split)
    if given or own:
        return tuple(given)
    public, number = found.dataset, choice.dataset_split
    form = StoredForm(
        short_side=max(public.short_side, short_side),
        fps=Fraction(max(public.fps, fps)).limit_denominator(1001),
        gop=16,
    )
    several = f"-{number}" if numbers(found.listing.files) else ""
    shards = out / f"shards-{public.name}{several}"
    settings = {
        "command": "evaluate", "dataset": public.name, "dataset_split": number,
        "fps": float(form.fps or 0), "short_side": form.short_side, "gop": form.gop,
        "shard_megabytes": _SHARD_MEGABYTES,
    }  # fmt: skip
    outcome = ingest(
        IngestPlan(
            found=found_files(found, number, known_only=True),
            out=shards,
            making=Making(form=form, part_s=_PART_S, lone_audio=public.kind == "audio"),
            settings=settings,
            free_settings=(),
            shard_bytes=_SHARD_MEGABYTES * 1_000_000,
            executor="processes",
            workers=0,
            limits=Limits(),
        )
    )
    if outcome.skipped:
        causes = dict(Counter(one.cause for one in outcome.skipped))
        logger.warning("%s: skipped: %s; see %s", public.name, causes, shards / FAILURES_FILE)
    return (shards,)


def trained_on(run: Path) -> DatasetChoice:
    """The data set that a run was fine-tuned on, as its config.toml says; or none."""
    path = run / CONFIG_FILE
    settings: Mapping[str, Any] = read_toml(path) if path.is_file() else {}
    name = settings.get("dataset", NONE)
    return DatasetChoice(
        dataset=None if name == NONE else name, dataset_split=settings.get("dataset_split", 1)
    )


def refuse_trained_on(run: Path, choice: DatasetChoice, found: DatasetFolder, split: str) -> None:
    """Stop where files of a split were trained on, by another number of the same data set.

    Raises:
        DataError: says how many, and the first.
    """
    trained = trained_on(run)
    if choice.allow_leak or trained.dataset != choice.dataset:
        return
    shared = [
        one.names[0]
        for one in found.listing.files
        if split in roles(one, choice.dataset_split)
        and "train" in roles(one, trained.dataset_split)
    ]
    if shared:
        raise DataError(
            f"{choice.dataset}: {len(shared)} files of {split}, split {choice.dataset_split}, were "
            f"trained on in split {trained.dataset_split} (first: {shared[0]}); evaluate with "
            f"--dataset_split {trained.dataset_split}, or --allow_leak"
        )


def split_with(found: DatasetFolder, number: int, column: str) -> str:
    """The split to judge by: test, or val where nothing is known of test.

    Raises:
        DataError: neither has such a row.
    """
    for split in ("test", "val"):
        for one in found.listing.files:
            if split in roles(one, number) and any(column in row for row in one.rows):
                return split
    raise DataError(
        f"{found.files.folder}: no {column} in test or val by the lists of {found.dataset.name}; "
        "choose a split with --split"
    )


def how_much(found: DatasetFolder, number: int, split: str) -> dict[str, Any]:
    """For result files: what is evaluated, and how many of its files are there."""
    there = [
        match is not None
        for one, match in zip(found.listing.files, found.matches, strict=True)
        if split in roles(one, number)
    ]
    return {
        "name": found.dataset.name, "split_number": number, "files_listed": len(there),
        "files_found": sum(there),
    }  # fmt: skip


def captions_listed(found: DatasetFolder, number: int, split: str) -> int:
    """How many captions the lists have of a split, also of files that are not there."""
    return sum(
        sum(CAPTION in row for row in one.rows)
        for one in found.listing.files
        if split in roles(one, number)
    )
