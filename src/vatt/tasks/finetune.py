"""`vatt finetune`: a classifier of video, audio or images from labels (§4.2, §4.3)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import partial
from itertools import repeat
from math import ceil, floor
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed
from tyro.conf import Positional

from vatt import distributed
from vatt.checkpoints import checkpoint
from vatt.checkpoints.checkpoint import TrainingState
from vatt.config import CONFIG_FILE, from_values, read_toml, to_values
from vatt.contracts import Batch, ClipSpec, draw_bits
from vatt.data import augment
from vatt.data.augment import AugmentConfig
from vatt.data.data_config import DataConfig
from vatt.data.datasets import ClipDataset
from vatt.data.loader import told_of_dead_workers, training_batches
from vatt.data.statistics import frame_path, same_data
from vatt.devices import autocast, cpu_threads, pick_device, seeded
from vatt.encoder import model_folder
from vatt.errors import ConfigError
from vatt.evaluation.examples import (
    LabelledSpan,
    class_names,
    find_examples,
)
from vatt.evaluation.few_labels import FewClips, Found, about_few, few_of
from vatt.evaluation.in_training.linear_first import fit_linear_layer
from vatt.evaluation.in_training.validation import Validation
from vatt.failed_step import Replayed, computed_again, load_batch, rank_folders
from vatt.ingest.labelled import SUFFIXES, find_labelled, store_labelled
from vatt.losses import (
    balanced_sigmoid_cross_entropy,
    softmax_cross_entropy,
)
from vatt.media.stored_form import StoredForm
from vatt.models.classifier import Classifier, ClassifierConfig, restore
from vatt.models.model_config import AudioConfig, DropScope, ModelConfig, VideoConfig
from vatt.models.transformer import BASE, LARGE, MEDIUM, SMALL, layers_of
from vatt.models.weights import (
    build,
    load_model,
    load_weights,
    read_settings,
    save_model,
    save_settings,
)
from vatt.public_data.catalogue import DatasetFolder, official_classes
from vatt.public_data.choice import (
    FREE_OF_CHOICE,
    NOT_CHOSEN,
    DatasetChoice,
    chosen_folder,
    found_files,
    refuse_below,
)
from vatt.run_folder import FREE_SETTINGS, alone_in, claim_folder, renew_settings
from vatt.shards.read import ShardFolder
from vatt.training.loop import Learner, TrainConfig, step_randomness, train
from vatt.training.optim import OptimConfig, Optimiser
from vatt.training.parallel import parallelize
from vatt.training.targets import draw_mixup, k_hot, mix, smooth

logger = logging.getLogger(__name__)

SIZES = {"small": SMALL, "base": BASE, "medium": MEDIUM, "large": LARGE}  # Table 1
SGD = OptimConfig(  # §4.3 Video fine-tuning
    name="momentum", momentum=0.9, learning_rate=0.005, final_learning_rate=0.0,
    schedule="half_cosine", warmup_steps=2500,
)  # fmt: skip
# What may change in a continued run, and what settings were before they were any.
FREE = (*FREE_SETTINGS, *FREE_OF_CHOICE, "src", "source.workers", "clips_at_once")
EARLIER: Mapping[str, Any] = {
    **NOT_CHOSEN,
    "few": "none",
    "few_draw": 0,
    "clip": {"short_audio": "none"},
    "model": {"linear_first": "none", "audio_peak": "none"},
    "optim": {"decay_scope": "all", "average": "none"},
}
_MIXUP_STREAM = 2  # its draws differ from the others of a seed


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipChanges:
    """What a clip holds; each value that is "none" is that of the model to start from."""

    frames: int | None = None
    """Of audio only the duration counts: left out with `fps`, 1 that lasts as long. Of images left
    out: as many as a patch."""
    fps: float | None = None
    height: int | None = None
    width: int | None = None
    sample_rate_hz: int | None = None
    short_audio: Literal["repeat", "silence"] | None = None
    """What follows audio that is shorter than a clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneChanges:
    """What differs from the model to start from."""

    audio_peak: float | None = None
    """Scale each clip's waveform so that its largest sample is this, in [0, 1]: then loudness says
    nothing. "none": as in the model to start from."""

    drop_token: float = 0.0
    """Share of tokens dropped in training; §4.3: none, Table 14: up to 0.75."""
    dropout: float | None = None
    """Inside the backbone; "none": as in the model to start from."""
    head_dropout: float = 0.0
    """Of the features before the linear layer; the official code has 0.5 for video (0.2 of the
    shared backbone), 0 for audio."""
    linear_first: float | None = None
    """Begin with the linear layer that logistic regression finds for the features as they are;
    the value is its C: the larger, the closer to the labels. "none": begin with random weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetConfig:
    """What the logits are trained towards (§4.3)."""

    labels: Literal["one", "several"] = "one"
    """How many are true at once: one (softmax), or several (sigmoid, summed over the classes; a
    clip weighs the inverse of how often its labels are in the batch)."""
    smoothing: float = 0.0
    """Label smoothing α."""
    mixup: float = 0.0
    """α of Beta(α, α), from which shares of mixup are drawn; 0: no mixup."""

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ConfigError(f"targets.smoothing: found {self.smoothing}, expected 0 <= … < 1")
        if self.mixup < 0:
            raise ConfigError(f"targets.mixup: found {self.mixup}, expected 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """How files that are not prepared yet are."""

    separator: str | None = None
    """Between several labels in a row of a table."""
    val_share: float = 0.15
    """Of each class, when the source has no splits: to choose the model by."""
    test_share: float = 0.15
    """The same, for `vatt evaluate`."""
    fps: float | None = None
    """Frames per second to store; "none": those of a clip."""
    short_side: int | None = None
    """Of the stored frames; "none": the longer side of a clip."""
    workers: int = 0
    """Processes; 0 takes one per core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneConfig(DatasetChoice):
    """Train a classifier from labels; the same command continues an interrupted run."""

    src: Positional[tuple[Path, ...]] = ()
    """A folder with a sub-folder for each class, or a CSV or JSONL table of file and label, to be
    prepared in OUT/shards; none when --data.shards or a --dataset are given."""
    out: Path
    """Run folder: config.toml, metrics.jsonl, checkpoints/ and model/."""
    start_from: Path | None = None
    """A run, a checkpoint or a converted model: sizes, clip and weights to begin with."""
    scratch: bool = False
    """Fresh weights, of the sizes of `start_from` or else of `size`."""
    size: Literal["small", "base", "medium", "large"] = "base"
    """Of the backbone (Table 1), when training from scratch without `start_from`."""
    kind: Literal["video", "audio", "image"] = "video"
    """What is classified; an image is a video that stands still (§4.4.3)."""
    label: str = "label"
    """The column of the labels."""
    few: int | None = None
    """Labelled examples of each class that are used for training; "none": all there are."""
    few_draw: int = 0
    """Which ones: the same number draws the same, whatever the model and the seed."""
    val_split: str = "val"
    """What is validated on; without it nothing is, and the last model is kept."""
    eval_every: int = 5000
    """Steps between validations."""
    keep: Literal["best", "last"] = "last"
    """Which model is in model/: the best of the validations, or the last."""
    epochs: float | None = None
    """Passes over the training clips, in place of train.steps."""
    source: SourceConfig = field(default_factory=SourceConfig)
    data: DataConfig = field(default_factory=lambda: DataConfig(batch_size=64))  # §4.3 Video
    clip: ClipChanges = field(default_factory=ClipChanges)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: BackboneChanges = field(default_factory=BackboneChanges)
    targets: TargetConfig = field(default_factory=lambda: TargetConfig(smoothing=0.1))  # §4.3
    optim: OptimConfig = field(default_factory=lambda: SGD)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(steps=100_000, save_every=5000))
    seed: int = 0

    def __post_init__(self) -> None:
        if self.start_from is None and not self.scratch:
            raise ConfigError(
                "start_from: found none; give a run, checkpoint or converted model (--preset "
                "finetune-small-video --start-from runs/demo), or --scratch"
            )
        given = len(self.src), len(self.data.shards), int(self.public is not None)
        if given[0] > 1 or (given[0] > 0) == (given[1] + given[2] > 0):
            raise ConfigError(
                f"src: found {given[0]} beside {given[1]} data.shards and {given[2]} dataset, "
                "expected one folder or table to prepare, or prepared shards, or a dataset"
            )
        if self.public is not None:
            self.public.refuse_kind(self.kind)
        if self.eval_every < 1:
            raise ConfigError(f"eval_every: found {self.eval_every}, expected >= 1")
        if self.train.parallel == "fsdp" or self.optim.average is not None:
            raise ConfigError(
                f"train.parallel, optim.average: found {self.train.parallel} and "
                f"{self.optim.average or 'none'}, expected replicate and none: only pre-training "
                "divides a model among processes, and keeps a moving average"
            )
        first = self.model.linear_first
        if first is not None and (first <= 0 or self.targets.labels == "several"):
            raise ConfigError(
                f"model.linear_first: found {first}, expected > 0 and targets.labels one; give "
                "--model.linear_first none"
            )
        if self.few is not None and (self.few < 1 or self.data.weights):
            raise ConfigError(
                f"few: found {self.few}, expected >= 1, and no data.weights: examples are drawn "
                "from all folders together"
            )
        if self.epochs is not None and self.epochs <= 0:
            raise ConfigError(f"epochs: found {self.epochs}, expected > 0")
        if self.epochs is None:  # before files are prepared; the optimiser checks it for epochs
            self.optim.refuse_fewer(self.train.steps)

    @property
    def modality(self) -> Literal["video", "audio"]:
        """Of the backbone."""
        return "audio" if self.kind == "audio" else "video"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneResult:
    """What a fine-tuning made.

    few: which examples were used when not all were; model: which model is in model/.
    """

    out: Path
    classes: int
    parameters: int
    steps: int
    loss: float | None
    validation: Mapping[str, float]
    few: Mapping[str, Any]
    model: str
    skipped_files: Mapping[str, int]
    failed_clips: int
    seconds: float
    clips_per_s: float | None
    waiting_share: float | None


