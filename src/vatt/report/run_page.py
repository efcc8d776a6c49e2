"""The page of `vatt report`: what was trained and how well it does: numbers, figures, examples."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vatt.config import flatten, read_toml
from vatt.contracts import draw_bits
from vatt.errors import ConfigError, DataError
from vatt.evaluation.features import PRETRAINED, SplitFeatures, mean_text_tokens
from vatt.evaluation.protocols.zero_shot_pool import caption_pool
from vatt.evaluation.results import read_result, versions
from vatt.evaluation.retrieval import draw_pool, similarities
from vatt.evaluation.trained_run import TrainedRun
from vatt.media.media_file import decode_frames
from vatt.report.figures import Curve, Points, Similarities, curves, densities, maps
from vatt.report.page import Example, Mark, Strip, render
from vatt.report.result_tables import (
    finetuned_table,
    from_text_table,
    linear_table,
    paper_comparison,
    retrieval_table,
)
from vatt.report.training_curve import read_metrics
from vatt.run_folder import METRICS_FILE

logger = logging.getLogger(__name__)

STRIP_FRAMES, STRIP_HEIGHT, TOP = 4, 90, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPageConfig:
    """What the page shows."""

    split: str = "test"
    title: str = "A VATT training run"
    notes: tuple[str, ...] = ()
    """Paragraphs for "What these numbers do not show"."""
    classifiers: tuple[Path, ...] = ()
    """Runs of `vatt finetune` that began with this one: what `vatt evaluate` measured of them."""
    examples: int = 8
    """Captions with the clips found for them; drawn by the seed, not chosen."""
    pool: int = 500
    """Clips that the examples are searched in."""
    map_clips: int = 300
    """Clips in the figures of the spaces."""
    min_peak: float = 0.06
    """Clips whose loudest sample stays below this share of full scale count as silent."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in {"map_clips": 4, "pool": 2, "examples": 0}.items():
            if (found := getattr(self, name)) < least:
                raise ConfigError(f"{name}: found {found}, expected {least} or more")


def run_page(config: RunPageConfig, run: TrainedRun, clips: SplitFeatures) -> str:
    """The whole page, of what is in the run folder; parts that are missing are named.

    Raises:
        CheckpointError: a result or the training log is damaged.
    """
    log = [entry for entry in read_metrics(run.folder / METRICS_FILE) if "loss" in entry]
    zero_shot = read_result(run.folder, "zero-shot")
    linear_eval = read_result(run.folder, "linear-eval")
    tuned = [one for one in (read_result(n, "evaluate") for n in config.classifiers) if one]
    examples, num_searched = _examples(config, run, clips)
    spaces = _spaces(config, run, clips)
    training_curves = None
    if len(log) > 1:
        names = {"loss": "whole", "video_audio": "video–audio", "video_text": "video–text"}
        steps = [entry["step"] for entry in log]
        losses = {title: [entry[name] for entry in log] for name, title in names.items()}
        rates = {"learning rate": [entry["learning_rate"] for entry in log]}
        training_curves = curves(
            [
                Curve("loss", steps, losses),
                Curve("learning rate", steps, rates),
                *_evaluation_curves(log),
            ]
        )
    return render(
        "run.html",
        title=config.title,
        about=_about(config, run, clips, log),
        videos=run.videos_of(config.split),
        seen=run.on_own_shards and config.split == run.data.split,
        zero_shot=zero_shot,
        zero_shot_videos=run.videos_of((zero_shot or {}).get("split", "")),
        linear_videos=[run.videos_of(name) for name in (linear_eval or {}).get("splits", [])],
        retrieval=retrieval_table(zero_shot or {}),
        from_text=from_text_table(zero_shot or {}),
        linear_eval=linear_eval,
        linear=linear_table(linear_eval or {}),
        finetuned=finetuned_table(tuned),
        finetuned_videos=sorted({run.videos_of(result["split"]) for result in tuned}),
        of_paper=[one for one in map(paper_comparison, _reproduced(run.folder)) if one],
        left_out=(zero_shot or {}).get("left_out", {}) | (linear_eval or {}).get("left_out", {}),
        curves=training_curves,
        examples=examples,
        pool=num_searched,
        top=TOP,
        maps=maps(spaces, seed=config.seed) if spaces else None,
        densities=densities([pair_similarities(space) for space in spaces]) if spaces else None,
        notes=config.notes,
        model_hash=run.model_hash,
        split=config.split,
        seed=config.seed,
        versions=versions(),
    )


def _evaluation_curves(log: list[dict[str, float]]) -> Iterator[Curve]:
    """What evaluations during the training measured, if there were two or more."""
    for title, ending in {"held out: R@10": "_R@10", "held out: neighbours": "_neighbours"}.items():
        names = [
            n for n in (log[-1] if log else {}) if n.startswith("eval_") and n.endswith(ending)
        ]
        at = [entry for entry in log if all(name in entry for name in names)]
        if names and len(at) > 1:
            lines = {
                name.removeprefix("eval_").removesuffix(ending).replace("_to_", " → "): [
                    entry[name] for entry in at
                ]
                for name in names
            }
            yield Curve(title, [entry["step"] for entry in at], lines)


