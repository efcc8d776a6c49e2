"""What a user sees: help, results as tables or JSON on stdout, errors on stderr."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vatt import __version__

ERROR = "vatt: error: "
MOST_COLUMNS = 8  # of a table, on a terminal of 80 characters
PIPED_WIDTH = 240  # of output to a file or another program


def version() -> None:
    """`vatt --version`."""
    print(f"vatt {__version__}")


def overview(commands: Mapping[str, str], wrong_usage: bool) -> None:
    """`vatt --help`: the table of commands; on stderr when the usage was wrong."""
    width = max(len(name) for name in commands)
    lines = [f"  {name:<{width}}  {summary}" for name, summary in commands.items()]
    text = "\n".join(
        [
            "usage: vatt COMMAND [SETTINGS] [--config FILE] [--print-config] [--json]",
            "",
            "Transformers for multimodal self-supervised learning from raw video, audio and text.",
            "",
            "commands:",
            *lines,
            "",
            "`vatt COMMAND --help` shows what a command does and all of its settings.",
        ]
    )
    print(text, file=sys.stderr if wrong_usage else sys.stdout)


def error(message: str) -> None:
    """One error on stderr, wrapped and indented under its first line; long words stay whole."""
    width = max(shutil.get_terminal_size((100, 24)).columns, 40)
    lines: list[str] = []
    for line in message.splitlines() or [""]:
        lines += textwrap.wrap(
            line, width - len(ERROR), break_long_words=False, break_on_hyphens=False
        ) or [""]
    indented = ("\n" + " " * len(ERROR)).join(lines)
    print(f"{ERROR}{indented}", file=sys.stderr, flush=True)


def settings(lines: Sequence[tuple[str, Any, str]], *, as_json: bool) -> None:
    """Every setting with its origin: TOML that `--config` reads back, or JSON."""
    if as_json:
        print(json.dumps({key: {"value": value, "origin": origin} for key, value, origin in lines}))
        return
    import tomli_w

    texts = [tomli_w.dumps({"value": value}).removeprefix("value = ") for _, value, _ in lines]
    texts = [" ".join(text.split()) if "\n" in text.strip() else text.strip() for text in texts]
    shown = [f"{key} = {text}" for (key, _, _), text in zip(lines, texts, strict=True)]
    width = min(max(len(text) for text in shown), 60)
    for text, (_, _, origin) in zip(shown, lines, strict=True):
        print(f"{text:<{width}}  # {origin}")


def result(value: Any, *, as_json: bool) -> None:
    """What a command found out: tables for people, one line of JSON for programs.

    A result that people read in another form, e.g. rounded, has a method `shown` that gives it.
    """
    if as_json:
        print(json.dumps(_plain(value), allow_nan=False, ensure_ascii=False))
        return
    plain = _plain(value.shown() if hasattr(value, "shown") else value)
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPED_WIDTH  # names stay whole for grep
    console = Console(highlight=False, soft_wrap=True, width=width)
    for table in _tables(plain, title=""):
        console.print(table)


def _plain(value: Any) -> Any:
    """Dataclasses, paths and numbers as JSON knows them; a number that is not finite is null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _tables(value: Mapping[str, Any], *, title: str) -> list[Any]:
    """Rich tables of a nested mapping: one for its plain values, one for each group in it."""
    from rich.table import Table

    tables = []
    single = {key: item for key, item in value.items() if not _is_group(item)}
    if single:
        table = Table(title=title or None, title_justify="left", box=None, show_header=False)
        for key, item in single.items():
            table.add_row(_words(key), _cell(item))
        tables.append(table)
    for key, group in value.items():
        if not _is_group(group):
            continue
        rows = _rows(group)
        if rows is not None:
            tables.append(_grid(rows, title=_words(key)))
        else:
            tables += _tables(group, title=_words(key))
    return tables


def _is_group(value: Any) -> bool:
    return bool(isinstance(value, Mapping) and value) or _is_list_of_rows(value)


def _is_list_of_rows(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)
    )


def _rows(group: Any) -> list[dict[str, Any]] | None:
    """The rows of a table, when `group` is one: rows of plain values, named or not."""
    if _is_list_of_rows(group):
        return [dict(row) for row in group]
    if any(isinstance(item, Mapping) for item in group.values()):
        rows = [
            {"": _words(key), **(item if isinstance(item, Mapping) else {"value": item})}
            for key, item in group.items()
        ]
        flat = not any(_is_group(cell) for row in rows for cell in row.values())
        return rows if flat else None
    return None


def _grid(rows: Sequence[Mapping[str, Any]], *, title: str) -> Any:
    from rich import box
    from rich.table import Table

    columns = list(dict.fromkeys(key for row in rows for key in row))
    if len(columns) > MOST_COLUMNS and "" in columns:  # too wide to read: turn it on its side
        names = [str(row[""]) for row in rows]
        rows = [
            {"": _words(column)}
            | {name: row.get(column) for name, row in zip(names, rows, strict=True)}
            for column in columns[1:]
        ]
        columns = ["", *names]
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for position, column in enumerate(columns):
        justify: Any = "left" if position == 0 else "right"
        table.add_column(_words(column), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    return table


def _words(key: str) -> str:
    return key.replace("_", " ")


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if value in ({}, []):
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value)
    return str(value)
