"""Where does an exported tower spend its time, operator by operator?

    python benchmarks/onnx_operators.py exported/video.onnx [--batch 8] [--threads 1]

ONNX Runtime's own profiler, on random inputs of the clip's size. Operators have the names that ONNX
Runtime gives them after it has joined some: DynamicQuantizeMatMul is a product with 8-bit weights,
MatMul one without.

Ends in a JSON line: milliseconds a clip, and the share in per cent of each kind of operator, the
largest first.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
from timing import processor

from vatt.export.onnx_encoder import OnnxTower
from vatt.export.plain_inputs import whole
from vatt.export.tower_card import TowerCard

RUNS = 20


def random_inputs(card: TowerCard, batch: int) -> np.ndarray[Any, Any]:
    """A batch of the clip's own size."""
    rng = np.random.default_rng(0)
    if card.tower == "text":
        return rng.integers(1, card.vocabulary, (batch, *card.sizes))
    channels = (3,) if card.tower == "video" else ()
    values = rng.uniform(-1, 1, (batch, *card.sizes, *channels)).astype(np.float32)
    return whole(values, card)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    values = random_inputs(OnnxTower(options.file, "cpu", options.threads).card, options.batch)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    with TemporaryDirectory() as folder:
        settings.enable_profiling, settings.profile_file_prefix = True, f"{folder}/profile"
        session = onnxruntime.InferenceSession(
            options.file, settings, providers=["CPUExecutionProvider"]
        )
        for _ in range(RUNS):
            session.run(None, {session.get_inputs()[0].name: values})
        events = json.loads(Path(session.end_profiling()).read_text())
    spent = Counter[str]()
    for one in events:
        if one.get("cat") == "Node" and one["name"].endswith("_kernel_time"):
            spent[one["args"]["op_name"]] += one["dur"]
    total = spent.total()
    row = {
        "ms_a_clip": round(total / RUNS / options.batch / 1e3, 3),
        "per_cent": {name: round(100 * took / total, 1) for name, took in spent.most_common(12)},
        "machine": processor(),
        "onnxruntime": onnxruntime.__version__,
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
