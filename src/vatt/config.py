"""Settings: presets + TOML + dotted overrides → one frozen dataclass, checked once, together.

A preset gives values, a TOML file changes some, the command line changes some more; only then is
the dataclass built and `__post_init__` run, so that coupled values (width and heads) can change
together. Until then the values live in a *draft*: an instance whose checks have not run.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from vatt.errors import ConfigError

T = TypeVar("T")


CONFIG_FILE = "config.toml"  # the settings of a run or prepared folder
NONE = "none"  # TOML has no word for None


def to_values(config: Any) -> dict[str, Any]:
    """A (nested) dataclass as plain dicts, lists, strings and numbers; None becomes "none"."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if value is None:
        return NONE
    if dataclasses.is_dataclass(value):
        return to_values(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def from_values(cls: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Build and check a config dataclass from plain values.

    Args:
        cls: a dataclass, possibly of dataclasses.
        values: nested mapping; keys that are absent take the defaults of `cls`.
        where: what to call the source in errors, e.g. the file's path.

    Raises:
        ConfigError: a key is unknown (with the nearest known one), or a value has the wrong type.
    """
    return _build(cls, values, where=where, prefix="", check=True)


def draft(cls: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """As `from_values`, but without running any `__post_init__`: more changes are to come."""
    return _build(cls, values, where=where, prefix="", check=False)


def _build(  # noqa: C901 one story
    cls: type[T], values: Mapping[str, Any], *, where: str, prefix: str, check: bool
) -> T:
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"perhaps you meant {prefix}{near[0]}" if near else f"known: {sorted(fields)}"
            raise ConfigError(f"{where}: unknown setting {prefix}{name}; {hint}")
    types = get_type_hints(cls)
    ready: dict[str, Any] = {}
    for name, field in fields.items():
        kind, key, default = types[name], prefix + name, field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            # What is given is laid over the field's own default, which may differ from the class's.
            base = to_values(default) if dataclasses.is_dataclass(default) else {}
            given = values.get(name, {})
            if dataclasses.is_dataclass(given):
                given = to_values(given)
            if not isinstance(given, Mapping):
                raise ConfigError(f"{where}: {key}: found {given!r}, expected a table of settings")
            ready[name] = _build(
                kind, merge(base, given), where=where, prefix=f"{key}.", check=check
            )
        elif name in values:
            value = values[name]
            if value == NONE and type(None) in get_args(kind):
                ready[name] = None
                continue
            try:
                ready[name] = TypeAdapter(kind).validate_python(value)
            except ValidationError as error:
                reason = error.errors()[0]["msg"]
                raise ConfigError(f"{where}: {key}: found {value!r}; {reason}") from None
        elif default is not dataclasses.MISSING:
            ready[name] = default
        elif check:
            raise ConfigError(f"{where}: setting {key} is missing and has no default")
    if check:
        return cls(**ready)
    unchecked = object.__new__(cls)
    for name, value in ready.items():
        object.__setattr__(unchecked, name, value)
    return unchecked


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, table by table."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one table of dotted keys: {"data": {"fps": 10}} → {"data.fps": 10}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ConfigError: the file is missing or is not TOML; says where in it.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read settings: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error


def config_hash(config: Any) -> str:
    """Twelve hex digits that change when any value of the config does."""
    text = json.dumps(to_values(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
