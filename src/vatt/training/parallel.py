"""How a model is run in training: blocks compiled or run twice; on each rank a copy or a part."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Sequence
from functools import partial, reduce
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from vatt.errors import ConfigError
from vatt.training.loop import TrainConfig


def parallelize(
    model: nn.Module, config: TrainConfig, blocks: Sequence[nn.Module] = ()
) -> nn.Module:
    """The model to call in training; called once, before an objective is made of it.

    The losses are rank shares that add up to the loss of the whole batch, so their gradients add
    up too: the usual averaging is replaced. In a single process it is the model itself. With fsdp
    the parameters of the model are other objects afterwards.

    Args:
        model: on its device.
        config: whether blocks are compiled, and whether they are run again in the backward pass.
        blocks: parts of the model that are alike: the layers of its Transformers.
    """
    if config.compile:
        # All layers are one code to torch, compiled for each tower, for its first and last layer,
        # and for a smaller last micro-batch; past this limit, 8, they would not be compiled.
        dynamo: Any = importlib.import_module("torch._dynamo")
        dynamo.config.cache_size_limit = max(dynamo.config.cache_size_limit, 64)
    for block in blocks:
        if config.compile:
            block.forward = torch.compile(block.forward, dynamic=False)
        if config.recompute:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    if not dist.is_initialized():
        return model
    if config.parallel == "fsdp":
        return _sharded(model, blocks)
    # Batch norm sums over ranks itself, so buffers are equal already; PyTorch 2.13 renamed this.
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    keep_buffers: dict[str, Any] = {name: False}
    wrapped = DistributedDataParallel(model, **keep_buffers)
    wrapped.register_comm_hook(state=None, hook=lambda _, bucket: _sum(bucket.buffer()))
    return wrapped


def _sharded(model: nn.Module, blocks: Sequence[nn.Module]) -> nn.Module:
    """FSDP2: weights are gathered block by block; batch norm's statistics stay whole."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    # Nothing is done in place to what the model returns, some of which are views.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    mesh = init_device_mesh(next(model.parameters()).device.type, (dist.get_world_size(),))
    for module in (*blocks, model):
        fully_shard(module, mesh=mesh)
        assert isinstance(module, FSDPModule)
        if hasattr(module, "set_force_sum_reduction_for_comms"):  # from PyTorch 2.8 on
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
        elif mesh.device_type == "cpu":
            raise ConfigError(
                f"train.parallel: found fsdp on CPUs with PyTorch {torch.__version__}, expected "
                "2.8 or newer, which adds gradients up there; set replicate, or upgrade PyTorch"
            )
        else:
            module.set_reduce_scatter_divide_factor(1.0)
    return model


def _sum(gradients: Tensor) -> torch.futures.Future[Tensor]:
    if not gradients.is_cuda:
        return _sum_in_order(gradients)
    work = dist.all_reduce(gradients, async_op=True)
    assert work is not None
    return work.get_future().then(lambda done: done.value()[0])  # type: ignore[no-any-return]


def _sum_in_order(gradients: Tensor) -> torch.futures.Future[Tensor]:
    """Rank by rank: gloo's own order depends on where in a bucket a number is.

    DDP fills its buckets anew after its first step, so a run that goes on would differ in bits.
    """
    parts = [torch.empty_like(gradients) for _ in range(dist.get_world_size())]
    work = dist.all_gather(parts, gradients, async_op=True)
    assert work is not None
    return work.get_future().then(lambda _: reduce(Tensor.add_, parts))  # type: ignore[no-any-return]