def _about(
    config: RunPageConfig, run: TrainedRun, clips: SplitFeatures, log: list[dict[str, float]]
) -> dict[str, str]:
    """Sizes of the data, the training, the model and its clips."""
    facts: dict[str, str] = {}
    try:
        folders = run.folders_of(run.data.split).values()
        infos = [one.info["splits"][run.data.split] for one in folders]
        hours, videos = (sum(info[name] for info in infos) for name in ("hours", "videos"))
        facts["trained on"] = f"{hours:.1f} h, {videos:,} videos"
    except DataError:  # evaluated on other shards
        pass
    settings = run.folder / "config.toml"
    if log and settings.is_file():
        batch_size = int(flatten(read_toml(settings))["data.batch_size"])
        steps = int(log[-1]["step"])
        facts |= {"steps": f"{steps:,}", "clips seen": f"{steps * batch_size:,}"}
        speeds = [entry["clips_per_s"] for entry in log if entry.get("clips_per_s")]
        if speeds:
            facts["speed"] = f"{np.median(speeds):,.0f} clips/s"
    parameters = sum(weight.numel() for weight in run.encoder.module.parameters())
    spec = run.encoder.spec
    return facts | {
        "parameters": f"{parameters / 1e6:.1f} million",
        "a clip": f"{spec.frames} frames, {spec.duration_s:.2f} s",
        "a frame": f"{spec.width} × {spec.height}",
        "audio": f"{spec.sample_rate_hz / 1000:g} kHz",
        f"{config.split} clips": f"{len(clips.clips):,}",
    }


def _reproduced(run: Path) -> Iterator[dict[str, Any] | None]:
    """What `vatt reproduce` wrote, table by table."""
    for path in sorted((run / "results").glob("reproduce-table*.json")):
        yield read_result(run, path.stem)


def _examples(
    config: RunPageConfig, run: TrainedRun, clips: SplitFeatures
) -> tuple[list[Example], int]:
    """Captions with the first clips found for them, and the right one if not among these.

    Returns:
        The examples, and how many clips were searched; none without captions.
    """
    try:
        rows = caption_pool(run.encoder, clips, config.pool, seed=config.seed).rows
    except DataError as error:
        logger.warning("no examples: %s", error)
        return [], 0
    captions = [clips.captions[row] for row in rows]
    encoded = run.encoder.encode_text(captions)
    vt = encoded.vt.cpu().numpy()
    scores = similarities(vt, clips.of(PRETRAINED, "video_vt")[rows])
    said, facts = clips.labels("said")[rows].tolist(), clips.labels("facts")[rows].tolist()
    known = [set(text.split()) for text in facts]
    examples = []
    shown = np.random.default_rng(draw_bits(config.seed)).permutation(len(captions))
    for query in shown[: config.examples].tolist():
        order = np.argsort(-scores[query], kind="stable").tolist()
        place = order.index(query) + 1
        states = set(said[query].split())
        fitting = [bool(states) and states <= others for others in known]
        strips = []
        for item in order[:TOP] + ([query] if place > TOP else []):
            mark: Mark = "right" if item == query else "fits" if fitting[item] else "other"
            head = f"{order.index(item) + 1}." + (" the right clip:" if item == query else "")
            frames = _some_frames(run, clips, rows[item])
            strips.append(Strip(frames, head, captions[item], mark))
        remark = f"right clip at place {place} of {len(rows)}"
        if encoded.unknown[query]:
            remark += f"; {encoded.unknown[query]:.0%} of its words unknown to the model"
        if sum(fitting) > 1:
            remark += f"; true of {sum(fitting)} clips"
        examples.append(Example(captions[query], remark, strips))
    return examples, len(rows)


def _some_frames(run: TrainedRun, clips: SplitFeatures, row: int) -> NDArray[np.uint8]:
    """Frames of a clip at their own aspect, uint8 [n, H, W, 3]."""
    clip = clips.clips[row]
    shards = run.folders_of(clips.split)[clip.folder]
    width, height = (int(shards.column(name)[clip.row]) for name in ("width", "height"))
    share = (np.arange(STRIP_FRAMES) + 0.5) / STRIP_FRAMES
    times_s = clip.start_s + share * run.encoder.spec.duration_s
    size = (STRIP_HEIGHT, max(1, round(STRIP_HEIGHT * width / height)))
    return decode_frames(shards.read_video(clip.row), times_s, size=size)


def _spaces(config: RunPageConfig, run: TrainedRun, clips: SplitFeatures) -> list[Points]:
    """Where pairs enter the backbones, and their common spaces (Figures 4 and 5 of the paper)."""
    spaces: list[Points] = []
    try:
        rows = caption_pool(run.encoder, clips, config.map_clips, seed=config.seed).rows
    except DataError:  # too few captions
        pass
    else:
        captions = [clips.captions[row] for row in rows]
        words = mean_text_tokens(run.encoder, captions)
        if words is not None:
            video = clips.of(PRETRAINED, "video_input")[rows]
            spaces.append(Points("video and text: entering", {"video": video, "text": words}))
        vt = run.encoder.encode_text(captions).vt.cpu().numpy()
        video = clips.of(PRETRAINED, "video_vt")[rows]
        spaces.append(Points("video and text: common space", {"video": video, "text": vt}))
    try:
        audible = np.flatnonzero(clips.peaks >= config.min_peak)
        rows = draw_pool(audible, config.map_clips, seed=config.seed).rows
    except DataError:  # too few clips with audible audio
        return spaces
    for title, name in (("entering", "input"), ("common space", "va")):
        groups = {m: clips.of(PRETRAINED, f"{m}_{name}")[rows] for m in ("video", "audio")}
        spaces.append(Points(f"video and audio: {title}", groups))
    return spaces


def pair_similarities(space: Points) -> Similarities:
    """Cosines of all pairs of a space; the narrower group is filled up with zeros."""
    first, second = space.groups.values()
    width = max(first.shape[1], second.shape[1])
    padded = [np.pad(rows, ((0, 0), (0, width - rows.shape[1]))) for rows in (first, second)]
    cosines = similarities(padded[0], padded[1])
    same = np.eye(len(cosines), dtype=bool)
    return Similarities(space.title, cosines[same], cosines[~same])
