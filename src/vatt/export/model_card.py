"""The model card of a run: data, protocol, numbers and limits, made from what the run measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vatt.config import read_toml
from vatt.evaluation.results import file_hash, read_result
from vatt.models.classifier import ClassifierConfig
from vatt.models.weights import WEIGHTS, read_settings
from vatt.shards.layout import DATASET_FILE

OURS = "<!-- made by vatt push; delete this line to keep your own changes -->"
TASKS = ("zero-shot", "linear-eval", "evaluate")
CHANCE = "chance_"
MEASURES = (
    "R@", "MedR", "top", "balanced", "mAP", "mean_ap", "mean_auc", "AUC", "d_prime", "mean_of_d",
    "accuracy", "lrc", "svm", "knn",
)  # fmt: skip
LEGENDS = {
    "R@": "R@k is the share of queries, in per cent, whose answer is among the k best; MedR the "
    "median rank of the answer.",
    "lrc": "lrc, svm and knn are accuracies of a low-rank classifier, a linear SVM and nearest "
    "neighbours on the frozen features.",
    "top1": "top1 and top5 are the shares of examples whose class is the likeliest, or among the "
    "five likeliest; balanced is the mean of the shares of each class.",
    "mean_ap": "mean_ap and mean_auc are means over the classes of the average precision and of "
    "the area under the ROC curve; d′ is √2 Φ⁻¹ of that area.",
    "chance": "Accuracies are shares of 1. Chance is what guessing gives; the last column is the "
    "number of examples.",
}
MOST_NAMES = 20


def model_card(model: Path, run: Path | None, *, name: str) -> str:
    """Markdown for a hub, with the header that hubs read.

    Args:
        model: the model folder.
        run: the run folder that it stands in, if it does; what it measured is in its results/.
        name: of the model, as the card calls it.
    """
    settings, clip, extra = read_settings(model)
    is_classifier = isinstance(settings, ClassifierConfig)
    measured = _measured(run) if run else {}
    lines = [
        "---",
        "library_name: vatt",
        f"pipeline_tag: {_pipeline(settings)}",
        "tags: [video, audio, text, self-supervised]",
        "---",
        OURS,
        f"# {name.partition('/')[2] or name}",
        "",
        _what(settings),
        "",
        f"A clip is {clip.frames} frames of {clip.height} × {clip.width} at {clip.fps:g} a second, "
        f"{clip.duration_s:.3g} s, with its audio at {clip.sample_rate_hz:,} Hz"
        + ("." if is_classifier else f"; a text has at most {clip.words} words."),
        "",
        "```python",
        'import vatt  # pip install "vatt[hub]"',
        "",
        *_use(name, settings),
        "```",
        "",
        "## Data",
        "",
        *_data(run, extra),
        "",
        "## Numbers",
        "",
        *_numbers(measured, file_hash(model / WEIGHTS), is_classifier=is_classifier),
        "",
        "## Limits",
        "",
        *_limits(measured, settings),
        "",
    ]
    return "\n".join(lines)


def _measured(run: Path) -> dict[str, Mapping[str, Any]]:
    """All that was measured of the model: name of the result file → the result."""
    names = {one.stem for task in TASKS for one in (run / "results").glob(f"{task}*.json")}
    results = {name: read_result(run, name) for name in sorted(names, reverse=True)}
    return {name: result for name, result in results.items() if result}


def _pipeline(settings: Any) -> str:
    if not isinstance(settings, ClassifierConfig):
        return "feature-extraction"
    return f"{settings.modality}-classification"


def _use(name: str, settings: Any) -> Iterator[str]:
    if isinstance(settings, ClassifierConfig):
        yield f'model = vatt.load_classifier("hf://{name}")'
        yield f'print(model.predict(["{"a.wav" if settings.modality == "audio" else "a.mp4"}"]))'
        return
    yield f'model = vatt.load("hf://{name}")'
    yield 'videos = model.encode_video(["a.mp4", "b.mp4"])'
    yield 'print(model.encode_text(["what is to be seen"]).vt @ videos.vt.T)  # cosines'
    yield 'print(model.encode_audio(["a.wav"]).va @ videos.va.T)'


def _what(settings: Any) -> str:
    if isinstance(settings, ClassifierConfig):
        names = ", ".join(settings.names[:MOST_NAMES])
        more = len(settings.names) - MOST_NAMES
        names += f" and {more:,} more, in `config.json`" if more > 0 else ""
        return (
            f"A classifier of {settings.modality} with {settings.classes:,} classes (VATT, §4.2)"
            + (f": {names}." if names else ".")
        )
    sizes = (
        ("video", settings.video.transformer),
        ("audio", settings.audio.transformer),
        ("text", settings.text.transformer),
    )
    backbones = "; ".join(
        f"{name}: {one.layers} layers of width {one.width}" for name, one in sizes
    )
    return (
        "VATT: video, audio and text in common spaces, learned without labels. Backbones: "
        f"{backbones}. Common spaces: {settings.heads.va} numbers for video and audio, "
        f"{settings.heads.vt} for video and text."
    )


def _data(run: Path | None, extra: Mapping[str, Any]) -> Iterator[str]:
    file = run / "config.toml" if run else None
    if file is None or not file.is_file():
        source = extra.get("source")
        yield (
            f"Made from: {source}." if source else "This folder does not say what it learned from."
        )
        return
    config = read_toml(file)
    data, train = config.get("data", {}), config.get("train", {})
    split = data.get("split", "train")
    for folder in map(Path, data.get("shards", ())):
        yield f"Trained on the split `{split}` of `{folder.name}`{_holds(folder, split)}."
    if (start := config.get("start_from", "none")) != "none":
        yield f"Its weights began as those of `{Path(start).name}`."
    steps = train.get("steps") or config.get("optim", {}).get("steps")
    if steps and data.get("batch_size"):
        yield f"{steps:,} steps of {data['batch_size']:,} clips."


def _holds(shards: Path, split: str) -> str:
    """What a split has, as its folder says, if that is still there."""
    try:
        found = json.loads((shards / DATASET_FILE).read_text("utf-8"))["splits"][split]
        return (
            f": {found['videos']:,} videos, {found['hours']:.1f} hours, {found['with_audio']:,} "
            f"videos with audio, {found['captions']:,} captions"
        )
    except (OSError, ValueError, KeyError):
        return ""


def _numbers(
    measured: Mapping[str, Mapping[str, Any]], own_hash: str, *, is_classifier: bool
) -> Iterator[str]:
    if not measured:
        task = "evaluate" if is_classifier else "zero-shot"
        yield f"Nothing was measured: run `vatt {task}`, then push again."
        return
    lines = list[str]()
    for task, result in measured.items():
        split = result.get("split") or ", ".join(result.get("splits", ()))
        of = result.get("model_hash")
        lines += [
            "",
            f"### {task}: protocol `{result.get('protocol', task)}`, split {split or 'as listed'}, "
            f"seed {result.get('seed', 0)}, model {of}"
            + ("" if of == own_hash else " (**not these weights**)"),
            "",
            *_table(result),
        ]
    yield " ".join(said for sign, said in LEGENDS.items() if any(sign in one for one in lines))
    yield from lines


def _table(result: Mapping[str, Any]) -> Iterator[str]:
    """A row for each measure of a result file: its plain numbers, chance beside them."""
    yield "| measure | value | chance | of |"
    yield "|---|---|---|---|"
    for name, measure in result.items():
        if not isinstance(measure, Mapping):
            continue
        if {"n", "n_test"} & measure.keys():
            yield from _rows(name, measure)
        elif name == "measures":  # of a classifier
            chance = {"chance_top1": 1 / result["classes"]} if "top1" in measure else {}
            about = {"n": result["n_evaluated"], **chance}
            yield from _rows(result["label"], {**measure, **about})
        elif {"mean", "splits"} <= measure.keys():  # of several splits or folds
            about = {
                "n": sum(one["n_test"] for one in measure["splits"].values()),
                "chance": 1 / measure["classes"],
            }
            for kind, numbers in measure["mean"].items():
                yield from _rows(f"{name} {kind}", {**numbers, **about})


def _rows(name: str, measure: Mapping[str, Any]) -> Iterator[str]:
    number = measure.get("n", measure.get("n_test"))
    found = measure.get("pretrained", measure)
    for key, value in (found if isinstance(found, Mapping) else {"accuracy": found}).items():
        if key.startswith(MEASURES) and isinstance(value, int | float):
            chance = measure.get(f"{CHANCE}{key}", measure.get("chance"))
            shown = "" if chance is None else f"{chance:.3g}"
            yield f"| {name} {key} | {value:.3g} | {shown} | {number} |"


def _limits(measured: Mapping[str, Mapping[str, Any]], settings: Any) -> Iterator[str]:
    if any(result.get("on_training_videos") for result in measured.values()):
        yield "- **Measured on videos that it was trained on.** Do not quote these numbers."
    retrieval = (measured.get("zero-shot") or {}).get("text_to_video", {})
    if retrieval:
        yield (
            f"- Text → video: the right clip is among the ten best of {retrieval['n']} for "
            f"{retrieval['R@10']:.0f} of 100 texts."
        )
        if retrieval.get("unknown_words"):
            share = retrieval["unknown_words"]
            yield f"- {share:.0%} of the words of the test texts are not in its vocabulary."
    if not isinstance(settings, ClassifierConfig):
        yield "- Words that its vocabulary lacks are all the same to it; `encode_text` counts them."
        yield "- Similarities are no probabilities: they compare only within one query."
    elif not settings.several:
        yield "- It always names one of its classes, also where there is none of them."
    yield "- It has learned what its data shows, with the faults of that data."
