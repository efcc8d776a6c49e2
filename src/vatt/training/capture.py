"""Save the batch of a step whose loss was not finite, so that the step can be repeated."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from torch import Tensor

BatchT = TypeVar("BatchT")


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
