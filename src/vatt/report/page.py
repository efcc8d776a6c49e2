"""Pieces of a self-contained HTML page: tables, facts, film strips."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

JPEG_QUALITY = 82
Mark = Literal["right", "fits", "other"]


@dataclass(frozen=True, slots=True)
class Group:
    """Lines of a table that belong together; the first one is what the others are held against."""

    lines: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Strip:
    """A clip as a film strip, with a few words under it.

    frames: uint8 [n, H, W, 3]. mark: right is the clip sought, fits another that the text is true
    of, other neither.
    """

    frames: NDArray[np.uint8]
    head: str
    words: str
    mark: Mark


def page(title: str, parts: Iterable[str]) -> str:
    """The whole page; `parts` are HTML already."""
    template = files("vatt.report").joinpath("report.html").read_text(encoding="utf-8")
    return Template(template).substitute(title=escape(title), body="\n".join(parts))


def table(columns: Sequence[str], groups: Sequence[Group]) -> str:
    """A table of numbers; the first column names the lines."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    bodies = []
    for group in groups:
        lines = [
            f"<tr><th>{escape(name)}</th>" + "".join(f"<td>{escape(c)}</td>" for c in cells)
            for name, cells in group.lines
        ]
        bodies.append('<tbody class="group">' + "</tr>".join(lines) + "</tr></tbody>")
    return f"<table><thead><tr>{head}</tr></thead>{''.join(bodies)}</table>"


def facts(pairs: Mapping[str, str]) -> str:
    """Names and values side by side."""
    items = (f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in pairs.items())
    return f"<dl>{''.join(items)}</dl>"


def paragraphs(texts: Iterable[str], *, kind: str = "") -> str:
    """Plain texts as paragraphs; `kind` is a class of the style sheet."""
    mark = f' class="{kind}"' if kind else ""
    return "".join(f"<p{mark}>{escape(text)}</p>" for text in texts)


def bullets(texts: Iterable[str]) -> str:
    """Plain texts as a list."""
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def figure(svg: str, caption: str) -> str:
    """A drawing with a plain caption under it."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def query(text: str, remark: str, strips: Iterable[Strip]) -> str:
    """A text, and clips for it."""
    clips = "".join(_strip(strip) for strip in strips)
    return (
        f'<div class="query"><q>{escape(text)}</q> <span class="soft">{escape(remark)}</span>'
        f'<div class="clips">{clips}</div></div>'
    )


def _strip(strip: Strip) -> str:
    picture = Image.fromarray(np.concatenate(list(strip.frames), axis=1))
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=JPEG_QUALITY)
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f'<figure class="clip {strip.mark}"><img alt="{escape(strip.words, quote=True)}" '
        f'width="{picture.width}" height="{picture.height}" '
        f'src="data:image/jpeg;base64,{data}">'
        f'<span class="mark"><b>{escape(strip.head)}</b> {escape(strip.words)}</span></figure>'
    )
