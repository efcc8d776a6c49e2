"""Run by test_pretrain.py in every rank: pre-train with the settings of a file."""

from pathlib import Path

from vatt import config as configs
from vatt.tasks.pretrain import PretrainConfig, run


def main(settings: str) -> None:
    values = configs.read_toml(Path(settings))
    run(configs.from_values(PretrainConfig, values, where=settings))