def objective(
    batch: Batch,
    model: nn.Module,
    config: FinetuneConfig,
    spec: ClipSpec,
    names: Sequence[str],
    scope: DropScope = "sample",
) -> dict[str, Tensor]:
    """From a batch to this rank's share of the loss.

    Args:
        batch: this rank's B clips; their labels stand in the column `config.label`.
        model: a `Classifier` in training mode, as `parallelize` gives it.
        config: targets, resizing, and what is computed in bfloat16.
        spec: what a clip holds.
        names: of the classes.
        scope: of the model's DropToken.
    """
    inputs = augment.apply(batch, spec, antialias=config.augment.antialias)
    signal = inputs.audio if config.modality == "audio" else inputs.frames
    number = {name: at for at, name in enumerate(names)}
    classes = [[number[name] for name in one.get(config.label, ())] for one in batch.labels]
    targets = k_hot(classes, len(names)).to(signal.device, non_blocking=True)
    draw = inputs.draw
    if draw is not None and scope == "batch":  # of all ranks, in all parts
        draw = distributed.first_of_all(draw)
    return class_losses(model, signal, targets, config, draw=draw, position=batch.positions[0])


def class_losses(
    model: nn.Module,
    signal: Tensor,
    targets: Tensor,
    config: FinetuneConfig,
    *,
    draw: Tensor | None = None,
    position: int = 0,
) -> dict[str, Tensor]:
    """This rank's share of the mean cross-entropy over the whole batch (§4.3).

    Args:
        model: a classifier.
        signal: [B, …], as it takes it.
        targets: float [B, classes], k-hot.
        config: smoothing, mixup, and which loss.
        draw: int64 [B], what DropToken's choice comes from.
        position: of the first clip; mixup, among this rank's clips, is a function of it.
    """
    how = config.targets
    targets = smooth(targets, how.smoothing) if how.smoothing else targets
    if how.mixup:
        mixup = draw_mixup(len(signal), how.mixup, config.seed, position, _MIXUP_STREAM)
        signal, targets = mix(signal, mixup), mix(targets, mixup)
    size = config.train.micro_batch or len(signal)
    draws = repeat(None) if draw is None else torch.split(draw, size)
    with autocast(config.train.autocast, signal.device):
        if size >= len(signal):
            logits = model(signal, draw)
        else:
            *others, last = zip(torch.split(signal, size), draws, strict=False)
            parts = [recomputed(model, *part, use_reentrant=False) for part in others]
            logits = torch.cat([*parts, model(*last)])
    if how.labels == "one":
        losses = softmax_cross_entropy(logits, targets)
    else:
        losses = balanced_sigmoid_cross_entropy(logits, targets, distributed.gather(targets))
    return {"loss": losses.sum() / (len(signal) * distributed.world_size())}


