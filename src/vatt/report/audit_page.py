"""The page of `vatt audit`: what was checked, what was found, pictures of the worst."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from vatt.audit.findings import KINDS, Finding
from vatt.report import page

_LISTED = 50  # findings of one kind in words; audit.json has all


def audit_page(
    folders: Sequence[str],
    checked: Mapping[str, Mapping[str, int]],
    totals: Mapping[str, float],
    findings: Sequence[Finding],
    films: Mapping[tuple[str, str], NDArray[np.uint8]],
    *,
    most: int,
) -> str:
    """The whole page.

    Args:
        folders: what was audited.
        checked: what was looked at, of how much.
        totals: of the videos looked at.
        findings: the worst first.
        films: uint8 [n, H, W, 3] of videos, by folder and key.
        most: videos shown for each kind of finding.
    """
    parts = [*_opening(folders, checked, totals, findings)]
    for name in dict.fromkeys(one.kind for one in findings):
        parts += _chapter(name, [one for one in findings if one.kind == name], films, most)
    return page.page("What lies in these shards", parts)


def _opening(
    folders: Sequence[str],
    checked: Mapping[str, Mapping[str, int]],
    totals: Mapping[str, float],
    findings: Sequence[Finding],
) -> Iterator[str]:
    yield "<h1>What lies in these shards</h1>"
    yield page.paragraphs([", ".join(folders)], kind="lead")
    pairs = {
        f"{name} checked": f"{counts['checked']:,} of {counts['expected']:,}"
        for name, counts in checked.items()
    }
    yield page.facts(pairs | {name: f"{value:,}" for name, value in totals.items()})
    counts = Counter(one.kind for one in findings)
    if not counts:
        yield page.paragraphs(["Nothing was found."])
        return
    lines = [
        (name, [KINDS[name].severity, f"{count:,}", KINDS[name].to_do])
        for name, count in counts.items()
    ]
    yield page.table(["found", "severity", "how often", "what to do"], [page.Group(lines)])


def _chapter(
    name: str,
    findings: Sequence[Finding],
    films: Mapping[tuple[str, str], NDArray[np.uint8]],
    most: int,
) -> Iterator[str]:
    kind = KINDS[name]
    yield f"<h2>{escape(name.capitalize())}</h2>"
    yield page.paragraphs([f"{kind.severity.capitalize()}: {kind.means}.", f"{kind.to_do}."])
    for one in findings[:most]:
        strips = [
            page.Strip(frames=films[place], head=place[1], words=place[0], mark="other")
            for place in ((one.folder, one.key), *one.others)
            if place in films
        ]
        if strips:
            yield page.query(one.key, one.detail, strips)
    yield page.bullets(_words(one) for one in findings[:_LISTED])
    if len(findings) > _LISTED:
        yield page.paragraphs([f"… and {len(findings) - _LISTED:,} more: audit.json has all."])


def _words(one: Finding) -> str:
    where = " / ".join(part for part in (one.folder, one.shard, one.key) if part)
    return f"{where}: {one.detail}" if one.detail and where else where or one.detail
