"""`vatt pretrain`: from shards to a model that embeds video, audio and text (§3, §4.3)."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from vatt import distributed
from vatt.checkpoints import checkpoint
from vatt.checkpoints.checkpoint import TrainingState
from vatt.config import CONFIG_FILE, from_values, merge, read_toml, to_values
from vatt.contracts import (
    Batch,
    ClipSpec,
    FramePath,
    draw_bits,
)
from vatt.costs.flops import blueprint, run_twice
from vatt.costs.memory import training_memory
from vatt.data.augment import AugmentConfig
from vatt.data.data_config import DataConfig
from vatt.data.datasets import ClipDataset
from vatt.data.loader import make_loader, told_of_dead_workers, training_batches
from vatt.data.statistics import frame_path, measure_frames, same_data, vocabulary
from vatt.data.tokenizer import WordTokenizer
from vatt.devices import (
    cpu_threads,
    free_memory,
    keep_freed_memory,
    peak_memory,
    pick_device,
    seeded,
)
from vatt.errors import ConfigError
from vatt.evaluation.in_training.periodic import (
    EvaluationConfig,
    PeriodicEvaluation,
    best_kept,
    clip_sets,
    encoder_of,
)
from vatt.failed_step import Replayed, computed_again, load_batch, rank_folders
from vatt.hub import local_folder
from vatt.losses import SCORES_AT_ONCE, LossConfig
from vatt.models.heads import BOUNDS
from vatt.models.model_config import ModelConfig
from vatt.models.transformer import layers_of
from vatt.models.vatt import Vatt
from vatt.models.weights import load_model, load_weights, read_settings, save_model, save_settings
from vatt.pretraining import objective
from vatt.run_folder import FREE_SETTINGS, alone_in, claim_folder, renew_settings
from vatt.run_log import wandb_module
from vatt.speed.in_turn import once
from vatt.speed.loss_cost import cost_of_losses
from vatt.training.loop import Learner, TrainConfig, step_randomness, train, whole_batch
from vatt.training.optim import OptimConfig, Optimiser
from vatt.training.parallel import parallelize

logger = logging.getLogger(__name__)

STATISTICS_CLIPS = 256
TIMED_CLIPS = 32  # of a dry run, at most
SCORES_TIMED = 2**29  # of the losses
BATCHES_HELD = 3  # as they are read: the one in work, and the next one in parts and joined
PATIENCE_S = 20.0  # that a dry run computes on a CPU before it times more than two clips
# What a setting was before it was one: the run of a config.toml without it goes on so.
EARLIER: Mapping[str, Any] = {
    "clip": {"short_audio": "repeat"},
    "data": {"positives": "nearest", "unknown_words": 0.0},
    "model": {"audio": {"peak": "none"}, "heads": {"learned": "none"}},
    "loss": {"duplicates": "negatives", "bias": -10.0},
    "optim": {"clip_scope": "all", "decay_scope": "all", "average": "none"},
    "dry_run": False,
    "world": 1,
}
# What may change when a run goes on: that, and what is evaluated meanwhile.
FREE = (
    *FREE_SETTINGS,
    "eval_every",
    "keep",
    *(f"evaluation.{one.name}" for one in fields(EvaluationConfig)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """Pre-train VATT on prepared shards; the same command continues an interrupted run."""

    out: Path
    """Run folder: config.toml, metrics.jsonl, TensorBoard events, checkpoints/ and model/."""
    start_from: Path | None = None
    """Model folder whose weights and words a new run begins with; with the state of an optimiser
    in it (a checkpoint, `vatt convert --optimizer`), training continues from its step."""
    data: DataConfig = field(default_factory=DataConfig)
    clip: ClipSpec = field(default_factory=ClipSpec)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    standardise: Literal["unit", "measured"] = "unit"
    """unit: frames enter the model in [-1, 1] (§4.3), or by model.video.mean and std. measured:
    by the mean and deviation of 256 training clips, which are stored with the model."""
    seed: int = 0
    eval_every: int | None = None
    """Steps between evaluations on clips that are held out; "none": nothing is evaluated."""
    keep: Literal["best", "last"] = "best"
    """Which model is in model/: the best of the evaluations, if there are any, or the last."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    dry_run: bool = False
    """Train nothing: time a few clips and the losses, say what the whole training would take."""
    world: int = 1
    """With dry_run, in one process: how many processes are to train; their shares are checked."""

    def __post_init__(self) -> None:
        audio = self.model.audio
        if audio.kind == "spectrogram" and audio.sample_rate_hz != self.clip.sample_rate_hz:
            raise ConfigError(
                f"model.audio.sample_rate_hz: found {audio.sample_rate_hz}, expected "
                f"clip.sample_rate_hz ({self.clip.sample_rate_hz}) for spectrograms"
            )
        if self.data.batch_size < 2:
            raise ConfigError(
                f"data.batch_size: found {self.data.batch_size}, expected 2 or more: a clip is "
                "learned by telling it from the others of its batch"
            )
        if self.world < 1 or (self.world > 1 and not self.dry_run):
            raise ConfigError(
                f"world: found {self.world}, expected 1 or more, with dry_run; torchrun starts the "
                "processes of a training"
            )
        self.optim.refuse_fewer(self.train.steps)
        first, (low, high) = -math.log(self.loss.temperature), BOUNDS["heads.log_scales"]
        if self.model.heads.learned != "none" and not low - 1e-6 <= first <= high + 1e-6:
            raise ConfigError(
                f"loss.temperature: found {self.loss.temperature}, expected {math.exp(-high):g} to "
                f"{math.exp(-low):g}, within which model.heads.learned keeps it"
            )
        if self.model.heads.learned == "temperature_and_bias" and self.loss.form != "sigmoid":
            raise ConfigError(
                f'model.heads.learned: found "temperature_and_bias" with loss.form '
                f'"{self.loss.form}", expected "temperature": only "sigmoid" has a bias'
            )
        if self.eval_every is not None and self.eval_every < 1:
            raise ConfigError(f"eval_every: found {self.eval_every}, expected >= 1, or none")


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainResult:
    """What a pre-training made; model: which one is in model/."""

    out: Path
    parameters: int
    steps: int
    loss: float | None
    model: str
    seconds: float
    clips_per_s: float | None
    waiting_share: float | None
    failed_clips: int
    """Videos of which a clip could not be read and was replaced; the log names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRunResult:
    """What a training would take, as far as a step or two on a few of its clips can tell.

    clips, videos: of the training data; epochs: passes over the clips in all steps.
    processes: that train; clips_of_a_process: its share of the batch, in so many micro_batches.
    timed_clips: that a process computed at once, and `timed_s` of backbones, heads and backward
        pass for them, of which `forward_s` is forward; `update_s` of the optimiser.
    loss_s: of the losses of a process at their real size, on random embeddings.
    step_s: calculated of these for the share of a process: timed_s × clips / timed clips +
        forward_s × clips whose forward pass runs twice (those of all micro-batches but the last) /
        timed clips + update_s + loss_s, without reading and exchanging.
    memory_gb: of each process. Counted for its share: weights, gradients and Adam's moments, the
        batch, and what the backward pass keeps of a micro-batch; measured at its real size: loss.
    fits: whether that is less than this device has; None where it does not say.
    loss: of the last timed step, before it.
    peak_memory_gb: of this process, or of its accelerator, with the timed clips.
    clips_per_s: of one process that computes; read_per_s: of one that reads, with what it decodes.
    hours: for all steps on this many processes.
    """

    clips: int
    videos: int
    parameters: int
    processes: int
    clips_of_a_process: int
    micro_batches: int
    memory_gb: Mapping[str, float]
    fits: bool | None
    timed_clips: int
    timed_s: float
    forward_s: float
    update_s: float
    loss_s: float
    step_s: float
    loss: float
    peak_memory_gb: float
    clips_per_s: float
    read_per_s: float
    steps: int
    epochs: float
    hours: float


def run(config: PretrainConfig) -> PretrainResult | DryRunResult:
    """Pre-train, or continue where the run folder's newest checkpoint stands.

    Raises:
        ConfigError: the run folder is of other settings, or nothing is left to train of the model
            that it starts from.
        DataError: shards are missing, are other ones than before, or too many of their items are
            bad.
        TrainingError: a loss or gradient is not finite; another process trains in this folder.
        CheckpointError: a checkpoint cannot be written or read.
    """
    shards = tuple(folder.absolute() for folder in config.data.shards)  # found from any folder
    config = replace(config, data=replace(config.data, shards=shards))
    if config.evaluation.shards:
        held_out = tuple(folder.absolute() for folder in config.evaluation.shards)
        config = replace(config, evaluation=replace(config.evaluation, shards=held_out))
    if config.start_from is not None:
        config = replace(config, start_from=local_folder(config.start_from))
    device = pick_device(config.train.device, distributed.local_rank())
    if config.dry_run:
        with (
            cpu_threads(config.train.threads),
            distributed.joined_ranks(device),
            told_of_dead_workers(),
        ):
            return try_out(config, device)
    if config.train.wandb != "off":
        wandb_module()  # before anything begins
    with (
        cpu_threads(config.train.threads),
        distributed.joined_ranks(device),
        alone_in(config.out, "pretrain"),
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
        config = from_values(PretrainConfig, settings, where=str(config.out / CONFIG_FILE))
        max_words = config.model.text.vocabulary
        tokenizer = vocabulary(
            config.out, config.data, max_words=max_words, start_from=config.start_from
        )
        dataset = ClipDataset(config.data, config.clip, config.augment, tokenizer, config.seed)
        dataset.check_contrast(texts=config.loss.text_weight > 0)
        state = resumed(config)
        renew_settings(config.out, settings)
        model = model_at(state, config, dataset).to(device)
        spread = parallelize(model.train(), config.train, layers_of(model))
        saved = model.state_dict().keys()
        optimiser = Optimiser(
            config.optim,
            model.named_parameters(),
            steps=config.train.steps,
            bounds=BOUNDS,
            buffers=[(name, value) for name, value in model.named_buffers() if name in saved],
        )
        optimiser.load_state(state.optimiser)
        state = replace(state, optimiser={})  # it has copied them
        loader = training_batches(
            dataset,
            steps=config.train.steps,
            device=device,
            start_step=state.step,
            facts=state.facts,
        )
        path = frame_path(
            config.data, antialias=config.augment.antialias, autocast=config.train.autocast
        )
        write = partial(
            write_model, model=model, clip=config.clip, tokenizer=tokenizer, frame_path=path
        )
        kept_in = config.out / "model" if distributed.is_main() else None
        weights = partial(judged_weights, model, optimiser)
        of = "trained" if config.optim.average is None else "average"

        def keep(about: Mapping[str, Any], chosen: Mapping[str, Tensor]) -> None:
            extra = {"weights": of, **about}
            checkpoint.save_model_folder(kept_in, partial(write, tensors=chosen, extra=extra))

        evaluation, best = None, state.facts.get("best", {})
        if config.eval_every is not None:
            if config.keep == "best":
                best = best_kept(config.out / "model", best)
            evaluation = PeriodicEvaluation(
                config.evaluation,
                config.data,
                config.clip,
                weights=weights,
                encoder_of=partial(
                    encoder_of, sizes=model.config, clip=config.clip, tokenizer=tokenizer,
                    path=path, device=device,
                ),
                best=best,
                keep=keep if config.keep == "best" else None,
            )  # fmt: skip
        learner = Learner(
            model=model,
            objective=partial(objective, model=spread, config=config),
            optimiser=optimiser,
            buffers=tuple(model.buffers()),
            write_model=write,
            facts=lambda: {
                "failures": loader.failures(),
                "data": state.facts["data"],
                **({"best": evaluation.best} if evaluation else {}),
            },
            seed=config.seed,
            skipped=state.facts.get("skipped_steps", 0),
            validate=evaluation or (lambda _: {}),
            validate_every=config.eval_every or config.train.steps,
        )
        if distributed.is_main() and (device.type == "cuda" or config.train.micro_batch):
            logger.info("%s", counted_memory(config))
        summary = train(config.train, learner, loader, folder=config.out, start_step=state.step)
        failed_clips, steps = len(loader.failures()), state.step + summary.steps_made
        best = evaluation.best if evaluation and config.keep == "best" else {}
        if steps == config.train.steps and not best:
            keep({"step": steps}, weights())
        distributed.barrier()
    return PretrainResult(
        out=config.out,
        parameters=sum(weight.numel() for weight in model.parameters()),
        steps=steps,
        loss=summary.loss,
        model=which_model(best, of, steps, config.train.steps),
        seconds=summary.seconds,
        clips_per_s=summary.clips_per_s,
        waiting_share=summary.waiting_share,
        failed_clips=failed_clips,
    )


def counted_memory(config: PretrainConfig) -> str:
    """What this process needs for its share of the batch, activations and loss apart."""
    share = len(distributed.own_slots(config.data.batch_size))
    at_once = min(share, config.train.micro_batch or share)
    counted = training_memory(blueprint(config.model), config.clip)
    divided = distributed.world_size() if config.train.parallel == "fsdp" else 1
    columns = config.data.batch_size * max(1, config.clip.texts)
    scores = share * min(columns, config.loss.chunk or max(1, SCORES_AT_ONCE // share))
    return (
        "memory, counted in float32 without train.recompute: weights, gradients and moments "
        f"{counted.total(0) / divided / 1e9:.3g} GB, activations of {at_once} clips "
        f"{counted.activations * at_once / 1e9:.3g} GB, scores of the loss "
        f"{4 * scores / 1e9:.3g} GB"
    )


def judged_weights(model: Vatt, optimiser: Optimiser) -> dict[str, Tensor]:
    """The whole weights that are evaluated and kept: those trained, or their moving averages.

    All ranks call it together.
    """
    return whole_weights(model.state_dict() | optimiser.averages())


def which_model(best: Mapping[str, Any], weights: str, steps: int, wanted: int) -> str:
    """Which one is in model/, in a few words."""
    of = "moving average" if weights == "average" else "weights"
    if best:
        return f"best: {of} after step {best['step']:,}, {best['measure']} {best['value']:.4g}"
    return f"{of} after the last step" if steps == wanted else "none yet"


def try_out(config: PretrainConfig, device: torch.device) -> DryRunResult:
    """Make a step or two of a few clips with fresh weights; writes nothing.

    Raises:
        ConfigError, DataError: what would stop the training before its first step.
    """
    ranks = max(config.world, distributed.world_size())
    share = len(distributed.own_slots(config.data.batch_size, ranks))
    at_once = min(share, config.train.micro_batch or share)
    kept = training_memory(blueprint(config.model), config.clip)
    clip_bytes = kept.activations + (kept.attention if device.type == "cpu" else 0)
    free = free_memory(device)
    fitting = TIMED_CLIPS if free is None else max(1, int((free / 2 - kept.total(0)) // clip_bytes))
    most = max(1 if distributed.world_size() > 1 else 2, min(at_once, fitting, TIMED_CLIPS))
    if fitting < most:
        config = replace(config, train=replace(config.train, micro_batch=fitting))
    with TemporaryDirectory() as aside:
        tokenizer = vocabulary(
            Path(aside),
            config.data,
            max_words=config.model.text.vocabulary,
            start_from=config.start_from,
        )
    dataset = ClipDataset(config.data, config.clip, config.augment, tokenizer, config.seed)
    dataset.check_contrast(texts=config.loss.text_weight > 0)
    if config.eval_every is not None:
        clip_sets(config.evaluation, config.data, config.clip)
    texts = max(1, config.clip.texts)
    of_losses = cost_of_losses(
        config.loss, config.model.heads, share, config.data.batch_size, texts, device,
        most_scores=SCORES_TIMED,
    )  # fmt: skip
    keep_freed_memory()  # as in training
    model = model_at(TrainingState(folder=config.start_from), config, dataset).to(device)
    spread = parallelize(model.train(), config.train, layers_of(model))
    optimiser = Optimiser(config.optim, model.named_parameters(), steps=config.train.steps)
    # On a CPU a step of a large model takes minutes: two clips say how many are worth while.
    waits = device.type == "cpu" and not config.train.compile
    made = min(2, most) if waits else most
    started = time.perf_counter()
    batch = first_clips(dataset, made, device)
    read_per_s = made / (time.perf_counter() - started)
    timed = timed_step(batch, spread, optimiser, config, device)
    if not waits or timed.pass_s < PATIENCE_S:
        if waits:
            made = max(made, min(most, int(PATIENCE_S * made / timed.pass_s)))
            made = min(distributed.gather_json(made))
        started = time.perf_counter()
        batch = first_clips(dataset, made, device)
        read_per_s = made / (time.perf_counter() - started)
        timed = timed_step(batch, spread, optimiser, config, device)
        if waits and timed.pass_s < PATIENCE_S / 2:  # the first one of a size is slower
            timed = timed_step(batch, spread, optimiser, config, device)
    peak = peak_memory(device)
    if config.world > 1:
        batch = first_clips(dataset, 1, device)
        with distributed.pretended_ranks(config.world):
            if config.train.parallel == "fsdp":
                plain = replace(config.train, compile=False, recompute=False)  # as it is already
                spread = parallelize(model, plain, layers_of(model))
            optimiser = Optimiser(config.optim, model.named_parameters(), steps=config.train.steps)
            timed_step(batch, spread, optimiser, config, device)
            memory = held(model, optimiser)
    else:
        memory = held(model, optimiser)
    values = [getattr(batch, one.name) for one in fields(batch)]
    batch_bytes = sum(value.nbytes for value in values if isinstance(value, Tensor)) / len(batch)
    memory |= {
        "batch": BATCHES_HELD * batch_bytes * share,
        "activations": float(at_once * clip_bytes),
        "loss": float(of_losses.bytes),
    }
    again = run_twice(share, at_once) / share - run_twice(made, at_once) / made
    step_s = (timed.pass_s + timed.forward_s * again) * share / made
    step_s += timed.update_s + of_losses.seconds
    return DryRunResult(
        clips=dataset.num_clips,
        videos=dataset.num_videos,
        parameters=sum(weight.numel() for weight in model.parameters()),
        processes=ranks,
        clips_of_a_process=share,
        micro_batches=math.ceil(share / at_once),
        memory_gb={name: size / 1e9 for name, size in memory.items()}
        | {"total": sum(memory.values()) / 1e9},
        fits=None if free is None else sum(memory.values()) < free,
        timed_clips=made,
        timed_s=timed.pass_s,
        forward_s=timed.forward_s,
        update_s=timed.update_s,
        loss_s=of_losses.seconds,
        step_s=step_s,
        loss=timed.loss,
        peak_memory_gb=peak / 1e9,
        clips_per_s=share / step_s,
        read_per_s=read_per_s,
        steps=config.train.steps,
        epochs=config.train.steps * config.data.batch_size / dataset.num_clips,
        hours=config.train.steps * step_s / 3600,
    )


def first_clips(dataset: ClipDataset, clips: int, device: torch.device) -> Batch:
    """So many for each rank, of the first batch of the training."""
    first = distributed.rank() * clips
    (batch,) = make_loader(dataset, steps=1, device=device, batch_size=clips, first_slot=first)
    return batch


class TimedStep(NamedTuple):
    """The loss before a step, and how long its passes, the one forward, and its update took."""

    loss: float
    pass_s: float
    forward_s: float
    update_s: float


def timed_step(
    batch: Batch, model: nn.Module, optimiser: Optimiser, config: PretrainConfig,
    device: torch.device,
) -> TimedStep:  # fmt: skip
    """Make the first update."""
    found: list[Mapping[str, Tensor]] = []

    def forward() -> None:
        found.append(objective(batch, model, config))

    def backward() -> None:
        torch.autograd.backward(found[0]["loss"])

    def update() -> None:
        optimiser.clip()
        optimiser.step(0)

    with step_randomness(config.seed, 0):
        forward_s, backward_s = once(forward, device) / 1e3, once(backward, device) / 1e3
    update_s = once(update, device) / 1e3
    loss = whole_batch(found[0])["loss"].item()
    return TimedStep(loss, forward_s + backward_s, forward_s, update_s)


def held(model: nn.Module, optimiser: Optimiser) -> dict[str, float]:
    """Bytes of this rank: of weights, as many of gradients, and the optimiser's state."""
    weights = sum(distributed.own_part(weight).nbytes for weight in model.parameters())
    state = sum(distributed.own_part(value).nbytes for value in optimiser.state().values())
    return {"weights": weights, "gradients": weights, "optimiser": state}


