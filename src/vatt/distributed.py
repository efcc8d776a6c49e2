"""Ranks: which one this is, gather and sum with gradients; in a single process the identity.

`torchrun` starts the processes and says in the environment who they are. Everything here works on
any backend (NCCL on GPUs, gloo on CPUs), and without a process group is the identity.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import lru_cache
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from vatt.errors import ConfigError
from vatt.workers.rank_watch import ending_together

logger = logging.getLogger(__name__)


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[None]:
    """Join the ranks that `torchrun` started, while the context lasts; nothing without torchrun.

    A rank that fails or dies meanwhile ends all of them (`vatt.workers.rank_watch`).
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    store, mine, ranks = next(iter(rendezvous("env://")))
    part: Any = dist.PrefixStore(name_of_start(store, mine, ranks), store)  # type: ignore[attr-defined]
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=part, rank=mine, world_size=ranks)
    try:
        with ending_together(rank(), world_size(), gather_json):
            yield
    except BaseException:
        _hosts.cache_clear()
        with suppress(RuntimeError):  # NCCL would wait for the ranks that are no more
            dist.distributed_c10d._abort_process_group()
        raise
    else:
        _hosts.cache_clear()
        dist.destroy_process_group()


def name_of_start(store: Any, rank: int, ranks: int) -> str:
    """A name that all ranks of this start agree on, and those of no other start.

    torchrun keeps its store when it starts ranks again, with the addresses of the dead ones in it.
    So rank 0 tells the name to all marks that it finds, until those of this start have answered.
    """
    mark = secrets.token_hex(8)
    if rank:
        store.set(f"rank-{rank}", mark)
        name: str = store.get(f"name-for-{mark}").decode()
        store.set(f"{name}-{mark}", "known")
        return name
    for other in range(1, ranks):
        while True:
            found = store.get(f"rank-{other}").decode()  # it may still be that of a dead one
            store.set(f"name-for-{found}", mark)
            if store.check([f"{mark}-{found}"]):
                break
            time.sleep(0.01)
    return mark


@contextmanager
def pretended_ranks(count: int) -> Iterator[None]:
    """Be the first of so many ranks that are not there: collectives give numbers of no meaning.

    What is divided among ranks has its true size meanwhile.
    """
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=count)
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process is the one that writes files."""
    return rank() == 0


def local_rank() -> int:
    """Number of this process on its machine: the number of its accelerator."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def own_slots(total: int, ranks: int | None = None) -> range:
    """This rank's places in a batch of `total` clips, the same number on every rank.

    `ranks` are those that train, if others are to do so.

    Raises:
        ConfigError: the batch cannot be divided so.
    """
    ranks = ranks or world_size()
    if total % ranks:
        raise ConfigError(
            f"data.batch_size: found {total}, expected a multiple of the number of processes "
            f"({ranks}); it is the batch of all of them together"
        )
    share = total // ranks
    return range(rank() * share, (rank() + 1) * share)


@lru_cache(maxsize=2)
def _hosts(_world: object, _purpose: str = "") -> dist.ProcessGroup:
    """The same ranks by their hosts alone, so that no accelerator is waited for.

    One may work for hours while the others wait: ranks that fail or die are noticed otherwise.
    """
    group = dist.new_group(backend="gloo", timeout=timedelta(days=30))
    assert isinstance(group, dist.ProcessGroup)
    return group


def background_hosts() -> dist.ProcessGroup | None:
    """The ranks as a thread beside the main one talks to the others; all ranks ask for it."""
    return _hosts(dist.group.WORLD, "background") if dist.is_initialized() else None


