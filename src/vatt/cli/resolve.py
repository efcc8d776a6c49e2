"""Preset, TOML file and command line become one checked config, and each value knows its origin."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
)

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
        cls,
        prog=prog,
        description=description,
        args=args,
        default=draft,
        use_underscores=True,
        registry=_registry(),
    )

    final = configs.flatten(configs.to_values(config))
    before = configs.flatten(configs.to_values(draft))
    origins = dict.fromkeys(final, "default")
    for where, values in sources:
        origins |= dict.fromkeys(configs.flatten(values), where)
    typed = set()  # a value may be given that is the same as before
    for word in args:
        if word.startswith("--"):
            key = word[2:].partition("=")[0].replace("-", "_")
            table, dot, name = key.rpartition(".")
            typed |= {key, table + dot + name.removeprefix("no_")}  # --data.no_flip: data.flip
    for key, value in final.items():
        if key in typed or value != before.get(key):
            origins[key] = "command line"
    return Resolved(config, origins)


def _ask_for_missing(draft: Any) -> None:
    """Mark the values that no source gave as required on the command line."""
    for field in dataclasses.fields(draft):
        if not hasattr(draft, field.name):
            object.__setattr__(draft, field.name, tyro.MISSING)
        elif dataclasses.is_dataclass(value := getattr(draft, field.name)):
            _ask_for_missing(value)


def _registry() -> ConstructorRegistry:
    """How words become values: `none` is None of every setting that may have none, as in TOML."""
    registry = ConstructorRegistry()

    def none(words: list[str]) -> None:
        if words[0].lower() != configs.NONE:
            raise ValueError(words[0])

    @registry.primitive_rule
    def rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[None] | None:
        if info.type is not type(None):
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=configs.NONE,
            instance_from_str=none,
            is_instance=lambda value: value is None,
            str_from_instance=lambda _: [configs.NONE],
        )

    return registry
