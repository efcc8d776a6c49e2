"""`vatt bench`: how fast a training step is, of what the device can reach; what would feed it."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from vatt.contracts import Batch, ClipSpec
from vatt.costs.flops import blueprint
from vatt.costs.memory import training_memory
from vatt.data.augment import AugmentConfig
from vatt.data.data_config import DataConfig
from vatt.data.datasets import ClipDataset
from vatt.data.loader import training_batches
from vatt.data.statistics import vocabulary
from vatt.devices import (
    autocast,
    cpu_threads,
    free_memory,
    keep_freed_memory,
    peak_memory,
    peak_use,
    pick_device,
    processor,
    seeded,
)
from vatt.errors import ConfigError
from vatt.losses import LossConfig
from vatt.models.model_config import ModelConfig
from vatt.models.transformer import layers_of
from vatt.models.vatt import Vatt
from vatt.pretraining import objective
from vatt.speed.in_turn import in_turn
from vatt.speed.matrix_products import Products, large_product
from vatt.speed.noise_clips import noise_clips
from vatt.speed.peers import Peer, beside
from vatt.training.loop import Stopwatch, TrainConfig
from vatt.training.optim import OptimConfig, Optimiser
from vatt.training.parallel import parallelize

STEPS = 10**6  # of the schedule; no number here depends on it


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig:
    """Time a step of pre-training on clips of noise; with --data.shards also how it is fed."""

    clips: int = 8
    """Of the batch of one device."""
    repeats: int = 5
    """Times that each way is timed, in turn; medians are given."""
    against: Literal["none", "vivit", "videomae"] = "none"
    """A video classifier of Hugging Face of the same depth, width and tokens, beside ours."""
    data: DataConfig = field(default_factory=DataConfig)
    clip: ClipSpec = field(default_factory=ClipSpec)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in {"clips": 2, "repeats": 1}.items():
            if (found := getattr(self, name)) < least:
                raise ConfigError(f"{name}: found {found}, expected {least} or more")
        if self.against == "vivit" and self.model.video.transformer.style != "bert":
            raise ConfigError("--against: expected model.video.transformer.style bert")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """A training step in numbers; ratios of one run may be compared, times of two may not.

    numbers: what matrices are multiplied in.
    step_ms: median, least and most. gflops_of_a_step: of its matrix products, forward and backward;
        what is computed twice (micro-batches, recomputation) counts once.
    share_of_peak: achieved over what one large product reaches, measured in the same run.
    products_share: the step's own products, run alone, over the step.
    memory_gb: the most that was in use, of the accelerator or of this process.
    feeding: with shards, the share of the time spent waiting for clips, the milliseconds of one
        core that reading a clip takes, and the cores that would keep this device busy.
    against: the peer's milliseconds over ours, and its version.
    """

    device: str
    threads: int
    numbers: str
    torch: str
    clips: int
    parameters: int
    step_ms: Mapping[str, float]
    clips_per_s: float
    gflops_of_a_step: float
    achieved_gflops_per_s: float
    peak_gflops_per_s: float
    share_of_peak: float
    products_share: float
    memory_gb: float
    feeding: Mapping[str, float]
    against: Mapping[str, Any]


def run(config: BenchConfig) -> BenchResult:
    """Measure.

    Raises:
        ConfigError: there is no such device, its memory is too small, or the peer cannot have
            these sizes.
        DataError: the shards cannot be read.
        MissingExtraError: the peer's library is not installed.
    """
    device = pick_device(config.train.device)
    _refuse_too_large(config, device)
    keep_freed_memory()  # as in training
    with cpu_threads(config.train.threads):
        return _measured(config, device)


def _refuse_too_large(config: BenchConfig, device: torch.device) -> None:
    """Before the machine's memory is full, and other programs suffer."""
    at_once = min(config.clips, config.train.micro_batch or config.clips)
    kept = training_memory(blueprint(config.model), config.clip)
    if config.train.recompute:
        return  # keeps less than is counted
    asked = kept.total(at_once) + (at_once * kept.attention if device.type == "cpu" else 0)
    free = free_memory(device)
    if free is not None and asked > free:
        raise ConfigError(
            f"clips: {at_once} at once take about {asked / 1e9:.1f} GB, and {free / 1e9:.1f} GB of "
            f"{device} are free; give --train.micro_batch, fewer --clips, or a smaller model, like "
            "--preset demo"
        )


