"""Writes a model folder tensor by tensor, with a card that says what became of every variable."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vatt.contracts import FramePath
from vatt.convert.plan import ConversionPlan, tensor
from vatt.convert.tensor_bundle import Bundle
from vatt.models.classifier import ClassifierConfig
from vatt.models.weights import save_settings

CARD = "README.md"
# As the official code takes frames: every n-th of 25 a second. What it computed is given exactly.
OFFICIAL_FRAMES = FramePath(
    frame_step="stride", antialias=False, autocast="off", short_side=256, fps=25.0
)


class LazyTensor(NamedTuple):
    """A float32 tensor of known shape, read from the checkpoint only when it is written."""

    shape: tuple[int, ...]
    read: Callable[[], NDArray[np.float32]]


def model_tensors(bundle: Bundle, plan: ConversionPlan) -> dict[str, LazyTensor]:
    """The weights of the model, by our names."""
    return {
        name: LazyTensor(shape, partial(tensor, bundle, plan.names[name]))
        for name, shape in plan.shapes.items()
    }


def write_settings(
    folder: Path, bundle: Bundle, plan: ConversionPlan, *, has_vocabulary: bool
) -> None:
    """Write config.json and a model card into an existing folder.

    Raises:
        OSError: the folder cannot be written.
    """
    source = {
        "checkpoint": bundle.prefix.name,
        "index_sha256": bundle.index_hash(),
        "kind": plan.kind,
    }
    save_settings(folder, plan.settings, plan.clip, {"source": source}, frame_path=OFFICIAL_FRAMES)
    card = model_card(bundle, plan, has_vocabulary=has_vocabulary)
    (folder / CARD).write_text(card, encoding="utf-8")


def num_bytes(tensors: Mapping[str, LazyTensor]) -> int:
    """Bytes of all of them together."""
    return sum(4 * math.prod(tensor.shape) for tensor in tensors.values())


def write_tensors(path: Path, tensors: Mapping[str, LazyTensor]) -> Iterator[int]:
    """Write a safetensors file: length of the header, header, numbers, one tensor after the other.

    Yields:
        The number of bytes of each tensor, once it is written.

    Raises:
        ConversionError: the checkpoint's data is damaged.
        OSError: the file cannot be written.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, lazy in tensors.items():
        start, end = end, end + 4 * math.prod(lazy.shape)
        header[name] = {"dtype": "F32", "shape": list(lazy.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for lazy in tensors.values():
            yield file.write(lazy.read().astype("<f4", copy=False).data)


def model_card(bundle: Bundle, plan: ConversionPlan, *, has_vocabulary: bool) -> str:
    """What the model is, where it is from, and what became of every variable."""
    mapped = [
        f"| `{source}` | `{ours}` |" for ours, sources in plan.names.items() for source in sources
    ]
    words = (
        "`tokenizer.json` was made of the word list that was given."
        if has_vocabulary
        else "There is no vocabulary: `encode_text` takes word ids only. Convert again with "
        "`--vocabulary FILE` to add the official word list."
    )
    load = "load_classifier" if isinstance(plan.settings, ClassifierConfig) else "load"
    return "\n".join(
        [
            "---",
            "library_name: vatt",
            "license: apache-2.0",
            "---",
            f"# VATT, {plan.kind}",
            "",
            f"Converted by `vatt convert` from the official TensorFlow checkpoint "
            f"`{bundle.prefix.name}`. Its index, which holds the checksum of every tensor, has the "
            f"SHA-256 `{bundle.index_hash()}`.",
            "",
            "All options have the official code's value. The clip in `config.json` fills the "
            "position tables at the paper's rates, 10 frames and 48,000 samples a second. " + words,
            "",
            "```python",
            "import vatt",
            f'model = vatt.{load}("this/folder")',
            "```",
            "",
            "## Where every variable went",
            "",
            "| official variable | tensor here |",
            "|---|---|",
            *mapped,
            *(f"| `{name}` | skipped: no weight of the model |" for name in plan.skipped),
            "",
        ]
    )
