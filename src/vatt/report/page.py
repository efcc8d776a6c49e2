"""A self-contained HTML page of a template and values; what the templates' macros show."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

JPEG_QUALITY = 82
Mark = Literal["right", "fits", "other"]
Row = tuple[str, Sequence[str]]  # name and cells of a line


@dataclass(frozen=True, slots=True)
class Table:
    """A table of numbers; of each group the first row is what the others are compared with."""

    columns: Sequence[str]
    groups: Sequence[Sequence[Row]]


@dataclass(frozen=True, slots=True)
class Strip:
    """Some frames of a clip side by side, with a few words under them.

    frames: uint8 [n, H, W, 3]. mark: right is the clip sought, fits another that the text is true
    of, other neither.
    """

    frames: NDArray[np.uint8]
    head: str
    words: str
    mark: Mark = "other"


@dataclass(frozen=True, slots=True)
class Example:
    """A title (a caption, a key), a remark, and clips for it."""

    title: str
    remark: str
    strips: Sequence[Strip]


class Jpeg(NamedTuple):
    """An image inside the page."""

    width: int
    height: int
    src: str


def render(template: str, **values: Any) -> str:
    """The page of a file in templates/; values are escaped, unless they are `Markup`."""
    environment = Environment(
        loader=PackageLoader("vatt.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["jpeg"] = jpeg
    return environment.get_template(template).render(values)


def jpeg(frames: NDArray[np.uint8]) -> Jpeg:
    """Frames uint8 [n, H, W, 3] side by side."""
    image = Image.fromarray(np.concatenate(list(frames), axis=1))
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=JPEG_QUALITY)
    data = base64.b64encode(file.getvalue()).decode()
    return Jpeg(image.width, image.height, f"data:image/jpeg;base64,{data}")
