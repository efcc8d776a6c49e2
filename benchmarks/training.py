"""How fast is a training step, beside a peer and beside its own matrix products?

    pip install "vatt[bench]"
    python benchmarks/training.py [--quick] [--repeats 5] [--device cuda] [--autocast off]

A classifier of video with Base layers (§3.2) on noise, and Hugging Face's ViViT of the same depth,
width, patches and tokens, with its fused attention; both eager unless said otherwise. All ways take
turns, and the medians are compared.

forward_vs_vivit        their forward pass over ours, without gradients
step_vs_vivit           their training step (forward, backward, AdamW) over ours
step_vs_vivit_compiled  their eager step over ours with compiled layers
drop50_cost             our step with DropToken 50 % over ours without
matmul_share            the matrix products of our step, run alone, over our step
loop_overhead           share of a pre-training step that is not objective, backward or update
micro_batch_cost        a pre-training step in 4 micro-batches over the undivided one

Ends in one JSON line. --quick: 4 layers on 196 patches, about a minute.
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
from timing import in_turn, processor
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import VivitConfig, VivitForVideoClassification

from vatt.config import from_values
from vatt.contracts import Batch, ClipSpec
from vatt.devices import autocast
from vatt.models.classifier import Classifier, ClassifierConfig
from vatt.models.model_config import ModelConfig, VideoConfig
from vatt.models.transformer import BASE, layers_of
from vatt.models.vatt import Vatt
from vatt.presets import demo
from vatt.tasks.pretrain import PretrainConfig, objective
from vatt.training.loop import Learner, TrainConfig, train
from vatt.training.optim import OptimConfig, Optimiser
from vatt.training.parallel import parallelize

CLASSES = 400
LOOP_STEPS = 4
aten = torch.ops.aten


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--autocast", default="auto", choices=["auto", "off", "bfloat16"])
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    clip = (16, 112, 4) if chosen.quick else (32, 224, 12)  # frames, side, layers
    clips = (2 if chosen.quick else 1) * (8 if device.type == "cuda" else 1)
    found = classifiers(*clip, clips, chosen.autocast, device, chosen.repeats)
    found |= pretraining(128, chosen.autocast, device, chosen.repeats)
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
) -> dict[str, float]:
    """Our classifier and theirs, and what ours spends its time on."""
    torch.manual_seed(0)
    backbone = replace(BASE, layers=layers, dropout=0.0)
    video = VideoConfig(transformer=backbone, buckets=(frames // 4, side // 16, side // 16))
    sizes = ModelConfig(video=video, drop_token=0.0)
    ours = classifier(sizes, device)
    dropping = classifier(replace(sizes, drop_token=0.5), device)
    compiled = classifier(sizes, device)
    parallelize(compiled, TrainConfig(compile=True), layers_of(compiled))
    theirs = vivit(frames, side, layers, device)
    signal = torch.rand(clips, frames, side, side, 3, device=device) * 2 - 1
    pixels = signal.permute(0, 1, 4, 2, 3).contiguous()
    labels = torch.randint(CLASSES, (clips,), device=device)
    draw = torch.randint(1 << 62, (clips,), device=device)
    computing = partial(autocast, how, device)

    def forward(model: nn.Module, *inputs: Tensor) -> Callable[[], None]:
        def run() -> None:
            with torch.inference_mode(), computing():
                model(*inputs)

        return run

    def step(model: nn.Module, logits: Callable[[], Tensor]) -> Callable[[], None]:
        update = adamw(model)

        def run() -> None:
            with computing():
                loss = nn.functional.cross_entropy(logits().float(), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            update()

        return run

    ways = {
        "ours forward": forward(ours, signal),
        "their forward": forward(theirs, pixels),
        "ours": step(ours, lambda: ours(signal)),
        "theirs": step(theirs, lambda: theirs(pixels).logits),
        "compiled": step(compiled, lambda: compiled(signal)),
        "dropping": step(dropping, lambda: dropping(signal, draw)),
    }
    with Products() as products:
        ways["ours"]()
    ways["products"] = products.alone(device)
    times = in_turn(ways, device=device, repeats=repeats)
    medians = {name: statistics.median(of) for name, of in times.items()}
    for name, value in medians.items():
        print(f"{name:<14} {value:8.0f} ms")
    return {
        "forward_vs_vivit": medians["their forward"] / medians["ours forward"],
        "step_vs_vivit": medians["theirs"] / medians["ours"],
        "step_vs_vivit_compiled": medians["theirs"] / medians["compiled"],
        "drop50_cost": medians["dropping"] / medians["ours"],
        "matmul_share": medians["products"] / medians["ours"],
    }


def classifier(sizes: ModelConfig, device: torch.device) -> Classifier:
    """Ours, in training mode."""
    return Classifier(ClassifierConfig(classes=CLASSES, model=sizes)).train().to(device)


def vivit(frames: int, side: int, layers: int, device: torch.device) -> nn.Module:
    """Theirs, of the same sizes, in training mode, without dropout."""
    config = VivitConfig(
        image_size=side,
        num_frames=frames,
        tubelet_size=[4, 16, 16],
        num_hidden_layers=layers,
        num_labels=CLASSES,
    )
    config._attn_implementation = "sdpa"
    model: nn.Module = VivitForVideoClassification(config).train().to(device)
    return model


def adamw(model: nn.Module) -> Callable[[], None]:
    """An update of all weights that forgets the gradients, the same for both."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def update() -> None:
        optimiser.step()
        optimiser.zero_grad()

    return update


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the shapes of all matrix products, those inside fused attention too."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shapes: list[tuple[torch.Size, torch.Size, torch.dtype]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the operation."""
        name = func._schema.name
        if name in ("aten::mm", "aten::bmm"):
            self._note(args[0], args[1].shape)
        elif name in ("aten::addmm", "aten::baddbmm"):
            self._note(args[1], args[2].shape)
        elif "scaled_dot_product" in name:
            q = args[1] if "backward" in name else args[0]
            q = q.flatten(0, 1)
            for _ in range(5 if "backward" in name else 2):  # of equal work: N × N × head width
                self._note(q, q.transpose(1, 2).shape)
        return func(*args, **(kwargs or {}))

    def _note(self, left: Tensor, right: torch.Size) -> None:
        self.shapes.append((left.shape, right, left.dtype))

    def alone(self, device: torch.device) -> Callable[[], None]:
        """The same products of random numbers, one after the other."""

        def noise(shape: torch.Size, dtype: torch.dtype) -> Tensor:
            return torch.randn(shape, device=device).to(dtype)

        made = {
            (left, right, dtype): (noise(left, dtype), noise(right, dtype))
            for left, right, dtype in self.shapes
        }
        operands = [made[key] for key in self.shapes]

        def run() -> None:
            with torch.inference_mode():
                for left, right in operands:
                    left @ right

        return run


