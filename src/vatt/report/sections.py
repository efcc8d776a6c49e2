"""Chapters of the report that need numbers only: results and the training log → HTML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vatt.evaluation.features import PRETRAINED, RANDOM_INIT, STILL_FRAME
from vatt.report import page
from vatt.report.figures import Curve, curves
from vatt.report.page import Group

RETRIEVALS = {
    "text_to_video": "text → video",
    "audio_to_video": "audio → video",
    "video_to_audio": "video → audio",
}
RECALLS = ("R@1", "R@5", "R@10", "MedR")
NETWORKS = {
    PRETRAINED: "",
    RANDOM_INIT: "not trained",
    STILL_FRAME: "trained, one still frame",
}
CLASSIFIERS = {"svm": "linear SVM", "lrc": "low-rank", "knn": "neighbours"}


def retrieval(result: Mapping[str, Any]) -> Iterator[str]:
    """What `vatt zero-shot` found about retrieval."""
    found = {name: result[name] for name in RETRIEVALS if name in result}
    if not found:
        return
    yield "<h3>Finding the right clip among others</h3>"
    yield page.paragraphs([_pools(found)])
    groups = [
        Group(list(_retrieval_lines(title, found[name])))
        for name, title in RETRIEVALS.items()
        if name in found
    ]
    yield page.table(["", *RECALLS], groups)


def _pools(found: Mapping[str, Mapping[str, Any]]) -> str:
    sizes = sorted({(numbers["n"], numbers["n_expected"]) for numbers in found.values()})
    pools = " or ".join(
        f"{n} clips" if n == expected else f"{n} clips ({expected} were asked for)"
        for n, expected in sizes
    )
    text = (
        f"One clip is right among {pools}, drawn by the seed. R@k: in how many per cent of the "
        "cases it is among the first k; MedR: its median rank; ties count as chance would have it."
    )
    if "text_to_video" in found:
        shared = found["text_to_video"]["clips_sharing_a_text"]
        text += (
            " For text, each caption is in the pool once: of the clips that share a caption "
            f"with another ({shared} of the split) one each was kept."
        )
    if "audio_to_video" in found:
        silent = found["audio_to_video"]["clips_without_sound"]
        text += f" For sound, clips that cannot be heard ({silent} of the split) were left out."
    return text


def _retrieval_lines(title: str, numbers: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    lines = {title: "", "not trained": "random_init_", "chance": "chance_"}
    if "ceiling_R@1" in numbers:
        lines["someone who knows all facts"] = "ceiling_"
    for label, prefix in lines.items():
        yield label, [f"{numbers[prefix + name]:.1f}" for name in RECALLS]


def from_text(result: Mapping[str, Any]) -> Iterator[str]:
    """What `vatt zero-shot` found about classes that are only described in words."""
    found = {name: value for name, value in result.items() if name.endswith("_from_text")}
    if not found:
        return
    yield "<h3>Naming classes from sentences alone</h3>"
    yield page.paragraphs(
        [
            "Each class is the mean embedding of a few sentences; a clip gets the nearest one. "
            "Balanced accuracy, from 0 to 1: the mean over classes of the share found."
        ]
    )
    groups = [
        Group(
            [
                (f"{name.removesuffix('_from_text')} ({v['n']:,} clips)", [f"{v[PRETRAINED]:.3f}"]),
                ("not trained", [f"{v[RANDOM_INIT]:.3f}"]),
                (f"chance, {v['classes']} classes", [f"{v['chance']:.3f}"]),
            ]
        )
        for name, v in found.items()
    ]
    yield page.table(["", "accuracy"], groups)


def linear(result: Mapping[str, Any]) -> Iterator[str]:
    """What `vatt linear-eval` found."""
    found = {
        name: value
        for name, value in result.items()
        if isinstance(value, Mapping) and PRETRAINED in value
    }
    if not found:
        return
    yield "<h3>What a linear classifier finds in frozen features</h3>"
    yield page.paragraphs(
        [
            "Fitted on training videos, settings chosen on validation videos, tested once on "
            "test videos. Balanced accuracy, from 0 to 1. The linear SVM is the headline; the "
            f"low-rank classifier of the paper was trained for {result['low_rank_steps']:,} steps "
            "(50,000 in the paper)."
        ]
    )
    groups = [Group(list(_linear_lines(name, numbers))) for name, numbers in found.items()]
    yield page.table(["", *CLASSIFIERS.values()], groups)


def _linear_lines(name: str, numbers: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    words, detail = name.replace("_", " "), f"{numbers['n_test']:,} clips"
    if "draws" in numbers:
        words, _, count = words.rpartition(" ")
        words += f", {count} labels a class"
        detail += f", mean of {numbers['draws']} draws"
    for network, label in NETWORKS.items():
        if network in numbers:
            title = label or f"{words} ({detail})"
            yield title, [f"{numbers[network][key]:.3f}" for key in CLASSIFIERS]
    yield f"always the most frequent of {numbers['classes']}", _same(numbers["majority"])


def _same(number: float) -> list[str]:
    return [f"{number:.3f}"] * len(CLASSIFIERS)


def training(lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Loss and learning rate, from the lines of metrics.jsonl."""
    if len(lines) < 2:
        return
    names = {"loss": "whole", "video_audio": "video–audio", "video_text": "video–text"}
    steps = [line["step"] for line in lines]
    losses = {title: [line[name] for line in lines] for name, title in names.items()}
    rates = {"learning rate": [line["learning_rate"] for line in lines]}
    yield "<h2>How it learned</h2>"
    yield page.figure(
        curves([Curve("loss", steps, losses), Curve("learning rate", steps, rates)]),
        "Contrastive losses of the training batches (equations 4 to 6 of the paper) and the "
        "learning rate, step by step.",
    )