def barrier() -> None:
    """Wait until all ranks are here, however long one of them takes."""
    if dist.is_initialized():
        dist.barrier(group=_hosts(dist.group.WORLD))


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], int]]:
    """Meanwhile SIGTERM and a first SIGINT (Ctrl-C) end no process; a second SIGINT does.

    The function that is given returns the number of the signal once any of the ranks got one, else
    0. All ranks call it together and get the same answer.
    """
    got = [0]

    def note(number: int, _: object) -> None:
        if number == got[0] == signal.SIGINT:
            raise KeyboardInterrupt
        got[0] = number
        if number == signal.SIGINT:
            logger.info("stopping after this step, which is saved; Ctrl-C again stops at once")

    def on_any_rank() -> int:
        if not dist.is_initialized():
            return got[0]
        answer = torch.tensor([got[0]])
        dist.all_reduce(answer, op=dist.ReduceOp.MAX, group=_hosts(dist.group.WORLD))
        return int(answer)

    if threading.current_thread() is not threading.main_thread():  # only that one can be told
        yield on_any_rank
        return
    before = {one: signal.signal(one, note) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield on_any_rank
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: Tensor) -> Tensor:
        sent = mine.contiguous()
        parts = [torch.empty_like(sent) for _ in range(world_size())]
        dist.all_gather(parts, sent)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # Every rank's loss share depends on my rows: their gradients add up.
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: Tensor) -> Tensor:
        total = mine.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def gather(mine: Tensor) -> Tensor:
    """Rows of all ranks, in rank order; gradients flow back to the rank each row came from.

    Args:
        mine: [B, …], of the same shape and type on every rank.

    Returns:
        [G, …], G = B × ranks. `mine` itself in a single process.
    """
    if not dist.is_initialized():
        return mine
    if mine.dtype == torch.bool:  # gloo cannot send booleans
        return gather(mine.to(torch.uint8)).bool()
    return cast(Tensor, _Gather.apply(mine))  # type: ignore[no-untyped-call]


def first_of_all(mine: Tensor) -> Tensor:
    """The first row of the main rank, as often as there are rows here."""
    return gather(mine[:1])[:1].expand_as(mine)


def gather_json(mine: Any) -> list[Any]:
    """A JSON value of every rank, in rank order."""
    if not dist.is_initialized():
        return [mine]
    text = _json_tensor(mine)
    lengths = [int(length) for length in _of_hosts(torch.tensor([len(text)]))]
    rows = _of_hosts(F.pad(text, (0, max(lengths) - len(text))))
    return [json.loads(bytes(r[:n].numpy())) for r, n in zip(rows, lengths, strict=True)]


def from_main(mine: Any) -> Any:
    """The JSON value of the main rank; the others wait for it, however long that takes."""
    if not dist.is_initialized():
        return mine
    text = _json_tensor(mine if is_main() else None)
    length = torch.tensor([len(text)])
    dist.broadcast(length, 0, group=_hosts(dist.group.WORLD))
    if not is_main():
        text = torch.empty(int(length), dtype=torch.uint8)
    dist.broadcast(text, 0, group=_hosts(dist.group.WORLD))
    return json.loads(bytes(text.numpy()))


def each_to_main(mine: Any) -> Iterator[Any]:
    """A JSON value of every rank, one after the other, on the main rank; elsewhere none.

    One of them at a time is in memory. All ranks run through it.
    """
    if is_main():
        yield mine
    elif world_size() > 1:
        text = _json_tensor(mine)
        dist.send(torch.tensor([len(text)]), 0, group=_hosts(dist.group.WORLD))
        dist.send(text, 0, group=_hosts(dist.group.WORLD))
        return
    for sender in range(1, world_size()):
        length = torch.zeros(1, dtype=torch.int64)
        dist.recv(length, sender, group=_hosts(dist.group.WORLD))
        text = torch.empty(int(length), dtype=torch.uint8)
        dist.recv(text, sender, group=_hosts(dist.group.WORLD))
        yield json.loads(bytes(text.numpy()))


def _json_tensor(value: Any) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def _of_hosts(mine: Tensor) -> list[Tensor]:
    every = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(every, mine, group=_hosts(dist.group.WORLD))
    return every


def is_divided(tensor: Tensor) -> bool:
    """Whether a tensor is divided among ranks (a DTensor of FSDP, whose module imports slowly)."""
    return hasattr(tensor, "to_local")


def own_part(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor that is divided among ranks; else the tensor."""
    return cast(Any, tensor).to_local() if is_divided(tensor) else tensor


def part_of(part: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a tensor as one that is divided among ranks as `like` is."""
    if not is_divided(like):
        return part
    from torch.distributed.tensor import DTensor

    of = cast(DTensor, like)
    return DTensor.from_local(
        part, of.device_mesh, of.placements, shape=of.shape, stride=of.stride()
    )


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor that is divided among ranks; called by all ranks."""
    return cast(Any, tensor).full_tensor() if is_divided(tensor) else tensor


def divided(tensor: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a tensor that all have, divided as `like` is."""
    if not is_divided(like):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    of = cast(DTensor, like)
    return own_part(distribute_tensor(tensor, of.device_mesh, of.placements))


def sum_over_ranks(mine: Tensor) -> Tensor:
    """Sum of a tensor of equal shape over ranks, with gradient; itself in a single process."""
    if not dist.is_initialized():
        return mine
    return cast(Tensor, _Sum.apply(mine))  # type: ignore[no-untyped-call]
