"""What the machine is asked, on branches that this one may not have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vatt import devices
from vatt.errors import ConfigError


def test_cores_are_those_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS there is no affinity, before Python 3.13 no `process_cpu_count`."""
    monkeypatch.setattr(os, "process_cpu_count", lambda: 3, raising=False)
    assert devices.num_cpus() == 3
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5}, raising=False)
    assert devices.num_cpus() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert devices.num_cpus() == 8
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert devices.num_cpus() == 1


def test_workers_count_cores_without_importing_torch() -> None:
    code = "import sys, vatt.workers.pool; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_free_memory_is_known_on_linux_only(monkeypatch: pytest.MonkeyPatch) -> None:
    found = devices.free_memory()
    assert found is None or found > 10**6
    monkeypatch.setattr(Path, "read_text", missing)
    assert devices.free_memory() is None


def test_memory_that_a_container_may_not_have_is_not_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each group on the way may have a limit; cached files are given back."""
    for group, most in (
        (tmp_path, "max"),
        (tmp_path / "job", "9000"),
        (tmp_path / "job/run", "max"),
    ):
        group.mkdir(exist_ok=True)
        (group / "memory.max").write_text(f"{most}\n")
        (group / "memory.current").write_text("5000\n")
        (group / "memory.stat").write_text("anon 3000\ninactive_file 1500\n")
    assert devices.left_of_limits(tmp_path, "job/run") == [5500]
    assert devices.left_of_limits(tmp_path / "job", "not/seen/here") == [5500]
    assert devices.left_of_limits(tmp_path, "") == []
    monkeypatch.setattr(devices, "left_of_limits", lambda: [5500])
    assert devices.free_memory() in (5500, None)


def missing(*_: object, **__: object) -> str:
    raise FileNotFoundError


def test_the_device_is_this_ranks_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert devices.pick_device("auto", local_rank=3) == torch.device("cuda", 3)
    assert devices.pick_device("cuda", local_rank=3) == torch.device("cuda", 3)
    assert devices.pick_device("cpu", local_rank=3) == torch.device("cpu")
    assert devices.pick_device("cuda:1") == torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.pick_device("auto", local_rank=3) == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gpu", "found 'gpu', expected auto, cpu, cuda"),
        ("meta", "found 'meta', on which PyTorch does not compute here; set auto or cpu"),
        ("xla", "found 'xla', on which PyTorch does not compute here; set auto or cpu"),
        ("cuda:2", "found 'cuda:2', which is GPU number 2 from 0, but PyTorch finds 2 here"),
    ],
)
def test_a_device_that_is_not_there_is_wrong_usage(
    name: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=words):
        devices.pick_device(name)


def test_one_gpu_for_all_processes_of_a_machine_is_wrong_usage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert devices.pick_device("cuda", local_rank=1) == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match=r"found 'cuda:1' for all processes .* expected cuda"):
        devices.pick_device("cuda:1", local_rank=1)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_put_back(threads: int) -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), devices.cpu_threads(threads):
        raise_after(torch.get_num_threads() == threads)
    assert torch.get_num_threads() == before


def raise_after(fact: bool) -> None:
    assert fact
    raise KeyError


def test_no_number_of_threads_means_one_for_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "num_cpus", lambda: 3)
    with devices.cpu_threads(0):
        assert torch.get_num_threads() == 3


def test_draws_follow_the_seed_and_leave_the_generator_as_it_was() -> None:
    state = torch.get_rng_state()
    draws = []
    for seed in (1, 2, 1):
        with devices.seeded(seed):
            draws.append(torch.rand(4))
    torch.testing.assert_close(draws[0], draws[2], rtol=0, atol=0)
    assert not torch.equal(draws[0], draws[1])
    assert torch.equal(torch.get_rng_state(), state)


def test_only_this_ranks_gpu_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeping the state of every GPU would touch those of the other ranks."""
    kept: list[list[int]] = []
    fork = torch.random.fork_rng

    def fork_rng(gpus: list[int]) -> object:
        kept.append(gpus)
        return fork([])

    monkeypatch.setattr(torch.random, "fork_rng", fork_rng)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    with devices.seeded(1):
        pass
    assert kept == [[3]]


FLAGS = {"amx_bf16": True, "avx512_bf16": True, "avx2": False}


@pytest.mark.parametrize(("flag", "pays"), FLAGS.items())
def test_bfloat16_pays_on_a_cpu_that_multiplies_it(
    flag: str, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"flags : fpu {flag} vme")
    assert devices.bfloat16_pays(torch.device("cpu")) is pays
    assert devices.autocast("auto", torch.device("cpu"))._enabled is pays
    assert devices.autocast("bfloat16", torch.device("cpu"))._enabled
    assert not devices.autocast("off", torch.device("cpu"))._enabled


def test_bfloat16_is_off_where_nothing_says_that_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", missing)
    assert not devices.bfloat16_pays(torch.device("cpu"))
    assert not devices.bfloat16_pays(torch.device("mps"))


@pytest.mark.parametrize("pays", [True, False])
def test_a_gpu_is_asked_without_counting_emulation(
    pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def supported(*, including_emulation: bool) -> bool:
        assert not including_emulation
        return pays

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert devices.bfloat16_pays(torch.device("cuda")) is pays


@pytest.mark.parametrize(("ranks", "cores"), [("1", 6), ("4", 1), ("8", 1), ("2", 3)])
def test_cores_of_a_machine_are_shared_by_its_ranks(monkeypatch, ranks, cores):
    monkeypatch.setattr(devices, "num_cpus", lambda: 6)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    assert devices.cpus_of_rank() == cores
    with devices.cpu_threads(0):
        assert torch.get_num_threads() == cores


def test_gradients_of_a_weight_that_is_used_many_times_add_up_in_float32() -> None:
    """As by many micro-batches; in bfloat16 256 + 1 is 256."""
    layer = torch.nn.Linear(1, 1, bias=False)
    with devices.autocast("bfloat16", torch.device("cpu")):
        parts = [layer(torch.ones(1, 1)) for _ in range(400)]
    torch.autograd.backward(torch.stack(parts).float().sum())
    assert layer.weight.grad is not None
    assert layer.weight.grad.item() == 400


@pytest.mark.skipif(sys.platform != "linux", reason="/proc and mallopt are of Linux")
def test_what_a_step_frees_is_kept_for_the_next_one() -> None:
    code = """
import sys
from pathlib import Path
from vatt.devices import keep_freed_memory

def resident_mb():
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) // 1024

if sys.argv[1] == "kept":
    keep_freed_memory()
before = resident_mb()
step = [bytearray(b"x") * 2**23 for _ in range(40)]  # 320 MB
assert resident_mb() > before + 250
del step
print(resident_mb() - before)
"""
    kept, given_back = (
        int(
            subprocess.run(
                [sys.executable, "-c", code, how], check=True, capture_output=True
            ).stdout
        )
        for how in ("kept", "given back")
    )
    assert kept > 250 > 100 > given_back
