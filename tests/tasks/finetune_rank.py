"""Run by test_finetune.py in every rank, or to be killed: fine-tune with the settings of a file."""

import sys
from pathlib import Path

from vatt import config as configs
from vatt.tasks.finetune import FinetuneConfig, run


def main(file: str) -> None:
    run(configs.from_values(FinetuneConfig, configs.read_toml(Path(file)), where=file))


if __name__ == "__main__":
    main(sys.argv[1])
