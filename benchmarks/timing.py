"""How every benchmark times and reports: warm up, repeat, min, median and max, as JSON."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from vatt import __version__

REPEATS = 7


def milliseconds(work: Callable[[], object], *, device: torch.device) -> dict[str, float]:
    """Run `work` twice to warm up, then `REPEATS` times; the device is waited for."""
    times = []
    for number in range(REPEATS + 2):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= 2:
            times.append((time.perf_counter() - started) * 1e3)
    rounded = {"min": min(times), "median": statistics.median(times), "max": max(times)}
    return {name: round(value, 2) for name, value in rounded.items()}


def report(question: str, rows: Mapping[str, Any], *, device: torch.device) -> None:
    """Print the answer as one JSON line, with what it was measured on."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    machine = {
        "device": gpu or platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "vatt": __version__,
    }
    print(json.dumps({"question": question, "machine": machine, "milliseconds": rows}))
