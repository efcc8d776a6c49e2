"""Writes a model folder tensor by tensor: only one is in memory at a time."""

from __future__ import annotations

import json
import math
from pathlib import Path

from vatt.convert.bundle import Bundle
from vatt.convert.official import Plan, tensor
from vatt.models.weights import WEIGHTS, save_settings

CARD = "README.md"


def write_folder(folder: Path, bundle: Bundle, plan: Plan, *, has_vocabulary: bool) -> None:
    """Write model.safetensors, config.json and a model card into an existing folder.

    Raises:
        ConversionError: the checkpoint's data is damaged.
        OSError: the folder cannot be written.
    """
    write_tensors(folder / WEIGHTS, bundle, plan)
    source = {
        "checkpoint": bundle.prefix.name,
        "index_sha256": bundle.index_hash(),
        "kind": plan.kind,
    }
    save_settings(folder, plan.model, plan.clip, {"source": source})
    card = model_card(bundle, plan, has_vocabulary=has_vocabulary)
    (folder / CARD).write_text(card, encoding="utf-8")


def write_tensors(path: Path, bundle: Bundle, plan: Plan) -> None:
    """The weights in the safetensors format: length of the header, header, numbers."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in plan.shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in plan.shapes:
            file.write(tensor(bundle, plan.names[name]).astype("<f4", copy=False).data)


def model_card(bundle: Bundle, plan: Plan, *, has_vocabulary: bool) -> str:
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
            'model = vatt.load("this/folder")',
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
