"""Memory of training: weights, gradients, optimiser, and what the backward pass keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from vatt.contracts import ClipSpec
from vatt.costs.flops import Blueprint, count_parameters, heads_of

BYTES = 4  # of a float32
ADAM_MOMENTS = 2
aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes, all numbers in float32.

    weights, gradients, optimiser: once; the optimiser is Adam with two moments per weight.
    activations: for each clip of the batch, kept for the backward pass; attention weights left
        out, which fused attention does not keep.
    attention: for each clip, what attention that is written out keeps in addition.
    """

    weights: int
    gradients: int
    optimiser: int
    activations: int
    attention: int

    def total(self, clips: int) -> int:
        """With fused attention, with so many clips of a device in memory at once."""
        return self.weights + self.gradients + self.optimiser + clips * self.activations


def training_memory(plan: Blueprint, clip: ClipSpec) -> TrainingMemory:
    """Memory of training with DropToken and dropout as configured; the loss is left out."""
    model, inputs = plan.model.train(), plan.inputs(clip, drop=True)
    kept, attention = saved_bytes(lambda: heads_of(model, inputs)(), model)
    model.eval()
    parameters = count_parameters(model)
    return TrainingMemory(
        weights=BYTES * parameters.all,
        gradients=BYTES * parameters.trainable,
        optimiser=BYTES * ADAM_MOMENTS * parameters.trainable,
        activations=kept - attention,
        attention=attention,
    )


def saved_bytes(forward: Callable[[], object], model: nn.Module) -> tuple[int, int]:
    """Bytes kept for the backward pass of `forward`: all but weights, and the attention's part.

    What several operations keep, or keep views of, counts once.
    """
    saved: dict[int, Tensor] = {}
    weights = {_storage(parameter) for parameter in model.parameters()}

    def note(tensor: Tensor) -> Tensor:
        saved.setdefault(_storage(tensor), tensor)
        return tensor

    with (
        sdpa_kernel(SDPBackend.MATH),  # attention written out
        _AttentionWeights() as seen,
        saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        result = forward()  # kept until all is counted: storages must not be used again
    sizes = {
        storage: tensor.untyped_storage().nbytes()
        for storage, tensor in saved.items()
        if storage not in weights
    }
    del result
    return sum(sizes.values()), sum(sizes[s] for s in sizes.keys() & seen.storages.keys())


class _AttentionWeights(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Finds attention weights: the outputs of softmax, and of dropout after it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.storages: dict[int, Tensor] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the operation, and note which storages hold attention weights."""
        out = func(*args, **(kwargs or {}))
        products = (aten.mm.default, aten.bmm.default)
        of_weights = func not in products and any(
            isinstance(arg, Tensor) and _storage(arg) in self.storages for arg in args
        )
        if isinstance(out, Tensor) and (func is aten._softmax.default or of_weights):
            self.storages[_storage(out)] = out
        return out


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
