"""Run by test_pretrain.py in every rank: pre-train with the settings of a file."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from vatt import config as configs
from vatt.contracts import Batch
from vatt.data.datasets import ClipDataset
from vatt.tasks.pretrain import PretrainConfig, run


def main(settings: str, fault: str = "") -> None:
    """The second rank waits for each part of a batch if it is slow, or dies once, in step 6."""
    values, died = configs.read_toml(Path(settings)), Path(settings).with_suffix(".died")
    if fault and os.environ.get("RANK") == "1":
        real = ClipDataset.batch

        def batch(self: ClipDataset, positions: Sequence[int]) -> Batch:
            if fault == "slow":
                time.sleep(0.3)
            elif positions[0] >= 6 * self.config.batch_size and not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, positions)

        mock.patch.object(ClipDataset, "batch", batch).start()
    run(configs.from_values(PretrainConfig, values, where=settings))


if __name__ == "__main__":  # as a process of its own, to be killed
    main(*sys.argv[1:])
