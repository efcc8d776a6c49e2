"""docs/paper-vs-code.md names options that exist, with their real defaults and possible values."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from vatt.config import flatten, from_values, to_values
from vatt.errors import ConfigError
from vatt.models.model_config import ModelConfig
from vatt.models.variants import as_official
from vatt.presets import bundle, ma_medium
from vatt.tasks.pretrain import PretrainConfig

PAGE = Path(__file__).parents[2] / "docs" / "paper-vs-code.md"
DEFAULTS = flatten(to_values(PretrainConfig(out=Path("unused"))))


def page_rows(heading: str | None = None) -> list[list[str]]:
    """Rows of the tables that name an option in their fourth column, below a heading if given."""
    text = PAGE.read_text(encoding="utf-8")
    if heading is not None:
        text = text.split(f"\n## {heading}")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if len(row) > 3 and row[3].startswith("`")]


def rows() -> list[list[str]]:
    return [row for row in page_rows() if len(row) == 5]


NAMED = [(option, row) for row in rows() for option in re.findall("`(.+?)`", row[3])]
OPTIONS = [pytest.param(option, row, id=option) for option, row in NAMED]


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


SIZES = {"data.batch_size", "clip.texts"}  # of an experiment, not of a form: in no bundle
SPECTROGRAM = {"model": {"audio": {"kind": "spectrogram"}}}
SHARED = {"model": to_values(as_official(from_values(ModelConfig, ma_medium()["model"], where="")))}


def bundled(name: str, values: dict[str, Any]) -> dict[str, Any]:
    return flatten(bundle(name, values))


def test_the_paper_bundle_has_the_default_of_every_option_of_the_page():
    options = {option for option, _ in NAMED} - SIZES
    for start in ({}, SPECTROGRAM, SHARED, {"loss": {"form": "official"}}):
        found = bundled("paper", start)
        assert {option: found[option] for option in options} == {
            option: DEFAULTS[option] for option in options
        }


def test_the_official_bundle_turns_every_option_that_has_another_side():
    values = [bundled("official", start) for start in ({}, SPECTROGRAM, SHARED)]
    same = {"augment.colour_probability", "augment.audio_noise", "optim.epsilon_form"}
    same |= {"standardise", "model.video.transformer.dropout", "model.text.relative_max_distance"}
    for option in {option for option, _ in NAMED} - SIZES:
        turned = any(found[option] != DEFAULTS[option] for found in values)
        assert turned == (option not in same), option


def test_both_bundles_set_the_same_options():
    for start in ({}, SPECTROGRAM, SHARED):
        assert bundled("paper", start).keys() == bundled("official", start).keys()


BEYOND = page_rows("Where neither is our default")


@pytest.mark.parametrize("row", BEYOND, ids=lambda row: row[3])
def test_both_bundles_turn_off_what_goes_beyond_paper_and_code(row):
    option = row[3].strip("`")
    (theirs,), (ours,) = (re.findall(r"\(`(\S+)`\)", cell) for cell in row[1:3])
    assert str(DEFAULTS[option]) == ours
    assert {str(bundled(name, {})[option]) for name in ("paper", "official")} == {theirs}
