"""What the machine has: cores, memory, the device to compute on, fast bfloat16; asked only here.

PyTorch is imported where it is used: the workers of `vatt prepare` count cores without it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vatt.errors import ConfigError, TrainingError

if TYPE_CHECKING:
    import torch

AutocastSetting = Literal["auto", "bfloat16", "off"]
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of the C library's mallopt


def num_cpus() -> int:
    """How many cores this process may use; on systems that limit none, how many there are."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpus_of_rank() -> int:
    """The share of the cores of one of the processes that `torchrun` started on this machine."""
    return max(1, num_cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def free_memory(device: torch.device | None = None) -> int | None:
    """Bytes that can be taken, without swapping, of the host's memory or of an accelerator's.

    None where the system does not say.
    """
    if device is not None and device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return None
    numbers = dict(line.split(":") for line in lines)
    left = int(numbers["MemAvailable"].split()[0]) * 1024
    return min([left, *left_of_limits()])


def left_of_limits(groups: Path = Path("/sys/fs/cgroup"), own: str | None = None) -> list[int]:
    """Bytes left of the limits that a container or a scheduler set this process (cgroup v2).

    Args:
        groups: where the system shows them.
        own: that of this process, below; left out: as Linux says.
    """
    found = list[int]()
    with suppress(OSError, ValueError, KeyError):
        if own is None:
            lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
            own = next((line[4:] for line in lines if line.startswith("0::/")), "")
        for group in (groups / own, *(groups / own).parents):  # a container may see the last alone
            limit = group / "memory.max"
            if limit.is_file() and (most := limit.read_text().strip()) != "max":
                used = int((group / "memory.current").read_text())
                lines = (group / "memory.stat").read_text().splitlines()
                cached = int(dict(map(str.split, lines))["inactive_file"])  # given back if needed
                found.append(max(0, int(most) - used + cached))
    return found


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Compute with `count` threads (0: one for each core of this rank) meanwhile."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or cpus_of_rank())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Have the C library keep what a step frees for the next one (Linux).

    glibc gives it back to the system, and the next step waits for each page anew: a sixth of a step
    of the demo on a CPU, more where attention over long inputs is written out.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 2**25)  # larger ones are given back each by itself
        mallopt(_TRIM_THRESHOLD, -1)  # never


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """The device called `name`; "cuda" is this rank's GPU; so is "auto", or the CPU without one.

    Raises:
        ConfigError: there is no such device.
    """
    import torch

    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if num_gpus else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(
            f"device: found {name!r}, expected auto, cpu, cuda, or one of several such as cuda:1"
        ) from None
    if device.type != "cuda":
        try:
            torch.zeros(1, device=device).item()
        except (RuntimeError, AssertionError):  # whose message may have thousands of letters
            raise ConfigError(
                f"device: found {name!r}, on which PyTorch does not compute here; set auto or cpu"
            ) from None
        return device
    index = local_rank if device.index is None else device.index
    if device.index is not None and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            f"device: found {name!r} for all processes of this machine, expected cuda, which gives "
            "each its own GPU; CUDA_VISIBLE_DEVICES says which ones"
        )
    if index >= num_gpus:
        raise ConfigError(
            f"device: found {name!r}, which is GPU number {index} from 0, but PyTorch finds "
            f"{num_gpus} here; set it to auto or cpu, or install PyTorch for this GPU"
        )
    return torch.device("cuda", index)


def peak_memory(device: torch.device) -> int:
    """Bytes of the device that were in use at most so far; on a CPU those of this process."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass
class Peak:
    """Bytes that were in use at most beyond those before; None where the system does not say."""

    bytes: int | None = None


@contextmanager
def peak_use(device: torch.device) -> Iterator[Peak]:
    """Memory that is taken meanwhile, at most: of the accelerator, or of this process (Linux)."""
    import torch

    peak, status = Peak(), Path("/proc/self/status")
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated(device) - before
        return
    before = 0
    with suppress(OSError, KeyError):  # KeyError, too: not all systems that have it say it all
        Path("/proc/self/clear_refs").write_text("5")  # the most so far is what is in use now
        before = _kilobytes(status)["VmHWM"]
    yield peak
    with suppress(OSError, KeyError):
        peak.bytes = (_kilobytes(status)["VmHWM"] - before) * 1024 if before else None


def _kilobytes(status: Path) -> dict[str, int]:
    pairs = (line.split() for line in status.read_text().splitlines())
    return {one[0].rstrip(":"): int(one[1]) for one in pairs if one[-1] == "kB"}


@contextmanager
def told_of_full_memory() -> Iterator[None]:
    """Say of training that finds no room which settings need less.

    Raises:
        TrainingError: in place of PyTorch's own errors.
    """
    import torch

    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate mem" not in str(error):
            raise
        raise TrainingError(
            f"no memory is left: {str(error).splitlines()[0]}; the same command goes on with "
            "--train.micro_batch (a low number), --train.recompute or, pre-training on several "
            "processes, --train.parallel fsdp"
        ) from error


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators of the CPU and of this process's GPU, and put them back at the end."""
    import torch

    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(gpus):
        torch.manual_seed(seed)
        yield


def autocast(setting: AutocastSetting, device: torch.device) -> torch.autocast:
    """The context to compute in; "auto" is bfloat16 where the hardware multiplies it faster."""
    import torch

    enabled = setting == "bfloat16" or (setting == "auto" and bfloat16_pays(device))
    # A weight's cast that is kept is one tensor to all micro-batches, whose gradients would add up
    # in bfloat16; and it would keep the whole weights of a model that is divided among ranks.
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)


def bfloat16_pays(device: torch.device) -> bool:
    """Whether `device` has bfloat16 matrix units (on a CPU: AMX or the AVX-512 instructions).

    CPUs without them emulate bfloat16 and are several times slower with it than without.
    """
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


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
