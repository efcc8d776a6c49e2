"""`vatt report`: one self-contained HTML file about a run: what was done and what it led to."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional

from vatt.config import flatten, read_toml
from vatt.contracts import draw_bits
from vatt.devices import autocast
from vatt.errors import CheckpointError, ConfigError, DataError
from vatt.evaluation.features import PRETRAINED, SplitFeatures
from vatt.evaluation.results import read_result, versions
from vatt.evaluation.retrieval import draw_pool, similarities
from vatt.evaluation.trained_run import TrainedRun, open_run
from vatt.media.media_file import decode_frames
from vatt.report import page
from vatt.report import sections as chapters
from vatt.report.figures import Points, Similarities, densities, maps
from vatt.report.page import Mark, Strip
from vatt.storage import write_atomically

logger = logging.getLogger(__name__)

STRIP_FRAMES, STRIP_HEIGHT, TOP = 4, 90, 5
GENERAL_NOTES = (
    "Accuracies are of classifiers on frozen features; fine-tuning the whole network is another "
    "measure.",
    "One training run with one seed. Differences of a few points between such runs mean nothing.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportConfig:
    """Write report.html about a run: numbers, curves, pictures of its spaces, examples."""

    run: Positional[Path]
    """Run folder; report.html is written into it."""
    shards: tuple[Path, ...] = ()
    """Prepared folders for the examples; those of the run's config.toml when left out."""
    split: str = "test"
    title: str = "A VATT pre-training, from the outside"
    notes: tuple[str, ...] = ()
    """Paragraphs for "What these numbers do not show"."""
    examples: int = 8
    """Captions with the clips found for them; drawn by the seed, not chosen."""
    pool: int = 500
    """Clips that the examples are searched in."""
    map_clips: int = 300
    """Clips in the pictures of the spaces."""
    min_peak: float = 0.06
    """Clips whose loudest sample stays below this share of full scale count as silent."""
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        if self.map_clips < 4:
            raise ConfigError(f"map_clips: found {self.map_clips}, expected 4 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportResult:
    """Where the report is."""

    path: Path
    megabytes: float


def run(config: ReportConfig) -> ReportResult:
    """Write `<run>/report.html` from what is in the run folder; parts that are missing are named.

    Raises:
        CheckpointError: there is no model in the run, or a result is damaged.
        DataError: the split has no clips.
    """
    precision = partial(autocast, "auto")
    subject = open_run(config.run, precision=precision, shards=config.shards, device=config.device)
    clips = subject.features(config.split, seed=config.seed)
    parts = [
        *_opening(config, subject, clips),
        *_numbers(config.run),
        *chapters.training(read_metrics(config.run)),
        *_examples(config, subject, clips),
        *_spaces(config, subject, clips),
        *_limits(config),
        *_ending(config, subject),
    ]
    path = config.run / "report.html"
    write_atomically(path, page.page(config.title, parts))
    return ReportResult(path=path, megabytes=path.stat().st_size / 1e6)


def _opening(config: ReportConfig, subject: TrainedRun, clips: SplitFeatures) -> Iterator[str]:
    parameters = sum(weight.numel() for weight in subject.encoder.module.parameters())
    spec = subject.encoder.spec
    yield f"<h1>{escape(config.title)}</h1>"
    yield page.paragraphs(
        [
            "A network saw videos with their sound and captions, and learned to tell which "
            "picture, sound and text belong to the same moment. It was told nothing else. Below: "
            "how well it tells them apart on videos that it has never seen."
        ],
        kind="lead",
    )
    pairs = {
        "parameters": f"{parameters / 1e6:.1f} million",
        "a clip": f"{spec.frames} frames, {spec.duration_s:.2f} s",
        "a frame": f"{spec.width} × {spec.height}",
        "sound": f"{spec.sample_rate_hz / 1000:g} kHz",
        f"{config.split} clips": f"{len(clips.moments):,}",
    }
    yield page.facts(_data_facts(subject) | _run_facts(config.run) | pairs)


def _data_facts(subject: TrainedRun) -> dict[str, str]:
    """Hours and videos of the training split, where the shards have it."""
    try:
        info = subject.dataset(subject.data.split).info["splits"][subject.data.split]
    except DataError:
        return {}
    return {"trained on": f"{info['hours']:.1f} h, {info['videos']:,} videos"}


def _run_facts(run: Path) -> dict[str, str]:
    """Steps, clips seen and speed, from the log of the training."""
    lines = read_metrics(run)
    settings = run / "config.toml"
    if not lines or not settings.is_file():
        return {}
    batch = int(flatten(read_toml(settings))["data.batch_size"])
    steps = int(lines[-1]["step"])
    facts = {"steps": f"{steps:,}", "clips seen": f"{steps * batch:,}"}
    speeds = [line["clips_per_s"] for line in lines if line.get("clips_per_s")]
    if speeds:
        facts["speed"] = f"{np.median(speeds):,.0f} clips/s"
    return facts


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl in the order of steps; of a repeated step the last line.

    Raises:
        CheckpointError: a line is no JSON.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        return []
    by_step = {}
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
            by_step[line["step"]] = line
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: line {number} is no log line: {error}") from error
    return [by_step[step] for step in sorted(by_step)]


def _numbers(run: Path) -> Iterator[str]:
    zero_shot, linear = read_result(run, "zero-shot"), read_result(run, "linear-eval")
    yield "<h2>How well it goes</h2>"
    if zero_shot:
        yield from chapters.retrieval(zero_shot)
        yield from chapters.from_text(zero_shot)
    else:
        yield page.paragraphs(["Retrieval was not measured: run vatt zero-shot."], kind="soft")
    if linear:
        yield from chapters.linear(linear)
    else:
        yield page.paragraphs(["No classifier was tried: run vatt linear-eval."], kind="soft")
    for result in (zero_shot, linear):
        reasons = (result or {}).get("left_out", {})
        yield page.paragraphs((f"{k} left out: {v}" for k, v in reasons.items()), kind="soft")


def _examples(config: ReportConfig, subject: TrainedRun, clips: SplitFeatures) -> Iterator[str]:
    """Captions with the first clips found for them, and the right one if not among these."""
    try:
        pool = subject.caption_pool(clips, config.pool, seed=config.seed)
    except DataError as error:
        logger.warning("no examples: %s", error)
        return
    captions = [clips.captions[row] for row in pool.rows]
    vt = subject.encoder.encode_text(captions).vt
    scores = similarities(vt.cpu().numpy(), clips.of(PRETRAINED, "video_vt")[pool.rows])
    yield "<h2>What it finds for a caption</h2>"
    yield page.paragraphs(
        [
            f"Captions of the {config.split} videos, drawn by the seed and not chosen, with the "
            f"first {TOP} of {len(pool.rows)} clips. A green line marks the clip that the caption "
            "was given to, a dotted one a clip that it is true of as well, going by the labels. "
            "Under each strip stands what was said of that clip."
        ]
    )
    shown = np.random.default_rng(draw_bits(config.seed)).permutation(len(captions))
    for query in shown[: config.examples].tolist():
        yield _example(subject, clips, pool.rows, query, scores[query])


def _example(
    subject: TrainedRun,
    clips: SplitFeatures,
    rows: NDArray[np.int64],
    query: int,
    scores: NDArray[np.float32],
) -> str:
    order = np.argsort(-scores, kind="stable")
    place = int(np.flatnonzero(order == query)[0]) + 1
    facts = [set(text.split()) for text in clips.labels("facts")[rows].tolist()]
    said = set(clips.labels("said")[rows[query]].split())
    fitting = [bool(said) and said <= known for known in facts]
    best = order[:TOP].tolist() + ([query] if place > TOP else [])
    strips = []
    for item in best:
        mark: Mark = "right" if item == query else "fits" if fitting[item] else "other"
        at = int(np.flatnonzero(order == item)[0]) + 1
        head = f"{at}. the right clip:" if item == query else f"{at}."
        moment = clips.moments[rows[item]]
        strips.append(Strip(_frames(subject, clips, rows[item]), head, moment.caption, mark))
    remark = f"right clip at place {place} of {len(rows)}"
    if sum(fitting) > 1:
        remark += f"; true of {sum(fitting)} clips"
    return page.query(clips.captions[rows[query]], remark, strips)


def _frames(subject: TrainedRun, clips: SplitFeatures, row: int) -> NDArray[np.uint8]:
    """Some frames of a clip at their own aspect, uint8 [n, H, W, 3]."""
    moment = clips.moments[row]
    dataset = subject.dataset(clips.split)
    width, height = (int(dataset.column(name)[moment.row]) for name in ("width", "height"))
    share = (np.arange(STRIP_FRAMES) + 0.5) / STRIP_FRAMES
    times_s = moment.start_s + share * subject.encoder.spec.duration_s
    size = (STRIP_HEIGHT, max(1, round(STRIP_HEIGHT * width / height)))
    return decode_frames(dataset.read_video(moment.row), times_s, size=size)


def _spaces(config: ReportConfig, subject: TrainedRun, clips: SplitFeatures) -> Iterator[str]:
    """Figures 4 and 5 of the paper for this run."""
    spaces = [*_text_spaces(config, subject, clips), *_sound_spaces(config, clips)]
    if not spaces:
        return
    yield "<h2>Its spaces, before and after</h2>"
    yield page.figure(
        maps(spaces, seed=config.seed),
        "Each point is a clip, a caption or a sound (t-SNE of unit vectors). Where they enter the "
        "backbones, each kind lies apart; in the common spaces what belongs together should lie "
        "together, though a gap between the kinds may remain. As Figure 4 of the paper.",
    )
    yield page.figure(
        densities([_pair_similarities(space) for space in spaces]),
        "How similar the two halves of one clip are (green) and halves of different clips "
        "(orange). The further apart the two hills, the better the space tells pairs apart. As "
        "Figure 5 of the paper.",
    )


def _text_spaces(
    config: ReportConfig, subject: TrainedRun, clips: SplitFeatures
) -> Iterator[Points]:
    try:
        rows = subject.caption_pool(clips, config.map_clips, seed=config.seed).rows
    except DataError:
        return
    captions = [clips.captions[row] for row in rows]
    vt = subject.encoder.encode_text(captions).vt
    words = subject.text_input(captions)
    if words is not None:
        video = clips.of(PRETRAINED, "video_input")[rows]
        yield Points("video and text: entering", {"video": video, "text": words})
    video = clips.of(PRETRAINED, "video_vt")[rows]
    yield Points("video and text: common space", {"video": video, "text": vt.cpu().numpy()})


def _sound_spaces(config: ReportConfig, clips: SplitFeatures) -> Iterator[Points]:
    try:
        heard = np.flatnonzero(clips.peaks >= config.min_peak)
        rows = draw_pool(heard, config.map_clips, seed=config.seed).rows
    except DataError:
        return
    for title, name in (("entering", "input"), ("common space", "va")):
        groups = {
            kind: clips.of(PRETRAINED, f"{modality}_{name}")[rows]
            for kind, modality in (("video", "video"), ("sound", "audio"))
        }
        yield Points(f"video and sound: {title}", groups)


def _pair_similarities(space: Points) -> Similarities:
    """Cosines of all pairs of a space; the narrower group is filled up with zeros."""
    first, second = space.groups.values()
    width = max(first.shape[1], second.shape[1])
    padded = [np.pad(rows, ((0, 0), (0, width - rows.shape[1]))) for rows in (first, second)]
    cosines = similarities(padded[0], padded[1])
    same = np.eye(len(cosines), dtype=bool)
    return Similarities(space.title, cosines[same], cosines[~same])


def _limits(config: ReportConfig) -> Iterator[str]:
    yield "<h2>What these numbers do not show</h2>"
    yield page.bullets([*config.notes, *GENERAL_NOTES])


def _ending(config: ReportConfig, subject: TrainedRun) -> Iterator[str]:
    used = ", ".join(f"{name} {number}" for name, number in versions().items())
    yield (
        f"<footer>Model <code>{subject.model_hash}</code>, split {escape(config.split)}, seed "
        f"{config.seed}. {escape(used)}. The settings are in <code>config.toml</code>, the "
        "numbers in <code>results/</code> of the run folder.</footer>"
    )