def run(config: FinetuneConfig) -> FinetuneResult:
    """Prepare what is not prepared; fine-tune, or continue from the newest checkpoint.

    Raises:
        ConfigError: the run folder is of other settings, or the model to start from does not fit.
        DataError: labels are missing, of one class alone, or shards are other ones than before.
        TrainingError: a loss or gradient is not finite; another process trains in this folder.
        CheckpointError: a checkpoint cannot be written or read.
    """
    shards = config.data.shards or (config.out / "shards",)
    data = replace(config.data, shards=tuple(folder.absolute() for folder in shards))
    device = pick_device(config.train.device, distributed.local_rank())
    with (
        cpu_threads(config.train.threads),
        distributed.joined_ranks(device),
        alone_in(config.out, "finetune"),
        told_of_dead_workers(),
    ):
        distributed.own_slots(config.data.batch_size)  # before anything that takes long
        settings = claim_folder(
            config.out,
            to_values(config),
            free=FREE,
            earlier=EARLIER,
            advice="give the settings of that run to continue it, or another --out",
        )
        sizes, clip = starting_settings(config)
        spec = clip_spec(config, sizes, clip)
        public = None if config.dataset is None else chosen_folder(config)
        skipped = prepare_source(config, spec, public)
        train_examples = examples_of(data, data.split, config)
        names = class_names(
            [one for _, part in train_examples for one in part],
            several=config.targets.labels == "several",
        )
        if public is not None:
            names = official_classes(public, names)
        train_examples, few = chosen_few(config, train_examples)
        dataset = training_clips(config, data, spec, train_examples)
        steps = config.train.steps
        if config.epochs is not None:
            steps = max(1, round(config.epochs * dataset.num_clips / data.batch_size))
        state = resumed(config, data, names, steps)
        renew_settings(config.out, settings)
        path = frame_path(data, antialias=config.augment.antialias, autocast=config.train.autocast)
        model = model_at(state, config, sizes, spec, names).to(device)
        if config.model.linear_first is not None and not state.of_this_run:
            strength = config.model.linear_first
            fit_linear_layer(model, train_examples, data, spec, path, strength=strength)
        optimiser = Optimiser(config.optim, model.named_parameters(), steps=steps)
        optimiser.load_state(state.optimiser)
        state = replace(state, optimiser={})  # it has copied them
        loader = training_batches(
            dataset, steps=steps, device=device, start_step=state.step, facts=state.facts
        )

        kept_in = config.out / "model" if distributed.is_main() else None

        def write(folder: Path | None, /, *, weights: bool = True, **extra: Any) -> None:
            if folder is None:
                return
            about = {"label": config.label, **({"few": few} if few else {}), **extra}
            if weights:
                save_model(folder, model, spec, about, frame_path=path)
            else:
                save_settings(folder, model.config, spec, about, frame_path=path)

        def keep(best: Mapping[str, Any]) -> None:
            checkpoint.save_model_folder(kept_in, partial(write, **best))
            distributed.barrier()

        found = examples_of(data, config.val_split, config)
        if not found:
            logger.warning("no split %r: nothing is validated", config.val_split)
        keeps_best = config.keep == "best" and bool(found)
        validation = Validation(
            model, found, data, spec, path,
            best=state.facts.get("best", {}), keep=keep if keeps_best else None,
        )  # fmt: skip
        learner = Learner(
            model=model,
            objective=partial(
                objective,
                model=parallelize(model.train(), config.train, layers_of(model)),
                config=config,
                spec=spec,
                names=names,
                scope=model.config.model.drop_token_scope,
            ),
            optimiser=optimiser,
            write_model=write,
            facts=lambda: {
                "failures": loader.failures(),
                "data": state.facts["data"],
                "classes": list(names),
                "best": validation.best,
            },
            seed=config.seed,
            skipped=state.facts.get("skipped_steps", 0),
            validate=validation if found else (lambda _: {}),
            validate_every=config.eval_every,
        )
        made = replace(config.train, steps=steps)
        summary = train(made, learner, loader, folder=config.out, start_step=state.step)
        steps_made, failed_clips = state.step + summary.steps_made, len(loader.failures())
        if steps_made == steps and not keeps_best:
            checkpoint.save_model_folder(kept_in, partial(write, step=steps_made))
        distributed.barrier()
    return FinetuneResult(
        out=config.out,
        classes=len(names),
        parameters=sum(weight.numel() for weight in model.parameters()),
        steps=steps_made,
        loss=summary.loss,
        validation=validation.latest,
        few=few,
        model=kept(validation.best if keeps_best else {}, steps_made, steps),
        skipped_files=skipped,
        failed_clips=failed_clips,
        seconds=summary.seconds,
        clips_per_s=summary.clips_per_s,
        waiting_share=summary.waiting_share,
    )


