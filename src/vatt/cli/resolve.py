"""Preset, TOML file and command line become one checked config, and each value knows its origin."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from vatt import config as configs


@dataclass(frozen=True, slots=True)
class Resolved:
    """A checked config and, by dotted key, where each of its values comes from."""

    config: Any
    origins: Mapping[str, str]

    def lines(self) -> list[tuple[str, Any, str]]:
        """Key, value and origin of every setting, in the order of the dataclass."""
        values = configs.flatten(configs.to_values(self.config))
        return [(key, value, self.origins[key]) for key, value in values.items()]


def resolve(
    cls: type,
    args: Sequence[str],
    *,
    prog: str,
    presets: Sequence[tuple[str, Mapping[str, Any]]] = (),
    file: str | None = None,
    notes: str = "",
) -> Resolved:
    """Merge presets, file and command line in that order, then build and check once.

    Args:
        cls: the command's config dataclass.
        args: what is left of the command line, `--data.batch_size 512 …`.
        prog: the command's name in help and errors.
        presets: names and values; they are of pre-training, others take what they know.
        file: path of a TOML file.
        notes: a paragraph for `--help`.

    Raises:
        ConfigError: a file cannot be read, or the values together are wrong.
        SystemExit: 2 when `args` do not parse, 0 after `--help`.
    """
    sources: list[tuple[str, Mapping[str, Any]]] = []
    tables = {field.name for field in dataclasses.fields(cls)}
    for name, given in presets:
        sources.append((name, {key: given[key] for key in given if key in tables}))
    if file is not None:
        sources.append((file, configs.read_toml(Path(file))))
    merged: dict[str, Any] = {}
    for where, values in sources:
        configs.draft(cls, values, where=where)  # errors name the source they come from
        merged = configs.merge(merged, values)
    draft: Any = configs.draft(cls, merged, where=prog)
    _ask_for_missing(draft)
    description = f"{inspect.cleandoc(cls.__doc__ or '')}\n\n{notes}".strip()
    config: Any = tyro.cli(
        cls, prog=prog, description=description, args=args, default=draft, use_underscores=True
    )
    return Resolved(config, _origins(config, draft, args, sources))


def _ask_for_missing(draft: Any) -> None:
    """Mark the values that no source gave as required on the command line."""
    for field in dataclasses.fields(draft):
        if not hasattr(draft, field.name):
            object.__setattr__(draft, field.name, tyro.MISSING)
        elif dataclasses.is_dataclass(value := getattr(draft, field.name)):
            _ask_for_missing(value)


def _origins(
    config: Any, draft: Any, args: Sequence[str], sources: Sequence[tuple[str, Mapping[str, Any]]]
) -> dict[str, str]:
    final = configs.flatten(configs.to_values(config))
    before = configs.flatten(configs.to_values(draft))
    origins = dict.fromkeys(final, "default")
    for where, values in sources:
        origins |= dict.fromkeys(configs.flatten(values), where)
    typed = _typed_keys(args)
    origins |= {
        key: "command line" for key in final if key in typed or final[key] != before.get(key)
    }
    return origins


def _typed_keys(args: Sequence[str]) -> set[str]:
    """Dotted keys given as options: `--data.no_flip` sets data.flip."""
    keys = set()
    for word in args:
        if word.startswith("--"):
            key = word[2:].partition("=")[0].replace("-", "_")
            table, dot, name = key.rpartition(".")
            keys |= {key, table + dot + name.removeprefix("no_")}
    return keys
