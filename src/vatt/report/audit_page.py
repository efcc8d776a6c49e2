"""The page of `vatt audit`: what was checked, what was found, frames of the worst videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vatt.audit.findings import KINDS, Finding
from vatt.report.page import Example, Strip, render

_LISTED = 50  # findings of one kind in words; audit.json has all


def audit_page(
    folders: Sequence[str],
    checked: Mapping[str, Mapping[str, int]],
    totals: Mapping[str, float],
    findings: Sequence[Finding],
    thumbnails: Mapping[tuple[str, str], NDArray[np.uint8]],
    *,
    most: int,
) -> str:
    """The whole page.

    Args:
        folders: what was audited.
        checked: how much of what there is was checked.
        totals: of the videos checked.
        findings: the worst first.
        thumbnails: uint8 [n, H, W, 3] of videos, by folder and key.
        most: videos shown for each kind of finding.
    """
    by_kind: dict[str, list[Finding]] = {}
    for finding in findings:
        by_kind.setdefault(finding.kind, []).append(finding)
    chapters = []
    for name, found in by_kind.items():
        examples, texts = [], []
        for one in found[:most]:
            strips = [
                Strip(frames=thumbnails[folder, key], head=key, words=folder)
                for folder, key in ((one.folder, one.key), *one.others)
                if (folder, key) in thumbnails
            ]
            if strips:
                examples.append(Example(one.key, one.detail, strips))
        for one in found[:_LISTED]:
            where = " / ".join(part for part in (one.folder, one.shard, one.key) if part)
            texts.append(": ".join(part for part in (where, one.detail) if part))
        chapters.append(
            {
                "name": name,
                "kind": KINDS[name],
                "count": len(found),
                "examples": examples,
                "findings": texts,
            }
        )
    counts = {
        f"{name} checked": f"{number['checked']:,} of {number['expected']:,}"
        for name, number in checked.items()
    }
    return render(
        "audit.html",
        title="What is in these shards",
        folders=folders,
        totals=counts | {name: f"{value:,}" for name, value in totals.items()},
        chapters=chapters,
    )
