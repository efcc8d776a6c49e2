"""Run by test_pretrain.py in every rank: pre-train with the settings of a file."""

import sys
from pathlib import Path

from vatt import config as configs
from vatt.tasks.pretrain import PretrainConfig, run


def main(settings: str) -> None:
    values = configs.read_toml(Path(settings))
    run(configs.from_values(PretrainConfig, values, where=settings))


if __name__ == "__main__":  # as a process of its own, to be killed
    main(sys.argv[1])