def resumed(config: PretrainConfig) -> TrainingState:
    """The state that training goes on from; refuses other data than before, or no step to make.

    Checkpoints of older versions do not say what their data was.
    """
    state = checkpoint.resume(config.out / "checkpoints", config.start_from)
    if not state.of_this_run and state.step >= config.train.steps:
        raise ConfigError(
            f"train.steps: found {config.train.steps}, expected more than {state.step}, the "
            f"steps that are made in {config.start_from}; train for more, or start from a "
            "model/ folder, which begins at step 0"
        )
    if state.step >= config.train.steps:
        logger.info("all %d steps are made: nothing is left to do", state.step)
    before = state.facts.get("data") if state.of_this_run else None
    data = same_data(config.data, before, state.folder)
    facts = state.facts if state.of_this_run else {}
    return replace(state, facts={**facts, "data": data})


def model_at(state: TrainingState, config: PretrainConfig, dataset: ClipDataset) -> Vatt:
    """The model that training goes on with; a new one's weights are a function of the seed.

    It standardises frames as `config` says; a run that continues, as it did.

    Raises:
        CheckpointError: the model in the state's folder is of other sizes.
    """
    sizes = config.model
    if config.standardise == "measured":
        if state.folder is not None and state.of_this_run:
            measured, _, _ = read_settings(state.folder)
            assert isinstance(measured, ModelConfig)
            mean, std = measured.video.mean, measured.video.std
        else:
            antialias = config.augment.antialias
            mean, std = measure_frames(dataset, STATISTICS_CLIPS, antialias=antialias)
            logger.info("frames in [-1, 1]: mean %s, deviation %s", mean, std)
        sizes = replace(sizes, video=replace(sizes.video, mean=mean, std=std))
    with seeded(draw_bits(config.seed, -1)):
        model = Vatt(sizes, sum_over_ranks=distributed.sum_over_ranks)
    model.heads.begin_scores(config.loss.temperature, config.loss.bias)
    if state.folder is not None:
        load_weights(model, state.folder)
    return model