# ── what it starts from ──────────────────────────────────────────────────────────────────────────


def starting_settings(config: FinetuneConfig) -> tuple[ModelConfig, ClipSpec]:
    """Sizes of the backbones and the clip of the model to start from; a run's own, if it has any.

    Raises:
        CheckpointError: there is no model in `start_from`.
    """
    own = checkpoint.newest_whole(config.out / "checkpoints")
    if own or config.start_from is not None:
        settings, clip, _ = read_settings(own or model_folder(config.start_from or ""))
        return (settings.model if isinstance(settings, ClassifierConfig) else settings), clip
    backbone = SIZES[config.size]
    sizes = ModelConfig(
        video=VideoConfig(transformer=backbone), audio=AudioConfig(transformer=backbone)
    )
    return sizes, ClipSpec()


def clip_spec(config: FinetuneConfig, sizes: ModelConfig, clip: ClipSpec) -> ClipSpec:
    """What a clip holds: as in the model to start from, but for what is set."""
    if config.kind == "image":
        clip = replace(clip, frames=sizes.video.patch[0])
    elif config.kind == "audio" and config.clip.frames is None and config.clip.fps is None:
        clip = clip.of_audio()
    given = {one.name: getattr(config.clip, one.name) for one in fields(config.clip)}
    return replace(clip, **{name: value for name, value in given.items() if value is not None})


