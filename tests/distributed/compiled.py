"""Steps with compiled layers; run by test_compiled.py in one process, then in 2 ranks, then in 4.

All layers are compiled in the one process; the ranks are copies of it, and compile nothing.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.distributed.micro_batches import Case, step
from vatt import distributed
from vatt.config import merge
from vatt.presets import tiny

WORLDS = (2, 4)
# Clips of as many tokens of video as of audio: their layers are compiled once.
ALIKE = {
    "video": {"patch": [4, 12, 8], "buckets": [1, 2, 4]},
    "audio": {"patch": 400, "buckets": 8},
}
SIZES = merge(tiny()["model"], ALIKE)


def cases() -> Iterator[Case]:
    """Of 12 clips, so that 3 are the whole share of a rank of 4; 6 that of a rank of 2."""
    for drop_token, masks in product((0.0, 0.5), ("uneven", "none_in_second_half")):
        yield Case(0, 0.0, drop_token, masks, compiled=True)
        for micro_batch, dropout in product((1, 3), (0.0, 0.2)):
            yield Case(micro_batch, dropout, drop_token, masks, compiled=True)
        yield Case(6, 0.0, drop_token, masks, compiled=True)
    for divided in (False, True):
        yield Case(3, 0.2, 0.5, "uneven", recompute=True, compiled=True, divided=divided)


def path_of(out: str, case: Case, world: int, rank: int | str) -> Path:
    return Path(out) / f"{case}-{world}-{rank}.safetensors"


def results(out: str, case: Case) -> dict[str, dict[str, Tensor]]:
    """What was found for a case, by who found it."""
    found = sorted(Path(out).glob(f"{case}-[0-9]-*.safetensors"))
    return {path.stem.removeprefix(f"{case}-"): load_file(path) for path in found}


def before_ranks(out: str) -> None:
    """In one process; also with all micro-batches kept, of which nothing is computed again."""
    torch.set_num_threads(1)
    dynamo: Any = torch._dynamo
    dynamo.config.cache_size_limit = 256  # all cases at once; a run has one
    dynamo.config.fail_on_recompile_limit_hit = True
    for case in cases():
        save_file(step(case, sizes=SIZES), path_of(out, case, 1, 0))
        if case.micro_batch:
            save_file(step(case, sizes=SIZES, keep_all=True), path_of(out, case, 1, "kept"))


def main(out: str) -> None:
    """FSDP makes layers other classes, which are compiled by themselves.

    Without the threads that compile: a copied process has none, and would wait for them for ever.
    """
    inductor: Any = torch._inductor
    inductor.config.compile_threads = 1
    with distributed.joined_ranks(torch.device("cpu")):
        for case in cases():
            with torch.compiler.set_stance("default" if case.divided else "fail_on_recompile"):
                found = step(case, sizes=SIZES)
            save_file(found, path_of(out, case, distributed.world_size(), distributed.rank()))
