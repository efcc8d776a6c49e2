"""Where bfloat16 pays: matrix products in half the bits, master weights and losses in full."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

AutocastSetting = Literal["auto", "bfloat16", "off"]


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """The device called `name`; "auto" is this rank's GPU where there is one, else the CPU."""
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


def own_accelerator() -> list[int]:
    """The GPU that this process computes on, if any: whose random state it may touch."""
    return [torch.cuda.current_device()] if torch.cuda.is_available() else []


def autocast(setting: AutocastSetting, device: torch.device) -> torch.autocast:
    """The context to compute in; "auto" is bfloat16 where the hardware multiplies it faster."""
    enabled = setting == "bfloat16" or (setting == "auto" and bfloat16_pays(device))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def bfloat16_pays(device: torch.device) -> bool:
    """Whether `device` has bfloat16 matrix units (on a CPU: AMX or the AVX-512 instructions).

    CPUs without them emulate bfloat16 and are several times slower with it than without.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags
