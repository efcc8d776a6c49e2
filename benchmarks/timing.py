"""How every benchmark times and reports: warm up, repeat, min, median and max, as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch

from vatt import __version__
from vatt.devices import processor
from vatt.speed.in_turn import once

REPEATS = 7


def milliseconds(work: Callable[[], object], *, device: torch.device) -> dict[str, float]:
    """Run `work` twice to warm up, then `REPEATS` times; the device is waited for."""
    times = [once(work, device) for _ in range(REPEATS + 2)][2:]
    rounded = {"min": min(times), "median": statistics.median(times), "max": max(times)}
    return {name: round(value, 2) for name, value in rounded.items()}


def report(question: str, rows: Mapping[str, Any], *, device: torch.device) -> None:
    """Print the answer as one JSON line, with what it was measured on."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    machine = {
        "device": gpu or processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "vatt": __version__,
    }
    print(json.dumps({"question": question, "machine": machine, "milliseconds": rows}))
