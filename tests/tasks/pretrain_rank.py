"""Run by test_pretrain.py in every rank: pre-train with the settings of a file."""

import sys
from pathlib import Path

from vatt import config as configs
from vatt.tasks.pretrain import PretrainConfig, run

if __name__ == "__main__":
    values = configs.read_toml(Path(sys.argv[1]))
    run(configs.from_values(PretrainConfig, values, where=sys.argv[1]))
