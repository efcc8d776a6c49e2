"""One tiny data set and one run on it, made once by the real commands, for all that need any."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.e2e.tiny_clips import write_clips
from vatt.cli.main import main

# For tensors as small as the tests', waiting for a second thread takes longer than the work.
torch.set_num_threads(1)


@dataclass(frozen=True)
class Tiny:
    clips: Path
    shards: Path
    run: Path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Tiny:
    """Eleven videos of six seconds, their shards, and a model trained on them for 12 steps."""
    folder = tmp_path_factory.mktemp("tiny")
    paths = Tiny(folder / "clips", folder / "shards", folder / "run")
    labels = write_clips(paths.clips)
    prepare = ["prepare", str(paths.clips), "--out", str(paths.shards), "--manifest", str(labels)]
    assert main([*prepare, "--fps", "source", "--copy", "--workers", "1"]) == 0
    pretrain = ["pretrain", "--preset", "tiny", "--data.shards", str(paths.shards)]
    assert (
        main([*pretrain, "--data.workers", "0", "--train.threads", "1", "--out", str(paths.run)])
        == 0
    )
    return paths