def at_input_size(sizes: ModelConfig, spec: ClipSpec, changes: BackboneChanges) -> ModelConfig:
    """The same backbones with a position for each patch of such clips (§4.3), and with changes."""
    whole = ceil if sizes.edges == "pad" else floor
    video, audio = sizes.video, sizes.audio
    t, h, w = video.patch
    rows = whole(spec.frames / t), whole(spec.height / h), whole(spec.width / w)
    video = replace(video, buckets=(max(1, rows[0]), max(1, rows[1]), max(1, rows[2])))
    audio = replace(audio, buckets=max(1, whole(spec.samples / audio.patch)))
    if audio.kind == "spectrogram":
        mel = audio.spectrogram
        frames = ceil(spec.samples / int(spec.sample_rate_hz * mel.step_s))
        parts = whole(frames / mel.patch[0]), whole(mel.bands / mel.patch[1])
        mel = replace(mel, buckets=(max(1, parts[0]), max(1, parts[1])))
        audio = replace(audio, spectrogram=mel, sample_rate_hz=spec.sample_rate_hz)
    if changes.audio_peak is not None:
        audio = replace(audio, peak=changes.audio_peak)
    if changes.dropout is not None:
        dropout = changes.dropout
        video = replace(video, transformer=replace(video.transformer, dropout=dropout))
        audio = replace(audio, transformer=replace(audio.transformer, dropout=dropout))
        text = replace(sizes.text, transformer=replace(sizes.text.transformer, dropout=dropout))
        sizes = replace(sizes, text=text, video=video, audio=audio)
    return replace(sizes, video=video, audio=audio, drop_token=changes.drop_token)


