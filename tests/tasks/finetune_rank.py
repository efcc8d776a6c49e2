"""Run by test_finetune.py in every rank, or to be killed: fine-tune with the settings of a file."""

import sys
from pathlib import Path

from vatt import config as configs
from vatt.tasks.finetune import FinetuneConfig, run

if __name__ == "__main__":
    values = configs.read_toml(Path(sys.argv[1]))
    run(configs.from_values(FinetuneConfig, values, where=sys.argv[1]))
