"""Run by test_distributed.py in every rank: the main rank takes longer than the time-out."""

import time
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from vatt import distributed


def main(out: str) -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=1))
    distributed.barrier()
    if distributed.is_main():
        time.sleep(2)
        (Path(out) / "done").touch()
    distributed.barrier()
    assert (Path(out) / "done").is_file()
    dist.destroy_process_group()