def pretraining(clips: int, how: Any, device: torch.device, repeats: int) -> dict[str, float]:
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
    batch = noise(clips, config.clip, config.model.text.vocabulary).to(device)
    model = Vatt(config.model).train().to(device)
    optimiser = Optimiser(config.optim, model.named_parameters(), steps=10**6)

    def step(config: PretrainConfig = config) -> None:
        objective(batch, model, config)["loss"].backward()  # type: ignore[no-untyped-call]
        optimiser.clip()
        optimiser.step(0)

    micro = replace(config, train=replace(config.train, micro_batch=max(1, clips // 4)))
    ways = {
        "step": step,
        "in 4 micro-batches": partial(step, micro),
        "loop": partial(loop, config, model, optimiser, batch),
    }
    times = in_turn(ways, device=device, repeats=repeats)
    medians = {name: statistics.median(of) for name, of in times.items()}
    # The last step of a loop saves a checkpoint, which a longer training does once in a while.
    looped = statistics.median(loop_seconds) * 1e3
    print(f"step of {clips} clips {medians['step']:.0f} ms, in the loop {looped:.0f} ms")
    return {
        "loop_overhead": 1 - medians["step"] / looped,
        "micro_batch_cost": medians["in 4 micro-batches"] / medians["step"],
    }


loop_seconds: list[float] = []  # from one step's batch to the next one's


def loop(config: PretrainConfig, model: Vatt, optimiser: Optimiser, batch: Batch) -> None:
    """The training loop; notes how long its steps take."""

    def batches() -> Iterator[Batch]:
        for _ in range(LOOP_STEPS):
            started = time.perf_counter()
            yield batch  # until the next one is asked for
            loop_seconds.append(time.perf_counter() - started)

    learner = Learner(
        model=model,
        objective=partial(objective, model=model, config=config),
        optimiser=optimiser,
        write_model=lambda _, /, weights=True: None,
        facts=dict,
        seed=0,
        buffers=tuple(model.buffers()),
    )
    with TemporaryDirectory() as folder:
        train(config.train, learner, batches(), folder=Path(folder), start_step=0)


def noise(clips: int, clip: ClipSpec, vocabulary: int) -> Batch:
    """Clips of random numbers, with audio and all texts."""
    shape = (clips, clip.frames, clip.height, clip.width, 3)
    return Batch(
        keys=tuple(map(str, range(clips))),
        starts_s=(0.0,) * clips,
        frames=torch.randint(0, 256, shape, dtype=torch.uint8),
        layout=torch.tensor([[0, clip.height, clip.width, 0, 0]] * clips),
        waveform=torch.randint(-9000, 9000, (clips, clip.samples), dtype=torch.int16),
        has_audio=torch.ones(clips, dtype=torch.bool),
        word_ids=torch.randint(1, vocabulary, (clips, clip.texts, clip.words)),
        text_mask=torch.ones(clips, clip.texts, dtype=torch.bool),
        draw=torch.randint(1 << 62, (clips,)),
        crop=torch.tensor([[0.0, 0.0, 1.0, 1.0]] * clips),
        flip=torch.zeros(clips, dtype=torch.bool),
        colour=torch.tensor([[0.0, 1.0, 1.0, 0.0]] * clips),
        gain=torch.ones(clips),
        videos=tuple(range(clips)),
        positions=tuple(range(clips)),
    )


if __name__ == "__main__":
    main()
