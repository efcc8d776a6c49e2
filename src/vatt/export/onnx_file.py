"""Writing ONNX files: a traced tower with its card inside; weights as 8-bit integers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch.export import ExportedProgram

from vatt.errors import MissingExtraError
from vatt.export.tower_card import INPUTS, KEY, TowerCard

Opset = Literal[20, 23]


def write_onnx(program: ExportedProgram, path: Path, card: TowerCard, opset: Opset) -> None:
    """Write a traced tower as one file.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
    """
    needs("onnxscript")
    with _quietly():
        made = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=[INPUTS[card.tower]],
            output_names=list(card.outputs),
            verbose=False,
        )
    assert made is not None
    made.model.metadata_props[KEY] = card.to_json()
    made.save(path)


def quantize(path: Path, card: TowerCard) -> None:
    """Make the weights of a file's matrix products 8-bit integers, in place.

    Activations are quantised when it runs, by their range in the batch (dynamically).
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folded, aside = path.with_suffix(".folded"), path.with_suffix(".int8")
    _fold_constants(path, folded)
    with _quietly():
        quantize_dynamic(
            folded,
            aside,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
    model = onnx.load(aside)
    used = {node.domain for node in model.graph.node}
    for one in [one for one in model.opset_import if one.domain not in used]:
        model.opset_import.remove(one)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {KEY: card.to_json()})
    onnx.save(model, path)
    folded.unlink()
    aside.unlink()


def _fold_constants(path: Path, folded: Path) -> None:
    """Compute what depends on weights alone: only a matrix that is a constant is quantised.

    PyTorch's exporter leaves large ones as they were written: the patch embedding with the
    standardisation in it, parts of the projections in the last layer.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(
        path,
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["MatMulAddFusion"],  # Gemm, which is not quantised
    )


def needs(package: str) -> None:
    """Make sure that a package of the extra is there.

    Raises:
        MissingExtraError: it is not installed.
    """
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise MissingExtraError(package, "onnx", "vatt export --format onnx")


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what PyTorch's exporter says about itself: other libraries that are not there."""
    talking = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    talking += [
        one
        for name, one in logging.Logger.manager.loggerDict.items()
        if isinstance(one, logging.Logger) and name.startswith("torch.onnx.")
    ]
    talking.append(logging.getLogger())
    levels = [one.level for one in talking]
    try:
        for one in talking:
            one.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(talking, levels, strict=True):
            one.setLevel(level)
