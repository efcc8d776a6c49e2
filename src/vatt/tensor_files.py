"""Tensors in safetensors files: of one file, or divided among several, as several ranks write them.

A folder holds the tensors of a kind, such as "model", in `model.safetensors`; or `parts.json` says
for each of them, as `model/<name>`, which blocks of it are in which files. Nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import TypeAdapter
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from vatt.errors import CheckpointError
from vatt.storage import refuse_newer

PARTS = "parts.json"
FORMAT_VERSION = "1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Where a block of a tensor is: from `offsets` on in the tensor, under `key` in a file."""

    file: str
    key: str
    offsets: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Divided:
    """A tensor in blocks, which fill it without overlap."""

    dtype: str
    shape: tuple[int, ...]
    blocks: tuple[Block, ...]


def write_parts(folder: Path, blocks: Iterable[tuple[str, str, tuple[int, ...], Block]]) -> None:
    """Write `parts.json`: name, dtype and shape of a tensor with each block of it."""
    tensors: dict[str, dict[str, Any]] = {}
    for name, dtype, shape, block in blocks:
        found = tensors.setdefault(name, {"dtype": dtype, "shape": shape, "blocks": []})
        found["blocks"].append(asdict(block))
    record = {"format_version": FORMAT_VERSION, "tensors": tensors}
    (folder / PARTS).write_text(json.dumps(record, indent=0), encoding="utf-8")


def is_divided(folder: Path, kind: str) -> bool:
    """Whether the tensors of a kind are in several files."""
    return not (folder / f"{kind}.safetensors").exists() and (folder / PARTS).is_file()


def read_tensors(folder: Path, kind: str) -> dict[str, Tensor]:
    """The tensors of a kind, whole.

    Raises:
        OSError, SafetensorError, ValueError: a file is missing or damaged.
        CheckpointError: it is of a newer format.
    """
    if not is_divided(folder, kind):
        return load_file(folder / f"{kind}.safetensors")
    record = json.loads((folder / PARTS).read_text(encoding="utf-8"))
    if not isinstance(record, dict) or not {"format_version", "tensors"} <= record.keys():
        raise ValueError(f"{folder / PARTS}: does not say which tensors there are")
    refuse_newer(folder / PARTS, record["format_version"], FORMAT_VERSION, CheckpointError)
    tensors = TypeAdapter(dict[str, Divided]).validate_python(record["tensors"])
    start = f"{kind}/"
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for name in {block.file for one in tensors.values() for block in one.blocks}:
            if Path(name).name != name:
                raise ValueError(f"{folder / PARTS}: found the file {name!r}, expected one beside")
            files[name] = stack.enter_context(safe_open(folder / name, framework="pt"))
        return {
            name.removeprefix(start): _joined(f"{folder / PARTS}: {name}", one, files)
            for name, one in tensors.items()
            if name.startswith(start)
        }


def _joined(where: str, divided: Divided, files: dict[str, Any]) -> Tensor:
    blocks = {(b.file, b.key): b for b in divided.blocks}
    inside = all(
        len(b.offsets) == len(b.shape) == len(divided.shape)
        and tuple(files[b.file].get_slice(b.key).get_shape()) == b.shape
        and all(
            at >= 0 and at + n <= whole
            for at, n, whole in zip(b.offsets, b.shape, divided.shape, strict=True)
        )
        for b in divided.blocks
    )
    filled = sum(prod(b.shape) for b in blocks.values())
    if not inside or len(blocks) < len(divided.blocks) or filled != prod(divided.shape):
        raise ValueError(f"{where}: the blocks in the files do not fill {list(divided.shape)}")
    values = [(b, files[b.file].get_tensor(b.key)) for b in divided.blocks]
    if len(values) == 1:
        return cast(Tensor, values[0][1])
    whole = torch.empty(divided.shape, dtype=values[0][1].dtype)
    seen = torch.zeros(divided.shape, dtype=torch.bool)
    for block, value in values:
        place = tuple(slice(a, a + n) for a, n in zip(block.offsets, block.shape, strict=True))
        if seen[place].any() or value.dtype != whole.dtype:
            raise ValueError(f"{where}: two blocks overlap, or are of different types")
        whole[place], seen[place] = value, True
    return whole
