"""Parameters, tokens and operations of a model, counted without making its weights.

Nothing here is a formula for a whole network. A *blueprint* is the real module with tensors that
have a shape and no numbers; it runs forward as always, and what it does is counted call by call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from vatt.contracts import ClipSpec, Inputs
from vatt.models.classifier import Classifier
from vatt.models.model_config import Modality
from vatt.models.vatt import Vatt
from vatt.models.weights import Settings, build_empty

MODALITIES: tuple[Modality, ...] = ("video", "audio", "text")
HEADS = "heads"
SOFTMAX_COST = 5  # per score: shift (2), exponential (1), divide by the sum (2)
aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Flops:
    """Floating-point operations, a multiply-add being two, by kind.

    products: of all matrix products but the next, with their biases.
    scores: of the products q·kᵀ of queries with keys.
    softmaxed: how many scores went through softmax (a number of scores, not of operations).
    queries: how many numbers the queries of these products have, likewise.
    other: norms, activations and all that is done element by element.
    """

    products: int = 0
    scores: int = 0
    softmaxed: int = 0
    queries: int = 0
    other: int = 0

    def __add__(self, more: Flops) -> Flops:
        return Flops(
            self.products + more.products,
            self.scores + more.scores,
            self.softmaxed + more.softmaxed,
            self.queries + more.queries,
            self.other + more.other,
        )

    @property
    def full(self) -> int:
        """Every operation."""
        return self.products + self.scores + SOFTMAX_COST * self.softmaxed + self.other

    @property
    def as_paper(self) -> int:
        """As TensorFlow's profiler counts the official model: q·kᵀ left out (docs/info.md).

        The official model divides every score by √d, where ours scales the queries.
        """
        return self.full - self.scores - self.queries + self.softmaxed


class FlopCounter(TorchDispatchMode):
    """Counts what is computed in its context, by part.

    The product that a softmax follows is one of queries with keys: the last one before it. No
    backbone has a softmax after a layer.

    Args:
        parts: name → module; work inside the module counts for that name.
        elsewhere: the name for all other work.
        of: the kind of tensors whose making counts; of a blueprint's, small tables that are
            computed once and kept (position weights, mel filters) do not count.
    """

    def __init__(
        self,
        parts: Mapping[str, nn.Module] | None = None,
        elsewhere: str = "",
        *,
        of: type[Tensor] = Tensor,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._of = of
        self.by_part: dict[str, Flops] = {}
        self._parts = dict(parts or {})
        self._inside = [elsewhere]
        self._last_product: tuple[str, Flops] | None = None
        self._hooks = ExitStack()

    def __enter__(self) -> FlopCounter:
        self._hooks.enter_context(sdpa_kernel(SDPBackend.MATH))  # attention written out
        for name, part in self._parts.items():
            for module in part.modules():
                entering = partial(self._enter_part, name)
                self._hooks.callback(module.register_forward_pre_hook(entering).remove)
                self._hooks.callback(module.register_forward_hook(self._leave_part).remove)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._hooks.close()

    @property
    def total(self) -> Flops:
        """Of all parts."""
        return sum(self.by_part.values(), Flops())

    def _enter_part(self, name: str, *_: Any) -> None:
        self._inside.append(name)

    def _leave_part(self, *_: Any) -> None:
        self._inside.pop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the operation, and count it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        first = out[0] if isinstance(out, tuple | list) and out else out
        if not isinstance(first, self._of):
            return out
        if func is aten._softmax.default:
            self._count(Flops(softmaxed=first.numel()))
            if self._last_product is not None:
                part, moved = self._last_product
                self.by_part[part] += moved
                self._last_product = None
        elif func.overloadpacket in flop_registry:
            flops = int(flop_registry[func.overloadpacket](*args, **kwargs, out_val=out))
            if func is aten.addmm.default:
                flops += first.numel()  # the bias, which torch's formula leaves out
            if func in (aten.mm.default, aten.bmm.default):
                moved = Flops(products=-flops, scores=flops, queries=args[0].numel())
                self._last_product = self._inside[-1], moved
            self._count(Flops(products=flops))
        else:
            self._count(Flops(other=_element_by_element(func, args, first)))
        return out

    def _count(self, flops: Flops) -> None:
        part = self._inside[-1]
        self.by_part[part] = self.by_part.get(part, Flops()) + flops


# Operations per element of the output, counted as TensorFlow's profiler counts their formulas.
PER_ELEMENT: dict[Any, int] = {
    aten.gelu.default: 4,  # 0.5 · x · (1 + erf(x / √2)); erf itself is not counted
    aten.native_layer_norm.default: 5,  # mean, (x − mean)², its mean, · scale, + shift
    aten.bernoulli_.float: 1,  # dropout compares with the rate; its · scale and · mask are seen
    aten.clone.default: 0,
    aten._to_copy.default: 0,
}
REDUCTIONS = {
    aten.sum.dim_IntList,
    aten.sum.default,
    aten.mean.dim,
    aten.mean.default,
    aten.amax.default,
    aten.amin.default,
}


def _element_by_element(func: Any, args: Sequence[Any], out: Tensor) -> int:
    """Operations of anything but a product; copies, comparisons and integers count as none."""
    if not (out.is_floating_point() or out.is_complex()):
        return 0
    if func in PER_ELEMENT:
        return PER_ELEMENT[func] * out.numel()
    if func is aten._fft_r2c.default:
        return int(2.5 * args[0].numel() * math.log2(args[0].shape[-1]))
    if func in REDUCTIONS:
        return int(args[0].numel())
    return out.numel() if torch.Tag.pointwise in func.tags else 0


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A model whose tensors have shapes and no numbers, so that it takes no memory at any size.

    model: the real module, in evaluation mode.
    mode: makes and keeps its kind of tensors.
    """

    model: Vatt | Classifier
    mode: FakeTensorMode

    def inputs(self, clip: ClipSpec, *, drop: bool = False) -> Inputs:
        """One clip; with `drop`, one whose tokens DropToken drops."""
        with self.mode:
            return Inputs(
                frames=torch.empty(1, clip.frames, clip.height, clip.width, 3),
                audio=torch.empty(1, clip.samples),
                has_audio=torch.ones(1, dtype=torch.bool),
                word_ids=torch.ones(1, clip.texts, clip.words, dtype=torch.int64),
                text_mask=torch.ones(1, clip.texts, dtype=torch.bool),
                draw=torch.zeros(1, dtype=torch.int64) if drop else None,
            )


