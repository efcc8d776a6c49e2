"""Exported files of towers so small that they are written by hand: means over the input."""

from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from vatt.contracts import ClipSpec, FramePath
from vatt.export.tower_card import INPUTS, KEY, TowerCard

WORDS = 40


def write_tower(path: Path, card: TowerCard) -> Path:
    """Every output is the mean of the input over all axes but the first and the last channels."""
    kind = TensorProto.INT64 if card.tower == "text" else TensorProto.FLOAT
    shape = ["b", *(["t", "h", "w", 3] if card.tower == "video" else ["n"])]
    axes = list(range(1, 4)) if card.tower == "video" else [1]
    kept = int(card.tower != "video")
    nodes = [
        helper.make_node("Cast", [INPUTS[card.tower]], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=kept),
        *(helper.make_node("Identity", ["mean"], [name]) for name in card.outputs),
    ]
    graph = helper.make_graph(
        nodes,
        card.tower,
        [helper.make_tensor_value_info(INPUTS[card.tower], kind, shape)],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, ["b", "d"]) for o in card.outputs],
        [helper.make_tensor("axes", TensorProto.INT64, [len(axes)], axes)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {KEY: card.to_json()})
    onnx.save(model, path)
    return path


def card(tower: str, spec: ClipSpec, path: FramePath | None = None, **changes) -> TowerCard:
    patch = {"video": (2, 8, 8), "audio": (64,), "text": (1,)}[tower]
    values: dict[str, Any] = {
        "tower": tower,
        "model_hash": "0123456789ab",
        "clip": spec,
        "frame_path": path or FramePath(),
        "patch": patch,
        "padding": (0.5, 0.25, 0.0) if tower == "video" else (0.0,),
        "vocabulary": WORDS,
    }
    return TowerCard(**(values | changes))
