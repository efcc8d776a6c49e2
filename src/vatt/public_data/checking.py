"""How much of a data set is there: files found, missing, unreadable, renamed, of those expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vatt.errors import MediaError
from vatt.ingest.sources import printable
from vatt.media.container import media_errors
from vatt.media.media_file import open_media
from vatt.public_data.catalogue import DatasetFolder, problems_of_lists
from vatt.public_data.listing import CAPTION, Kind, leaks_of, numbers, split_counts
from vatt.workers.pool import run_in_order
from vatt.workers.process import Limits, Lost, TimeLimit

_NAMED = 3  # files that a sentence names
_LIMIT_S = 60.0  # to open one file and decode its first frame


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitCount:
    """Files of one split: expected = found + missing; unreadable and renamed are of the found."""

    expected: int
    found: int
    missing: int
    unreadable: int
    renamed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetCheck:
    """What is there of a data set."""

    classes: tuple[str, ...] | None
    splits: Mapping[str, SplitCount]
    extra: int
    problems: Sequence[str]


def check(found: DatasetFolder, *, workers: int = 0) -> DatasetCheck:
    """Count what is there; each file found is opened, and its first frame or audio decoded."""
    bad = unreadable(found, workers=workers)
    pairs = list(zip(found.listing.files, found.matches, strict=True))
    splits, pools = dict[str, SplitCount](), list[str]()
    for split in split_counts(found.listing.files):
        here = [(one, match) for one, match in pairs if split in one.splits]
        there = [match for _, match in here if match is not None]
        splits[split] = SplitCount(
            expected=len(here),
            found=len(there),
            missing=len(here) - len(there),
            unreadable=sum(match.path in bad for match in there),
            renamed=sum(match.renamed for match in there),
        )
        captions = [(match, sum(CAPTION in row for row in one.rows)) for one, match in here]
        pool = sum(count for match, count in captions if match is not None)
        if pool and pool < (whole := sum(count for _, count in captions)):
            pools.append(
                f"{split}: captions of files that are there: {pool:,} of {whole:,}; a recall needs "
                "that number beside it"
            )
    return DatasetCheck(
        classes=found.listing.classes,
        splits=splits,
        extra=len(found.extra),
        problems=[printable(one) for one in (*_problems(found, bad), *pools)],
    )


def unreadable(found: DatasetFolder, *, workers: int) -> dict[str, str]:
    """Path → why it cannot be read, of the files that were found."""
    paths = list(dict.fromkeys(one.path for one in found.matches if one is not None))
    job = partial(_look, folder=found.files.folder, kind=found.dataset.kind)
    looks = run_in_order(job, paths, workers=workers, limits=Limits(), progress="checking")
    with closing(looks):
        outcomes = [(path, one.reason if isinstance(one, Lost) else one) for path, one in looks]
    return {path: reason for path, reason in outcomes if reason}


def _look(path: str, time_limit: TimeLimit, *, folder: Path, kind: Kind) -> str:
    """Why a file cannot be read; "" when it can."""
    time_limit.allow(_LIMIT_S)
    try:
        with open_media((folder / path).absolute(), damaged=True) as media:
            if media.has_video:
                media.video()  # its first frame
                if kind == "audio" and not media.container.streams.audio:
                    return f"{path}: holds no audio"
            elif kind != "audio":
                return f"{path}: holds only audio"
            else:
                with media_errors(media.source):
                    if next(media.container.decode(audio=0), None) is None:
                        return f"{path}: holds no sample of audio"
    except MediaError as error:
        return str(error)
    return ""


def _problems(found: DatasetFolder, bad: Mapping[str, str]) -> list[str]:
    problems = problems_of_lists(found)
    for number in numbers(found.listing.files) or [1]:
        problems += [one for one in leaks_of(found.listing, number) if one not in problems]
    pairs = list(zip(found.listing.files, found.matches, strict=True))
    absent = [one.names[0] for one, match in pairs if match is None and one.splits]
    if absent:
        archives = len(found.files.archives)
        problems.append(
            f"missing files: {len(absent):,} (first: {', '.join(absent[:_NAMED])}); get them where "
            "the data set is published, or go on without and say how many were evaluated"
            + (f"; unpack the {archives} archives below the folder first" if archives else "")
        )
    if bad:
        first = next(iter(bad.values()))
        problems.append(f"unreadable files: {len(bad):,} (first: {first}); get them again")
    renamed = [one.path for one in found.matches if one is not None and one.renamed]
    if renamed:
        problems.append(
            f"files with another name than the official one: {len(renamed):,} (first: "
            f"{renamed[0]}); they are taken"
        )
    if found.extra:
        problems.append(
            f"media that no list names: {len(found.extra):,} (first: {found.extra[0]}); they are "
            "not taken"
        )
    return problems