def blueprint(settings: Settings) -> Blueprint:
    """The model or classifier of these settings, without weights."""
    model = build_empty(settings).eval()
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:  # on the CPU as far as the model knows: the meta device has no autocast
        model.to_empty(device="cpu")
    return Blueprint(model, mode)


def modalities_of(model: Vatt | Classifier) -> tuple[Modality, ...]:
    """What the model takes."""
    return (model.config.modality,) if isinstance(model, Classifier) else MODALITIES


def parts_of(model: Vatt | Classifier) -> dict[str, nn.Module]:
    """The model's parts by name, in the order of the flow."""
    parts: dict[str, nn.Module] = {f"{m}_tokens": tokens_of(model, m) for m in modalities_of(model)}
    if isinstance(model, Classifier):
        parts[f"{model.config.modality}_backbone"] = model.backbone
        if model.post_projection is not None:
            parts["post_projections"] = model.post_projection
        return parts | {HEADS: model.linear}
    parts |= {f"{name}_backbone": backbone for name, backbone in model.backbones.items()}
    if model.relative_bias is not None:
        parts["relative_bias"] = model.relative_bias
    if len(model.post_projections):
        parts["post_projections"] = model.post_projections
    return parts | {HEADS: model.heads}


def tokens_of(model: Vatt | Classifier, modality: Modality) -> nn.Module:
    """What makes the tokens of a modality."""
    if isinstance(model, Classifier):
        return model.tokens
    module: nn.Module = getattr(model, f"{modality}_tokens")
    return module


