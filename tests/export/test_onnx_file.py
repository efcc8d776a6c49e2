"""Files with weights of 8 bits: all of them are, and the answer stays near."""

from typing import Any

import numpy as np
import pytest

from tests.export.small_towers import card
from vatt.contracts import ClipSpec

onnx = pytest.importorskip("onnx", reason='needs the extra "onnx"')
onnxruntime = pytest.importorskip("onnxruntime", reason='needs the extra "onnx"')


def test_matrices_that_are_computed_of_weights_become_integers_too(tmp_path):
    """As of a patch embedding with the standardisation in it, and of a part of a projection."""
    from onnx import TensorProto, helper, numpy_helper

    from vatt.export.onnx_file import quantize

    rng = np.random.default_rng(0)
    constants: dict[str, np.ndarray[Any, Any]] = {
        "weight": rng.normal(size=(64, 32)).astype(np.float32),
        "std": np.full(64, 0.25, np.float32),
        "part": np.arange(16),
    }
    nodes = [
        helper.make_node("Transpose", ["weight"], ["turned"]),
        helper.make_node("Div", ["turned", "std"], ["folded"]),
        helper.make_node("Transpose", ["folded"], ["matrix"]),
        helper.make_node("MatMul", ["frames", "matrix"], ["features"]),
        helper.make_node("Gather", ["weight", "part"], ["some"], axis=1),
        helper.make_node("MatMul", ["frames", "some"], ["logits"]),
    ]
    floats: list[tuple[str, list[str | int | None]]] = [
        ("frames", ["b", 5, 64]),
        ("features", ["b", 5, 32]),
        ("logits", ["b", 5, 16]),
    ]
    told = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in floats]
    kept = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tower", told[:1], told[1:], kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = tmp_path / "video.onnx"
    onnx.save(model, path)
    values = {"frames": rng.normal(size=(3, 5, 64)).astype(np.float32)}
    before = onnxruntime.InferenceSession(path).run(None, values)
    quantize(path, card("video", ClipSpec(frames=2)))
    found = onnx.load(path)
    kinds = [node.op_type for node in found.graph.node]
    assert kinds.count("MatMulInteger") == 2
    assert "MatMul" not in kinds
    assert [one.domain for one in found.opset_import] == [""]
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    for one, other in zip(
        before, onnxruntime.InferenceSession(path).run(None, values), strict=True
    ):
        np.testing.assert_allclose(other, one, atol=0.05 * np.abs(one).max())
