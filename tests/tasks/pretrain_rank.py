"""Run by test_pretrain.py in every rank: pre-train with the settings of a file."""

import os
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

from vatt import config as configs
from vatt.contracts import Batch
from vatt.data.datasets import ClipDataset
from vatt.tasks.pretrain import PretrainConfig, run


def main(settings: str, disk: str = "") -> None:
    """With a slow disk, the second rank waits for each part of a batch."""
    values = configs.read_toml(Path(settings))
    if disk == "slow" and os.environ.get("RANK") == "1":
        real = ClipDataset.batch

        def batch(*args: Any) -> Batch:
            time.sleep(0.3)
            return real(*args)

        mock.patch.object(ClipDataset, "batch", batch).start()
    run(configs.from_values(PretrainConfig, values, where=settings))


if __name__ == "__main__":  # as a process of its own, to be killed
    main(sys.argv[1])
