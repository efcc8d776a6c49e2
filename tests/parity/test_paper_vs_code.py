"""docs/paper-vs-code.md names options that exist, with their real defaults and possible values."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from vatt.config import flatten, from_values, to_values
from vatt.errors import ConfigError
from vatt.tasks.pretrain import PretrainConfig

PAGE = Path(__file__).parents[2] / "docs" / "paper-vs-code.md"
DEFAULTS = flatten(to_values(PretrainConfig(out=Path("unused"))))


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if len(row) == 5 and row[3].startswith("`")]


OPTIONS = [
    pytest.param(option, row, id=option)
    for row in rows()
    for option in re.findall("`(.+?)`", row[3])
]


def nested(option: str, value: Any) -> dict[str, Any]:
    for name in reversed(option.split(".")):
        value = {name: value}
    return dict(value)


@pytest.mark.parametrize(("option", "row"), OPTIONS)
def test_option_has_the_default_the_page_says(option, row):
    assert DEFAULTS[option] == json.loads(row[4].strip("`"))


@pytest.mark.parametrize(("option", "row"), OPTIONS)
def test_option_takes_the_values_the_page_names(option, row):
    for text in re.findall(r"\(`(\w+)`\)", row[1] + row[2]):
        value = json.loads(text) if text in ("true", "false") or text.isdigit() else text
        values = {"out": "unused"} | nested(option, value)
        built = from_values(PretrainConfig, values, where=option)
        assert flatten(to_values(built))[option] == value


def test_page_has_a_row_for_most_differences_and_wrong_values_would_be_noticed():
    assert len(OPTIONS) >= 25
    with pytest.raises(ConfigError):
        from_values(PretrainConfig, {"out": "x", "loss": {"form": "other"}}, where="test")
