"""How long does converting the Large checkpoint take, and how much memory, beside a plain copy?

    python benchmarks/convert.py [--folder DIR] [--runs 5]

Writes `tx_fac_lbs` at full size, about 5 GB: random weights, and the slots of Adam, which the
converter never reads, as holes. The baseline is a copy of the converted file, flushed to disk.
Memory is the peak of the process less that of `--dry-run`, which only imports and plans.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import google_crc32c
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the tests' writer of checkpoints

from tests.convert.bundle_writer import entry, field, official_shapes, table
from vatt import __version__
from vatt.convert import names
from vatt.convert.protobuf import masked
from vatt.convert.tensor_bundle import SUFFIX
from vatt.models.model_config import ModelConfig, VideoConfig
from vatt.models.transformer import LARGE
from vatt.models.variants import as_official
from vatt.models.vatt import Vatt


def variables() -> dict[str, tuple[int, ...]]:
    """Shapes of the official variables of Large video, Base audio and Small text."""
    model = as_official(ModelConfig(video=VideoConfig(transformer=LARGE)))
    with torch.device("meta"):
        large = Vatt(model)
    theirs = names.specific(layers={"video": 24, "audio": 12, "text": 6}, spectrogram=False)
    return {name: shape for name, (_, shape) in official_shapes(large, theirs).items()}


def write_checkpoint(prefix: Path) -> int:
    """Write it; returns its size in bytes."""
    rng, items = np.random.default_rng(0), [(b"", field(1, 1))]
    offset = 0
    with prefix.with_name(prefix.name + ".data-00000-of-00001").open("wb") as file:
        for name, shape in variables().items():
            raw = rng.standard_normal(shape, np.float32).tobytes()
            for slot in ("", "/.OPTIMIZER_SLOT/optimizer/m", "/.OPTIMIZER_SLOT/optimizer/v"):
                facts = {"dtype": 1, "shard": 0, "size": len(raw), "offset": offset}
                checksum = masked(google_crc32c.value(raw)) if not slot else 0
                value = entry(**facts, shape=shape, checksum=checksum)
                items.append(((name + slot + SUFFIX).encode(), value))
                if not slot:
                    file.seek(offset)
                    file.write(raw)
                offset += len(raw)
        file.truncate(offset)
    prefix.with_name(prefix.name + ".index").write_bytes(table(sorted(items)))
    return offset


PROGRAM = """
import sys
from vatt.cli.main import main
code = main(sys.argv[1:])
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(peak[0].split()[1], file=sys.stderr)
sys.exit(code)
"""


def convert(prefix: Path, *options: str) -> tuple[float, float]:
    """Seconds, and MiB of memory at most, of one conversion in a process of its own (Linux)."""
    command = [sys.executable, "-c", PROGRAM, "convert", str(prefix), "--json", *options]
    started = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - started, int(done.stderr.split()[-1]) / 1024


def copy(source: Path, target: Path) -> float:
    """Seconds of copying a file to disk."""
    started = time.perf_counter()
    with source.open("rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 23)
        writer.flush()
        os.fsync(writer.fileno())
    return time.perf_counter() - started


def spread(numbers: list[float]) -> dict[str, float]:
    """Min, median and max."""
    values = {"min": min(numbers), "median": statistics.median(numbers), "max": max(numbers)}
    return {name: round(value, 2) for name, value in values.items()}


def main() -> None:
    """Write the checkpoint, convert it, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        size = write_checkpoint(folder / "ckpt-500000")
        dry_s, dry_mb = convert(folder / "ckpt-500000", "--dry-run")  # also warms up
        times, peaks, copies = [], [], []
        for _ in range(asked.runs):
            taken, peak = convert(folder / "ckpt-500000", "--out", str(folder / "model"))
            times.append(taken)
            peaks.append(peak - dry_mb)
            copies.append(copy(folder / "model" / "model.safetensors", folder / "copy"))
            shutil.rmtree(folder / "model")
        shapes = variables().values()
        answer = {
            "question": "vatt convert of the Large checkpoint: how long, how much memory?",
            "machine": {"processor": platform.processor() or platform.machine()},
            "versions": {"vatt": __version__, "torch": torch.__version__, "numpy": np.__version__},
            "checkpoint_gb": round(size / 1e9, 2),
            "weights_gb": round(sum(4 * int(np.prod(shape)) for shape in shapes) / 1e9, 2),
            "largest_tensor_mb": round(max(4 * int(np.prod(shape)) for shape in shapes) / 2**20),
            "peak_mb_above_dry_run": spread(peaks),
            "dry_run_s": round(dry_s, 2),
            "convert_s": spread(times),
            "copy_s": spread(copies),
        }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
