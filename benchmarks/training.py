"""How fast is a training step, beside a peer and beside its own matrix products?

    pip install "vatt[bench]"
    python benchmarks/training.py [--quick] [--repeats 5] [--device cuda] [--autocast off]

A classifier of video with Base layers (§3.2) on noise, and Hugging Face's ViViT of the same depth,
width, patches and tokens, with its fused attention; both eager unless said otherwise. All ways take
turns; a figure is the median of the rounds' ratios.

forward_vs_vivit        their forward pass over ours, without gradients
step_vs_vivit           their training step (forward, backward, AdamW) over ours
step_vs_vivit_compiled  their eager step over ours with compiled layers
drop50_cost             our step with DropToken 50 % over ours without
matmul_share            the matrix products of our step, run alone, over our step
loop_overhead           share of a pre-training step of 64 clips that is not objective, backward or
                        update
micro_batch_cost        a pre-training step in 4 micro-batches over the undivided one: of 8 clips
                        of 32 × 224² through two Base layers; --quick: of 256 clips of the demo

Ends in one JSON line. --quick: 4 layers on 196 patches, about a minute. --profile: also where our
step spends its time, by kind of operation.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers

from vatt.config import from_values
from vatt.contracts import Batch, ClipSpec
from vatt.devices import autocast, keep_freed_memory, processor
from vatt.models.model_config import ModelConfig, VideoConfig
from vatt.models.transformer import BASE, layers_of
from vatt.models.vatt import Vatt
from vatt.presets import demo
from vatt.pretraining import objective
from vatt.speed import peers
from vatt.speed.in_turn import in_turn
from vatt.speed.matrix_products import Products
from vatt.speed.noise_clips import noise_clips
from vatt.tasks.pretrain import PretrainConfig
from vatt.training.loop import Learner, TrainConfig, train
from vatt.training.optim import OptimConfig, Optimiser
from vatt.training.parallel import parallelize

CLASSES = 400
LOOP_STEPS, LOOP_CLIPS = 3, 64


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--autocast", default="auto", choices=["auto", "off", "bfloat16"])
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    keep_freed_memory()  # as in training; theirs have the use of it, too
    clip = (16, 112, 4) if chosen.quick else (32, 224, 12)  # frames, side, layers
    clips = (2 if chosen.quick else 1) * (8 if device.type == "cuda" else 1)
    found = classifiers(
        *clip, clips, chosen.autocast, device, chosen.repeats, profiles=chosen.profile
    )
    found |= pretraining(chosen.autocast, device, chosen.repeats, quick=chosen.quick)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    print(
        f"{gpu or processor()}; {torch.get_num_threads()} threads; torch {torch.__version__}; "
        f"transformers {transformers.__version__}; autocast {chosen.autocast}; "
        f"{clips} clips of {clip[0]} × {clip[1]}², {clip[2]} layers"
    )
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))


def classifiers(
    frames: int,
    side: int,
    layers: int,
    clips: int,
    how: Any,
    device: torch.device,
    repeats: int,
    *,
    profiles: bool,
) -> dict[str, float]:
    """Our classifier and theirs, and what ours spends its time on."""
    torch.manual_seed(0)
    video = VideoConfig(
        transformer=replace(BASE, layers=layers), buckets=(frames // 4, side // 16, side // 16)
    )
    clip = ClipSpec(frames=frames, height=side, width=side)
    computing = partial(autocast, how, device)
    ways = peers.beside("vivit", video, clip, clips, device=device, computing=computing)
    signal, _, labels = peers.noise(clip, clips, device)
    draw = torch.randint(1 << 62, (clips,), device=device)
    dropping = peers.ours(video, device, drop_token=0.5)
    compiled = peers.ours(video, device)
    parallelize(compiled, TrainConfig(compile=True), layers_of(compiled))
    ways["compiled"] = peers.step(compiled, lambda: compiled(signal), labels, computing)
    ways["dropping"] = peers.step(dropping, lambda: dropping(signal, draw), labels, computing)
    with Products() as products:
        ways["our step"]()
    ways["products"] = products.alone(device)
    times = in_turn(ways, device=device, repeats=repeats)
    for name, of in times.items():
        print(f"{name:<14} {statistics.median(of):8.0f} ms")
    if profiles:
        profile(ways["our step"])
    return {
        "forward_vs_vivit": ratio(times["their forward"], times["our forward"]),
        "step_vs_vivit": ratio(times["their step"], times["our step"]),
        "step_vs_vivit_compiled": ratio(times["their step"], times["compiled"]),
        "drop50_cost": ratio(times["dropping"], times["our step"]),
        "matmul_share": ratio(times["products"], times["our step"]),
    }


def ratio(times: list[float], others: list[float]) -> float:
    """The median over the rounds: the two of a round met the same load."""
    return statistics.median(one / other for one, other in zip(times, others, strict=True))


KINDS = {  # of operations, by what their names hold; the first that fits
    "matrix products": ("mm", "matmul", "scaled_dot", "linear"),
    "softmax": ("softmax",),
    "GELU": ("gelu",),
    "norms": ("norm",),
    "optimiser": ("adam",),
    "copies, casts, layout": ("copy", "aten::cat", "clone", "contiguous", "fill", "zero", "empty"),
    "sums, products and bias by element": ("add", "mul", "sum", "div", "where", "sub"),
}


def profile(way: Callable[[], object]) -> None:
    """Print the share of one call's time on the host by kind of operation."""
    with torch.profiler.profile() as profiler:
        way()
    spent = dict.fromkeys([*KINDS, "rest"], 0.0)
    for event in profiler.key_averages():
        name = event.key.lower()
        kind = next((k for k, parts in KINDS.items() if any(p in name for p in parts)), "rest")
        spent[kind] += event.self_cpu_time_total
    for kind, value in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"{value / sum(spent.values()):6.1%}  {kind}")


