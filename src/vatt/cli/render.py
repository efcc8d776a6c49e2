"""What a user sees: help, results as tables or JSON on stdout, errors on stderr."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

ERROR = "vatt: error: "
MOST_COLUMNS = 8  # of a table, on a terminal of 80 characters
PIPED_WIDTH = 240  # of output to a file or another program


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
    from pydantic_core import to_json

    shown = value if as_json or not hasattr(value, "shown") else value.shown()
    plain = json.loads(to_json(shown, inf_nan_mode="null"))  # JSON has no NaN
    if as_json:
        print(json.dumps(plain, allow_nan=False, ensure_ascii=False))
        return
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPED_WIDTH  # names stay whole for grep
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=width)
    for table in _tables(plain, title=""):
        console.print(table)


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
        rows = None
        if isinstance(group, list):
            rows = group
        elif any(isinstance(item, Mapping) for item in group.values()):
            named = [
                {"": _words(name), **(item if isinstance(item, Mapping) else {"value": item})}
                for name, item in group.items()
            ]
            if not any(_is_group(cell) for row in named for cell in row.values()):
                rows = named
        if rows is None:
            tables += _tables(group, title=_words(key))
        else:
            tables.append(_grid(rows, title=_words(key)))
    return tables


def _is_group(value: Any) -> bool:
    """Whether it is a table of its own: a mapping, or a list of rows; not an empty one."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(row, Mapping) for row in value)
    return isinstance(value, Mapping) and bool(value)


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
        texts = all(isinstance(row.get(column), str) for row in rows)
        justify: Any = "left" if position == 0 or texts else "right"
        table.add_column(_words(column), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    return table


def _words(key: str) -> str:
    """A name of ours as words; what users named, such as a file, stays as it is."""
    return key.replace("_", " ") if key.isidentifier() else key


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if value in ({}, []):
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        items = [_cell(item) for item in value]
        return ("\n" if any(", " in item for item in items) else ", ").join(items)
    return str(value)
