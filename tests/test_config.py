"""Settings merge in order and are checked once, together."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tomli_w

from vatt import config
from vatt.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    width: int = 8
    heads: int = 2

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError(f"width: found {self.width}, expected a multiple of {self.heads}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    out: Path
    size: Size = field(default_factory=lambda: Size(width=12, heads=3))
    clip_norm: float | None = 1.0
    shards: tuple[Path, ...] = ()


def build(values: dict) -> Task:
    return config.from_values(Task, values, where="lab.toml")


def test_written_settings_read_back_equal_also_where_a_value_is_none(tmp_path):
    task = Task(out=Path("a"), clip_norm=None, shards=(Path("x"), Path("y")))
    (tmp_path / "config.toml").write_text(tomli_w.dumps(config.to_values(task)))
    assert build(config.read_toml(tmp_path / "config.toml")) == task


def test_part_of_a_nested_table_keeps_the_other_defaults_of_its_field():
    assert build({"out": "a", "size": {"width": 9}}).size == Size(width=9, heads=3)


def test_coupled_values_may_disagree_until_all_changes_are_in():
    unchecked = config.draft(Task, {"out": "a", "size": {"width": 10}}, where="lab.toml")
    assert unchecked.size.width == 10
    with pytest.raises(ConfigError, match="found 10, expected a multiple of 3"):
        build({"out": "a", "size": {"width": 10}})
    assert build({"out": "a", "size": {"width": 10, "heads": 5}}).size.heads == 5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"out": "a", "size": {"widht": 4}}, "unknown setting size.widht; .* size.width"),
        ({"out": "a", "size": {"width": "wide"}}, "size.width: found 'wide'"),
        ({"out": "a", "size": 4}, "size: found 4, expected a table"),
        ({}, "out is missing and has no default"),
    ],
)
def test_an_error_names_the_file_the_key_and_what_was_expected(values, message):
    with pytest.raises(ConfigError, match=r"lab\.toml: .*" + message):
        build(values)


def test_a_missing_or_broken_file_is_named_in_the_error(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot read"):
        config.read_toml(tmp_path / "nowhere.toml")
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(ConfigError, match=r"bad\.toml: not a TOML file"):
        config.read_toml(tmp_path / "bad.toml")


def test_changes_are_laid_over_table_by_table():
    merged = config.merge({"a": {"x": 1, "y": 2}, "b": 3}, {"a": {"y": 5}, "c": 6})
    assert merged == {"a": {"x": 1, "y": 5}, "b": 3, "c": 6}
    assert config.flatten(merged) == {"a.x": 1, "a.y": 5, "b": 3, "c": 6}


def test_the_hash_changes_with_any_value():
    task = Task(out=Path("a"))
    assert config.config_hash(task) == config.config_hash(Task(out=Path("a")))
    assert config.config_hash(task) != config.config_hash(Task(out=Path("a"), clip_norm=None))