def pretraining(how: Any, device: torch.device, repeats: int, *, quick: bool) -> dict[str, float]:
    """The loop around a pre-training step of the demo's size, and the price of micro-batches."""
    values = demo()
    config = PretrainConfig(
        out=Path("unused"),
        clip=from_values(ClipSpec, values["clip"], where="demo"),
        model=from_values(ModelConfig, values["model"], where="demo"),
        optim=OptimConfig(warmup_steps=0, clip_norm=1.0),
        train=TrainConfig(
            steps=LOOP_STEPS, log_every=10**6, save_every=10**6, autocast=how, device=str(device)
        ),
    )
    parts, clips = (config, 256) if quick else (base_layers(config), 8)
    micro = replace(parts, train=replace(parts.train, micro_batch=clips // 4))
    step, learner, some = stepping(config, LOOP_CLIPS, device)
    large_step, _, many = stepping(parts, clips, device)
    ways = {
        "step": partial(step, some, config),
        "loop": partial(loop, config, learner, some),
        "whole": partial(large_step, many, parts),
        "in 4 micro-batches": partial(large_step, many, micro),
    }
    times = in_turn(ways, device=device, repeats=repeats)
    looped = loop_ms[1:]  # the first one warms up
    for name, of in (times | {"step in the loop": looped}).items():
        print(f"{name:<18} {statistics.median(of):8.0f} ms")
    return {
        "loop_overhead": 1 - ratio(times["step"], looped),
        "micro_batch_cost": ratio(times["in 4 micro-batches"], times["whole"]),
    }


def base_layers(config: PretrainConfig) -> PretrainConfig:
    """The paper's video through two layers of Base, beside the demo's audio and texts."""
    video = VideoConfig(transformer=replace(BASE, layers=2, dropout=0.0))
    return replace(
        config,
        clip=replace(config.clip, frames=32, height=224, width=224),
        model=replace(config.model, video=video, drop_token=0.0),
    )


def stepping(
    config: PretrainConfig, clips: int, device: torch.device
) -> tuple[Callable[[Batch, PretrainConfig], None], Learner[Batch], Batch]:
    """A step of pre-training, what the loop takes of it, and a batch of noise."""
    batch = noise_clips(clips, config.clip, config.model.text.vocabulary).to(device)
    model = Vatt(config.model).train().to(device)
    optimiser = Optimiser(config.optim, model.named_parameters(), steps=10**6)

    def step(batch: Batch, config: PretrainConfig) -> None:
        objective(batch, model, config)["loss"].backward()  # type: ignore[no-untyped-call]
        optimiser.clip()
        optimiser.step(0)

    learner: Learner[Batch] = Learner(
        model=model,
        objective=partial(objective, model=model, config=config),
        optimiser=optimiser,
        write_model=lambda _, /, weights=True: None,
        facts=dict,
        seed=0,
        buffers=tuple(model.buffers()),
    )
    return step, learner, batch


loop_ms: list[float] = []  # of each loop, the median step, from its batch to the next one's


def loop(config: PretrainConfig, learner: Learner[Batch], batch: Batch) -> None:
    """The training loop; notes how long its steps take."""
    seconds = list[float]()

    def batches() -> Iterator[Batch]:
        for _ in range(LOOP_STEPS):
            started = time.perf_counter()
            yield batch  # until the next one is asked for
            seconds.append(time.perf_counter() - started)

    with TemporaryDirectory() as folder:
        train(config.train, learner, batches(), folder=Path(folder), start_step=0)
    # The last step saves a checkpoint, which a longer training does once in a while.
    loop_ms.append(statistics.median(seconds[:-1]) * 1e3)


if __name__ == "__main__":
    main()
