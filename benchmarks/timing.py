"""How every benchmark times and reports: warm up, repeat, min, median and max, as JSON."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from vatt import __version__

REPEATS = 7


def milliseconds(work: Callable[[], object], *, device: torch.device) -> dict[str, float]:
    """Run `work` twice to warm up, then `REPEATS` times; the device is waited for."""
    times = [_once(work, device) for _ in range(REPEATS + 2)][2:]
    rounded = {"min": min(times), "median": statistics.median(times), "max": max(times)}
    return {name: round(value, 2) for name, value in rounded.items()}


def in_turn(
    ways: Mapping[str, Callable[[], object]], *, device: torch.device, repeats: int
) -> dict[str, list[float]]:
    """Milliseconds of each way; they take turns, so that all meet the same load of others."""
    rounds = [[_once(way, device) for way in ways.values()] for _ in range(repeats + 1)]
    return dict(zip(ways, map(list, zip(*rounds[1:], strict=True)), strict=True))


def _once(work: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - started) * 1e3


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


def processor() -> str:
    """The CPU's name, and which instructions it has for bfloat16 (Linux); else its architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split("\t", 1) for line in text.split("\n\n")[0].splitlines() if "\t" in line)
    name, flags = (facts.get(key, "").strip("\t: ") for key in ("model name", "flags"))
    have = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags.split()]
    return f"{name or platform.machine()} ({' and '.join(have) or 'no bfloat16 instructions'})"