def replay(capture: Path, device: str = "auto") -> Replayed:
    """Compute again the losses and gradients of a step that was not finite.

    Args:
        capture: `<run>/failures/step-…`; the batches of several ranks are joined.
        device: where.
    """
    run_folder, step = capture.parents[1], int(capture.name.removeprefix("step-"))
    where = run_folder / CONFIG_FILE
    config = from_values(PretrainConfig, merge(EARLIER, read_toml(where)), where=str(where))
    place = pick_device(device)
    parts = [load_batch(Batch, folder) for folder in rank_folders(capture)]
    model, _ = load_model(Vatt, capture / "rank-0", place)
    with cpu_threads(config.train.threads), step_randomness(config.seed, step):
        batch = Batch.joined(parts).to(place)
        again = partial(objective, batch, model.train(), config)
        return computed_again(model, again, batch.keys)


def whole_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same, whole on all ranks, which call it together."""
    return {name: distributed.whole(value) for name, value in tensors.items()}


def write_model(
    folder: Path | None,
    *,
    model: Vatt,
    clip: ClipSpec,
    tokenizer: WordTokenizer,
    frame_path: FramePath | None = None,
    weights: bool = True,
    tensors: Mapping[str, Tensor] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a model folder that loads alone: weights, settings, vocabulary.

    All ranks call it together, with None where nothing is to be written; without weights, or with
    `tensors` in place of the model's own, the main one alone may.
    """
    if not weights:
        assert folder is not None
        save_settings(folder, model.config, clip, extra, frame_path=frame_path)
    else:
        chosen = whole_weights(model.state_dict()) if tensors is None else tensors
        if folder is None:
            return
        save_model(folder, model, clip, extra, frame_path=frame_path, weights=chosen)
    tokenizer.save(folder / "tokenizer.json")