def _measured(config: BenchConfig, device: torch.device) -> BenchResult:
    computing = partial(autocast, config.train.autocast, device)
    with seeded(config.seed):
        model = Vatt(config.model).train().to(device)
        batch = noise_clips(config.clips, config.clip, config.model.text.vocabulary).to(device)
        # A part at a time is multiplied, and others of the same sizes follow.
        at_once = min(config.clips, config.train.micro_batch or config.clips)
        parts = config.clips / at_once
        part = noise_clips(at_once, config.clip, config.model.text.vocabulary).to(device)
        products = _products(config, model, part)
        flops = products.flops * parts
        spread = parallelize(model, config.train, layers_of(model))
        optimiser = Optimiser(OptimConfig(clip_norm=1.0), model.named_parameters(), steps=STEPS)

        def step(clips: Batch = batch) -> None:
            torch.autograd.backward(objective(clips, spread, config)["loss"])
            optimiser.clip()
            optimiser.step(0)

        with peak_use(device):  # forgets what was needed so far
            step()
            step()  # the first has no moments of Adam yet
        memory = peak_memory(device)
        with computing():
            bfloat16 = torch.is_autocast_enabled(device.type)
        large, large_flops = large_product(torch.bfloat16 if bfloat16 else torch.float32, device)
        ways = {"step": step, "products": products.alone(device), "large": large}
        if config.against != "none":
            ways |= beside(
                config.against, config.model.video, config.clip, config.clips,
                device=device, computing=computing,
            )  # fmt: skip
        times = in_turn(ways, device=device, repeats=config.repeats)
        median = {name: statistics.median(of) for name, of in times.items()}
        peak = large_flops / min(times["large"]) / 1e6
        clips_per_s = config.clips / median["step"] * 1e3
        feeding = _feeding(config, device, step, clips_per_s) if config.data.shards else {}
    gpu = device.type == "cuda"
    return BenchResult(
        device=torch.cuda.get_device_name(device) if gpu else processor(),
        threads=torch.get_num_threads(),
        numbers="bfloat16" if bfloat16 else "float32",
        torch=torch.__version__,
        clips=config.clips,
        parameters=sum(weight.numel() for weight in model.parameters()),
        step_ms={
            "median": median["step"], "min": min(times["step"]), "max": max(times["step"]),
        },
        clips_per_s=clips_per_s,
        gflops_of_a_step=flops / 1e9,
        achieved_gflops_per_s=flops / median["step"] / 1e6,
        peak_gflops_per_s=peak,
        share_of_peak=flops / median["step"] / 1e6 / peak,
        products_share=median["products"] * parts / median["step"],
        memory_gb=memory / 1e9,
        feeding=feeding,
        against=_ratios(config.against, median),
    )  # fmt: skip


def _products(config: BenchConfig, model: Vatt, batch: Batch) -> Products:
    """Those of a step, each once; with train.recompute in as little memory as the step takes."""
    whole = replace(config, train=replace(config.train, micro_batch=None))
    products, in_backward = Products(), False

    def noted_once(forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
        products.heeds = not in_backward
        try:
            return forward(*given, **named)
        finally:
            products.heeds = True

    blocks: Sequence[nn.Module] = layers_of(model) if config.train.recompute else ()
    for block in blocks:
        block.forward = partial(checkpoint, partial(noted_once, block.forward), use_reentrant=False)
    with products:
        loss = objective(batch, model, whole)["loss"]
        in_backward = True
        torch.autograd.backward(loss)
    for block in blocks:
        del block.forward
    model.zero_grad(set_to_none=True)
    return products


def _ratios(peer: Literal["none"] | Peer, median: Mapping[str, float]) -> dict[str, Any]:
    if peer == "none":
        return {}
    from transformers import __version__

    return {
        "peer": peer,
        "transformers": __version__,
        "their_forward_over_ours": median["their forward"] / median["our forward"],
        "their_step_over_ours": median["their step"] / median["our step"],
    }


def _feeding(
    config: BenchConfig, device: torch.device, step: Any, clips_per_s: float
) -> dict[str, float]:
    """Steps on clips of the shards, and what it costs to read them."""
    data = replace(config.data, batch_size=config.clips)
    with TemporaryDirectory() as aside:
        tokenizer = vocabulary(
            Path(aside), data, max_words=config.model.text.vocabulary, start_from=None
        )
    dataset = ClipDataset(data, config.clip, config.augment, tokenizer, config.seed)
    started = time.process_time()
    dataset.batch(range(config.clips))
    per_clip_s = (time.process_time() - started) / config.clips
    steps, clock = config.repeats + 1, Stopwatch()
    batches = training_batches(dataset, steps=steps, device=device, start_step=0, facts={})
    for number, batch in enumerate(clock.waiting_for(batches)):
        step(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        clock.count(len(batch))
        if number == 0:  # workers have begun
            clock.lap()
    return {
        "waiting_share": clock.lap()["waiting_share"],
        "read_ms_per_clip": per_clip_s * 1e3,
        "cores_to_keep_up": math.ceil(clips_per_s * per_clip_s),
    }
