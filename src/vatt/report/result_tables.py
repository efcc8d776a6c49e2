"""Tables of what is in results/: one function for each kind of measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from vatt.evaluation.features import PRETRAINED, RANDOM_INIT, STILL_FRAME
from vatt.evaluation.metrics import RETRIEVAL_MEASURES
from vatt.report.page import Row, Table

RETRIEVALS = {
    "text_to_video": "text → video",
    "audio_to_video": "audio → video",
    "video_to_audio": "video → audio",
}
CLASSIFIERS = {"svm": "linear SVM", "lrc": "low-rank", "knn": "neighbours"}


@dataclass(frozen=True, slots=True)
class RetrievalTable:
    """Recalls; pools: how many clips were searched."""

    table: Table
    pools: str


def retrieval_table(result: Mapping[str, Any]) -> RetrievalTable | None:
    """What `vatt zero-shot` measured about retrieval; None if nothing."""
    found = {title: result[name] for name, title in RETRIEVALS.items() if name in result}
    if not found:
        return None
    groups: list[list[Row]] = []
    for title, numbers in found.items():
        prefixes = {title: "", "untrained": "random_init_", "chance": "chance_"}
        if "random_init_R@1" not in numbers:  # of a peer's encoder
            del prefixes["untrained"]
        if "ceiling_R@1" in numbers:
            prefixes["ceiling"] = "ceiling_"
        groups.append(
            [
                (name, [f"{numbers[prefix + column]:.1f}" for column in RETRIEVAL_MEASURES])
                for name, prefix in prefixes.items()
            ]
        )
    sizes = sorted({(numbers["n"], numbers["n_expected"]) for numbers in found.values()})
    pools = " or ".join(
        f"{n} clips" if n == expected else f"{n} clips ({expected} were asked for)"
        for n, expected in sizes
    )
    return RetrievalTable(Table(["", *RETRIEVAL_MEASURES], groups), pools)


def from_text_table(result: Mapping[str, Any]) -> Table | None:
    """What `vatt zero-shot` measured about classes described by sentences; None if nothing."""
    groups: list[list[Row]] = [
        [
            (f"{name.removesuffix('_from_text')} ({v['n']:,} clips)", [f"{v[PRETRAINED]:.3f}"]),
            *([("untrained", [f"{v[RANDOM_INIT]:.3f}"])] if RANDOM_INIT in v else []),
            (f"chance, {v['classes']} classes", [f"{v['chance']:.3f}"]),
        ]
        for name, v in result.items()
        if name.endswith("_from_text")
    ]
    return Table(["", "accuracy"], groups) if groups else None


def linear_table(result: Mapping[str, Any]) -> Table | None:
    """What `vatt linear-eval` measured; None if nothing."""
    groups: list[list[Row]] = []
    for name, numbers in result.items():
        if not isinstance(numbers, Mapping) or PRETRAINED not in numbers:
            continue
        words, detail = name.replace("_", " "), f"{numbers['n_test']:,} clips"
        if "draws" in numbers:
            words, _, count = words.rpartition(" ")
            words += f", {count} labels a class"
            detail += f", mean of {numbers['draws']} draws"
        titles = {
            PRETRAINED: f"{words} ({detail})",
            RANDOM_INIT: "untrained",
            STILL_FRAME: "trained, one still frame",
        }
        rows: list[Row] = [
            (title, [f"{numbers[network][key]:.3f}" for key in CLASSIFIERS])
            for network, title in titles.items()
            if network in numbers
        ]
        constant = [f"{numbers['majority']:.3f}"] * len(CLASSIFIERS)
        groups.append([*rows, (f"always the most frequent of {numbers['classes']}", constant)])
    return Table(["", *CLASSIFIERS.values()], groups) if groups else None


def finetuned_table(results: Sequence[Mapping[str, Any]]) -> Table | None:
    """What `vatt evaluate` measured of classifiers; None if nothing."""
    groups: list[list[Row]] = []
    for result in results:
        measures, n, classes = result["measures"], result["n_evaluated"], result["classes"]
        count = f"{n:,}" if n == result["n_expected"] else f"{n:,} of {result['n_expected']:,}"
        numbers = {name: value for name, value in measures.items() if isinstance(value, float)}
        if "per_class" in measures:
            numbers = {"mean over classes": mean(measures["per_class"].values()), **numbers}
            numbers[f"chance, {classes} classes"] = 1 / classes
        first, *others = [(name, [f"{value:.3f}"]) for name, value in numbers.items()]
        groups.append([(f"{result['label']} ({count} clips): {first[0]}", first[1]), *others])
    return Table(["", "accuracy"], groups) if groups else None


@dataclass(frozen=True, slots=True)
class PaperComparison:
    """A table of the paper beside ours; counts: data set → n evaluated of n expected."""

    title: str
    table: Table
    counts: Mapping[str, str]
    differs: Sequence[str]


def paper_comparison(result: Mapping[str, Any] | None) -> PaperComparison | None:
    """What `vatt reproduce` filled of a table of the paper; None if nothing."""
    if result is None:
        return None
    rows: list[Row] = [
        (name, ["–" if value is None else f"{value:.4g}" for value in row.values()])
        for name, row in result["rows"].items()
    ]
    columns = next(iter(result["rows"].values()))
    return PaperComparison(
        title=f"{result['table'].replace('table', 'Table ')}: {result['title']}",
        table=Table(["", *columns], [sorted(rows, key=lambda row: row[0].startswith("VATT"))]),
        counts={
            one["dataset"]: f"{one['n_evaluated']:,} of {one['n_expected']:,} {one['units']}"
            if one["state"] == "done" else one["state"]
            for one in result["data"]
        },
        differs=[*result["differs"], *(said for one in result["data"] for said in one["differs"])],
    )  # fmt: skip