def resumed(
    config: FinetuneConfig, data: DataConfig, names: Sequence[str], steps: int
) -> TrainingState:
    """The state that training goes on from; refuses other data than before, or no step to make.

    A classifier of as many classes, such as a converted one, goes on with its optimiser's state.
    """
    start = None
    if config.start_from is not None and not config.scratch:
        folder = config.out / "checkpoints"
        start = None if checkpoint.all_saved(folder) else model_folder(config.start_from)
        if start is not None and not continues(read_settings(start)[0], names):
            start = None
    state = checkpoint.resume(config.out / "checkpoints", start)
    if not state.of_this_run and state.step >= steps:
        raise ConfigError(
            f"train.steps: found {steps}, expected more than {state.step}, the steps that are made "
            f"in {config.start_from}"
        )
    hash_before = state.facts.get("data") if state.of_this_run else None
    facts = state.facts if state.of_this_run else {}
    return replace(state, facts={**facts, "data": same_data(data, hash_before, state.folder)})


def continues(settings: ModelConfig | ClassifierConfig, names: Sequence[str]) -> bool:
    """Whether a model is a classifier of these classes, as far as it knows their names."""
    if not isinstance(settings, ClassifierConfig) or settings.classes != len(names):
        return False
    return settings.names in ((), tuple(names))


def model_at(
    state: TrainingState,
    config: FinetuneConfig,
    sizes: ModelConfig,
    spec: ClipSpec,
    names: Sequence[str],
) -> Classifier:
    """The classifier that training goes on with; fresh weights are a function of the seed.

    Raises:
        CheckpointError, ConfigError: the model to start from is of other sizes.
    """
    with seeded(draw_bits(config.seed, -1)):
        model = Classifier(
            ClassifierConfig(
                modality=config.modality,
                classes=len(names),
                dropout=config.model.head_dropout,
                model=at_input_size(sizes, spec, config.model),
                names=tuple(names),
                labels=config.targets.labels,
            )
        )
    if state.folder is not None and state.of_this_run:
        load_weights(model, state.folder)
    elif config.start_from is not None and not config.scratch:
        folder = model_folder(config.start_from)
        settings = read_settings(folder)[0]
        start = build(settings)
        load_weights(start, folder)
        if isinstance(settings, ClassifierConfig) and settings.modality != config.modality:
            raise ConfigError(
                f"start_from: {folder} is a classifier of {settings.modality}, expected of "
                f"{config.modality}"
            )
        restore(model, start)
        if isinstance(start, Classifier) and continues(settings, names):
            model.linear.load_state_dict(start.linear.state_dict())
    return model


# ── what it is trained and validated on ──────────────────────────────────────────────────────────


