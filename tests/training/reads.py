"""Finds what makes the host wait for a device, where there is none: numbers read from tensors."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

READS = {
    Tensor.item,
    Tensor.tolist,
    Tensor.cpu,
    Tensor.__bool__,
    Tensor.__float__,
    Tensor.__int__,
    Tensor.__index__,
}
WAITING = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
}


@contextmanager
def count_reads() -> Iterator[list[str]]:
    """What was called meanwhile that would wait for a GPU, with the line that called it."""
    found: list[str] = []

    def note(name: object) -> None:
        frames = [f for f in traceback.extract_stack() if "/vatt/" in f.filename]
        found.append(
            f"{name} at {frames[-1].filename}:{frames[-1].lineno}" if frames else f"{name}"
        )

    class Functions(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func in READS:
                note(func)
            return func(*args, **(kwargs or {}))

    class Operators(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            masks = func is torch.ops.aten.index.Tensor and any(
                index is not None and index.dtype == torch.bool for index in args[1]
            )
            if func in WAITING or masks:
                note(func)
            return func(*args, **(kwargs or {}))

    with Functions(), Operators():
        yield found
