"""A step whose numbers were not finite: kept on disk, computed again, and where it began."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vatt import distributed
from vatt.errors import CheckpointError
from vatt.storage import atomic_folder

BatchT = TypeVar("BatchT")


def keep_step(
    where: Path,
    batch: Any,
    write_model: Callable[[Path | None], None],
    model: nn.Module,
    objective: Callable[[], Mapping[str, Tensor]],
) -> str:
    """Write the folder of a step that failed, `rank-N` for each rank; returns where it began.

    Args:
        where: `failures/step-…` in the run folder.
        batch: this rank's.
        write_model: writes the files of the model before the step into a folder, or takes part.
        model: whose modules are looked at.
        objective: computes the losses of the batch again.

    Raises:
        CheckpointError: it cannot be written.
    """
    try:
        if distributed.is_main():  # more ranks may have failed there before
            for left in rank_folders(where):
                if _rank_of(left) >= distributed.world_size():
                    shutil.rmtree(left)
        with atomic_folder(where / f"rank-{distributed.rank()}") as aside:
            save_batch(batch, aside)
            write_model(aside if distributed.is_main() else None)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{where}: this step is not finite, and its batch and weights cannot be kept: {error}; "
            "make room, and give the same command to see where it began"
        ) from error
    distributed.barrier()  # the first rank that fails ends the others
    return where_it_began(model, objective, getattr(batch, "keys", ()))


def rank_folders(where: Path) -> list[Path]:
    """The folders of a captured step, in the order of ranks."""
    return sorted(where.glob("rank-*"), key=_rank_of)


def _rank_of(folder: Path) -> int:
    return int(folder.name.removeprefix("rank-"))


def save_batch(batch: Any, folder: Path) -> None:
    """Write a dataclass, its tensors as batch.safetensors and the rest as batch.json."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    tensors = {name: v.contiguous() for name, v in values.items() if isinstance(v, Tensor)}
    plain = {name: v for name, v in values.items() if not isinstance(v, Tensor)}
    save_file(tensors, folder / "batch.safetensors")
    text = json.dumps(plain, indent=1, default=asdict)
    (folder / "batch.json").write_text(text, encoding="utf-8")


def load_batch(kind: type[BatchT], folder: Path) -> BatchT:
    """Read what `save_batch` wrote of a `kind`, each field as the type that it is declared with."""
    types = get_type_hints(kind, localns={"Tensor": Tensor})  # contracts imports no torch by itself
    plain = json.loads((folder / "batch.json").read_text(encoding="utf-8"))
    values = {k: TypeAdapter[Any](types[k]).validate_python(v) for k, v in plain.items()}
    return kind(**values, **load_file(folder / "batch.safetensors"))


@dataclass(slots=True)
class Replayed:
    """A step that was computed again.

    losses: this rank's shares; outputs: of each module, whether all that it gave was finite, in the
    order in which modules first ended; gradients: the same of each weight's gradient.
    began: the first module in time whose output was not finite; None where all were.
    clips: which of them it was, if that output has a row for each clip.
    because: what was known of it: its weights or its input.
    """

    losses: dict[str, float] = field(default_factory=dict)
    outputs: dict[str, bool] = field(default_factory=dict)
    gradients: dict[str, bool] = field(default_factory=dict)
    began: str | None = None
    clips: tuple[str, ...] = ()
    because: str = ""


def computed_again(
    model: nn.Module, objective: Callable[[], Mapping[str, Tensor]], keys: Sequence[str]
) -> Replayed:
    """Compute losses and gradients while hooks look at what every module of a network gives.

    Args:
        model: the network; with `torch.compile` only what is compiled as a whole is seen.
        objective: computes the losses with it.
        keys: of the clips of the batch, on this rank.
    """
    found = Replayed()
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            look = partial(_look, found, name or type(model).__name__, keys)
            hooks.callback(module.register_forward_hook(look).remove)
        losses = objective()
    model.zero_grad(set_to_none=True)
    torch.autograd.backward(losses["loss"])
    found.losses = {name: value.item() for name, value in losses.items()}
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            found.gradients[name] = _finite(weight.grad)
    return found


def where_it_began(
    model: nn.Module, objective: Callable[[], Mapping[str, Tensor]], keys: Sequence[str]
) -> str:
    """As half a sentence, from the findings of all ranks, which call this together."""
    try:
        found = computed_again(model, objective, keys)
    except RuntimeError as error:  # e.g. memory: other ranks may wait, so none is asked
        return f"where it began is not known ({error})"
    told = [described(found), found.began is None, all(found.gradients.values())]
    # First those that know a module, then those that know a gradient.
    return str(min(distributed.gather_json(told), key=lambda one: one[1:])[0])


def described(found: Replayed) -> str:
    """Where it began, with the clips if they are known."""
    bad = [name for name, finite in found.gradients.items() if not finite]
    if found.began is not None:
        clips = f" (of clips {', '.join(found.clips[:5])})" if found.clips else ""
        return f"it began in the output of {found.began}{clips}{found.because}"
    if bad:  # the last weight is the first in the backward pass
        return f"every output is finite, but the gradient of {bad[-1]} is not"
    return "computed again, every output and gradient is finite"


def _look(
    found: Replayed, name: str, keys: Sequence[str], module: nn.Module, inputs: Any, output: Any
) -> None:
    given = list(_numbers(output))
    bad = [values for values in given if not _finite(values)]
    found.outputs[name] = found.outputs.get(name, True) and not bad
    if not bad:
        return
    first = found.began is None
    if not found.clips and bad[0].ndim and len(bad[0]) == len(keys):
        fine = bad[0].detach().isfinite().flatten(1).all(1).tolist()
        # It began in a micro-batch if this is not the first: then in the heads, which have all
        # clips, rows tell until batch norm mixes them.
        if first or any(fine):
            found.clips = tuple(key for key, ok in zip(keys, fine, strict=True) if not ok)
    if not first:
        return
    found.began = name
    if not all(map(_finite, module.parameters())):
        found.because = "; its weights are not finite"
    elif not all(map(_finite, _numbers(inputs))):
        found.because = "; nor is its input"


def _numbers(value: Any) -> Iterator[Tensor]:
    """The tensors of real numbers in what a module takes or gives."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from _numbers(one)
    elif is_dataclass(value) and not isinstance(value, type):
        for one in fields(value):
            yield from _numbers(getattr(value, one.name))


def _finite(values: Tensor) -> bool:
    """Of a weight that is divided among ranks, what this one has: others may not ask now."""
    return bool(distributed.own_part(values.detach()).isfinite().all())