@dataclass(frozen=True, slots=True)
class Parameters:
    """Numbers that a part holds, and how many of them training changes."""

    all: int
    trainable: int


def count_parameters(*modules: nn.Module) -> Parameters:
    """Of some modules together; what they share counts once."""
    found = {id(p): p for module in modules for p in module.parameters()}.values()
    trainable = sum(p.numel() for p in found if p.requires_grad)
    return Parameters(sum(p.numel() for p in found), trainable)


def forward_flops(
    plan: Blueprint, clip: ClipSpec, *, training: bool
) -> dict[str, dict[str, Flops]]:
    """Operations of one forward pass of one clip with all of its texts, as the model runs.

    Args:
        plan: the model.
        clip: the clip's sizes.
        training: with DropToken and dropout.

    Returns:
        For each modality of the model, and for "heads": part → operations.
    """
    model, inputs = plan.model.train(training), plan.inputs(clip, drop=training)
    parts = parts_of(model)
    found: dict[str, dict[str, Flops]] = {}
    with torch.no_grad():
        for modality in modalities_of(model):
            with FlopCounter(parts, f"{modality}_tokens", of=FakeTensor) as counter:
                run_backbone(model, modality, inputs)
            found[modality] = counter.by_part
        heads = heads_of(model, inputs)
        with FlopCounter(parts, HEADS, of=FakeTensor) as counter:
            heads()
    model.eval()
    return found | {HEADS: counter.by_part}


def run_twice(clips: int, micro_batch: int) -> int:
    """Clips of a training step whose forward pass runs twice: of all micro-batches but the last."""
    return (math.ceil(clips / micro_batch) - 1) * micro_batch


def flops_by_torch(plan: Blueprint, clip: ClipSpec) -> dict[str, int]:
    """By torch's own counter: of each modality's matrix products in evaluation, without biases."""
    inputs, found = plan.inputs(clip), {}
    for modality in modalities_of(plan.model):
        # FlopCounterMode wants gradients to be on, and knows no fused kernel for CPUs.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            run_backbone(plan.model, modality, inputs)
        found[str(modality)] = int(counter.get_total_flops())
    return found


def run_backbone(model: Vatt | Classifier, modality: Modality, inputs: Inputs) -> Tensor:
    """Features of one modality of a batch."""
    if isinstance(model, Classifier):
        return model.features(inputs.frames if modality == "video" else inputs.audio, inputs.draw)
    if modality == "video":
        return model.video_features(inputs.frames, inputs.draw)
    if modality == "audio":
        return model.audio_features(inputs.audio, inputs.draw)
    return model.text_features(inputs.word_ids.flatten(0, 1))


def heads_of(model: Vatt | Classifier, inputs: Inputs) -> Callable[[], object]:
    """What follows the backbones, which have run: projections, or a classifier's linear layer."""
    if isinstance(model, Classifier):
        return partial(model.classify, run_backbone(model, model.config.modality, inputs))
    return partial(model.project, model.features(inputs))


def count_tokens(plan: Blueprint, clip: ClipSpec, *, training: bool) -> dict[str, int]:
    """Tokens that enter each backbone, the aggregation token included (words of linear text)."""
    inputs, modalities = plan.inputs(clip, drop=training), modalities_of(plan.model)
    counts = dict.fromkeys(modalities, clip.words)
    with ExitStack() as hooks, torch.no_grad():
        for modality in modalities:

            def note(_: nn.Module, __: Any, out: Any, modality: Modality = modality) -> None:
                tokens = out[0] if isinstance(out, tuple) else out
                if tokens.ndim == 3:
                    counts[modality] = tokens.shape[1]

            module = tokens_of(plan.model, modality)
            hooks.callback(module.register_forward_hook(note).remove)
            run_backbone(plan.model, modality, inputs)
    return {str(modality): count for modality, count in counts.items()}