def prepare_source(
    config: FinetuneConfig, spec: ClipSpec, public: DatasetFolder | None
) -> dict[str, int]:
    """Prepare the files of `src`, or of a data set, in OUT/shards, if that is not done.

    Returns:
        Cause → how many were skipped.

    Raises:
        DataError: shards that are given are of other files, or hold less than the clips need.
    """
    how = config.source
    fps = how.fps or (25.0 if config.kind == "image" else max(spec.fps, 1.0))
    short_side = how.short_side or max(16, spec.height, spec.width)
    if public is not None:
        for folder in config.data.shards:
            refuse_below(ShardFolder.open(folder), config, fps=fps, short_side=short_side)
    form = StoredForm(short_side=short_side, fps=Fraction(fps).limit_denominator(1001), gop=16)
    prepares = distributed.is_main() and not config.data.shards
    skipped = _prepare(config, form, public) if prepares else {}
    distributed.barrier()
    return skipped


def _prepare(
    config: FinetuneConfig, form: StoredForm, public: DatasetFolder | None
) -> dict[str, int]:
    how = config.source
    if public is not None:
        found = found_files(public, config.dataset_split, known_only=True)
    else:
        found = find_labelled(
            config.src[0],
            config.label,
            separator=how.separator,
            suffixes=SUFFIXES[config.kind],
            leave_out=config.out,
        )
    return store_labelled(
        found, config.out / "shards", form,
        column=config.label, shares={"val": how.val_share, "test": how.test_share},
        for_audio=config.kind == "audio", workers=how.workers,
    )  # fmt: skip


def examples_of(
    data: DataConfig, split: str, config: FinetuneConfig
) -> list[tuple[ShardFolder, list[LabelledSpan]]]:
    """The labelled examples of a split, by the shard folders that have it.

    Raises:
        DataError: a folder has the split and no such label in it.
    """
    folders = [ShardFolder.open(folder) for folder in data.shards]
    with_audio = config.kind == "audio"
    return [
        (folder, find_examples(folder, split, config.label, with_audio=with_audio))
        for folder in folders
        if split in folder.info["splits"]
    ]


def chosen_few(
    config: FinetuneConfig, examples: list[tuple[ShardFolder, list[LabelledSpan]]]
) -> tuple[list[tuple[ShardFolder, list[LabelledSpan]]], dict[str, Any]]:
    """The examples that training uses, and what is said of them when they are not all."""
    if config.few is None:
        return examples, {}
    few = few_of(examples, config.few, draw=config.few_draw)
    return few, about_few(few, config.few, draw=config.few_draw)


def training_clips(
    config: FinetuneConfig, data: DataConfig, spec: ClipSpec, examples: Found
) -> ClipDataset | FewClips:
    """Clips of all that is labelled in the training split, or of the few examples alone."""
    if config.few is not None:
        return FewClips(examples, data, spec, config.augment, config.seed, column=config.label)
    return ClipDataset(
        data, spec, config.augment, None, config.seed,
        label=config.label, with_audio=config.kind == "audio",
    )  # fmt: skip


def kept(best: Mapping[str, Any], steps_made: int, steps: int) -> str:
    """Which model is in model/, for people."""
    last = f"the last, after {steps_made} of {steps} steps"
    if best:
        return (
            f"the best of the validations: {best['measure']} {best['value']:.3f} after "
            f"{best['step']} steps; {last}, is in checkpoints/step-{steps_made:06d}"
        )
    return last if steps_made == steps else f"none yet: {steps_made} of {steps} steps are made"


def replay(capture: Path, device: str = "auto") -> Replayed:
    """Compute again the loss and gradients of a step that was not finite.

    Args:
        capture: `<run>/failures/step-…`; the batches of several ranks are joined.
        device: where.
    """
    run_folder, step = capture.parents[1], int(capture.name.removeprefix("step-"))
    where = run_folder / CONFIG_FILE
    config = from_values(FinetuneConfig, read_toml(where), where=str(where))
    place = pick_device(device)
    parts = [load_batch(Batch, folder) for folder in rank_folders(capture)]
    model, spec = load_model(Classifier, capture / "rank-0", place)
    with cpu_threads(config.train.threads), step_randomness(config.seed, step):
        batch = Batch.joined(parts).to(place)
        about = spec, model.config.names, model.config.model.drop_token_scope
        again = partial(objective, batch, model.train(), config, *about)
        return computed_again(model, again, batch.keys)
