"""Figures of the report as SVG, ready for a page: curves, maps of spaces, densities, confusions.

They take the page's text colour (`currentColor`) and no background, so that they suit a light
and a dark page alike, and the same numbers always give the same bytes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import gaussian_kde
from sklearn.manifold import TSNE

INK = "#010203"  # stands for the page's text colour; no other use of it
WIDTH_IN = 9.6  # of all figures: pages scale them to one width, and so their words to one size
COLOURS = ("#3f7fbf", "#d9803a", "#4c9f70", "#9d6bb3")
CLASS_COLOURS = (  # for light and dark pages; colour-blind people tell them apart, and the shapes
    "#2f7fc1", "#d55e00", "#009e73", "#c9699e", "#c98a00", "#49a6dd", "#8f8a00", "#7a5cc4",
)  # fmt: skip
CLASS_SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*")
MOST_CLASSES = 24  # that a map names; the others are grey dots
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # the page's own fonts
    "text.parse_math": False,  # names of classes may hold a $
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
}


@dataclass(frozen=True, slots=True)
class Curve:
    """Numbers over training steps: one title, one or more named lines."""

    title: str
    steps: Sequence[float]
    lines: Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Points:
    """Two groups of vectors of one space, row i of both from the same clip: float [n, E] each."""

    title: str
    groups: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class ClassPoints:
    """Vectors of examples, float [n, D], and the class of each, int [n]."""

    title: str
    features: NDArray[np.float32]
    classes: NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Similarities:
    """Cosines of right pairs, and of wrong ones, in one space."""

    title: str
    positive: NDArray[np.float32]
    negative: NDArray[np.float32]


def curves(panels: Sequence[Curve]) -> Markup:
    """Lines over training steps, one panel beside the other."""
    with _style("curves"):
        figure, axes = _panels(len(panels), height=2.6)
        for axis, panel in zip(axes, panels, strict=True):
            for (name, values), colour in zip(panel.lines.items(), COLOURS, strict=False):
                axis.plot(panel.steps, values, label=name, color=colour, linewidth=1.3)
            axis.set(title=panel.title, xlabel="step")
            if len(panel.lines) > 1:
                axis.legend()
        return _svg(figure)


def maps(panels: Sequence[Points], *, seed: int) -> Markup:
    """t-SNE of each space on its own, unit rows, coloured by modality (as in Figure 4)."""
    with _style("maps"):
        figure, axes = _panels(len(panels), height=2.7)
        for axis, panel in zip(axes, panels, strict=True):
            vectors = np.concatenate(list(panel.groups.values()))
            spots = _spots(vectors, seed)
            ends = np.cumsum([len(group) for group in panel.groups.values()])
            parts = np.split(spots, ends[:-1])
            for name, part, colour in zip(panel.groups, parts, COLOURS, strict=False):
                axis.scatter(
                    part[:, 0], part[:, 1], s=5, color=colour, label=name, alpha=0.75, linewidths=0
                )
            axis.set(title=panel.title, xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=2, markerscale=2)
        return _svg(figure)


def class_maps(panels: Sequence[ClassPoints], names: Sequence[str], *, seed: int) -> Markup:
    """t-SNE of the features of classifiers, each on its own, by class (as in Figure 3).

    Args:
        panels: one for each classifier, of the same classes.
        names: of the classes.
        seed: of t-SNE.
    """
    count = np.bincount(np.concatenate([one.classes for one in panels]), minlength=len(names))
    frequent = np.argsort(-count, kind="stable")[:MOST_CLASSES]
    named = [number for number in sorted(frequent.tolist()) if count[number]]
    rest = sum(number > 0 for number in count.tolist()) - len(named)
    with _style("class maps"):
        figure, axes = _panels(len(panels), height=4.2 + 0.2 * -(-len(named) // 4))
        for axis, panel in zip(axes, panels, strict=True):
            spots = _spots(panel.features, seed)
            others = spots[~np.isin(panel.classes, named)]
            if rest:
                label = f"{rest} other classes"
                axis.scatter(
                    others[:, 0], others[:, 1], s=6, color="#8a8a8a", label=label, linewidths=0
                )
            for at, number in enumerate(named):
                shape = CLASS_SHAPES[(at + at // len(CLASS_COLOURS)) % len(CLASS_SHAPES)]
                part = spots[panel.classes == number]
                axis.scatter(
                    part[:, 0], part[:, 1], s=16, label=_short(names[number]),
                    marker=shape, color=CLASS_COLOURS[at % len(CLASS_COLOURS)], alpha=0.9,
                    linewidths=0,
                )  # fmt: skip
            axis.set(title=panel.title, xticks=[], yticks=[], aspect="equal", adjustable="datalim")
            axis.spines[:].set_visible(False)
        handles, _ = axes[0].get_legend_handles_labels()
        figure.legend(handles=handles, loc="outside lower left", ncols=4, markerscale=1.4)
        return _svg(figure)


def _short(name: str) -> str:
    """A name that fits a legend, which leaves out what begins with an underscore."""
    name = name if len(name) <= 28 else f"{name[:27]}…"
    return f"\u200b{name}" if name.startswith("_") else name


def _spots(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Where t-SNE puts the unit vectors of rows, [n, 2]."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed, max_iter=500)
    spots: NDArray[np.float32] = tsne.fit_transform(unit)
    return spots


def densities(panels: Sequence[Similarities]) -> Markup:
    """Kernel density of the cosines of right and of wrong pairs (as in Figure 5)."""
    with _style("densities"):
        figure, axes = _panels(len(panels), height=2.3)
        for axis, panel in zip(axes, panels, strict=True):
            both = np.concatenate([panel.positive, panel.negative])
            margin = 0.1 * float(np.ptp(both)) + 1e-3
            grid = np.linspace(float(both.min()) - margin, float(both.max()) + margin, 200)
            for name, values, colour in (
                ("same clip", panel.positive, COLOURS[2]),
                ("other clips", panel.negative, COLOURS[1]),
            ):
                height = _density(values, grid)
                axis.plot(grid, height, color=colour, linewidth=1.3, label=name)
                axis.fill_between(grid, height, color=colour, alpha=0.2, linewidth=0)
            axis.set(title=panel.title, xlabel="cosine similarity", yticks=[], ylim=(0, None))
            axis.spines["left"].set_visible(False)
        names = axes[0].get_legend_handles_labels()
        figure.legend(*names, loc="outside lower center", ncols=2)
        return _svg(figure)


def confusion(counts: NDArray[np.integer], names: Sequence[str]) -> Markup:
    """Which class (rows) is taken for which (columns): shares of each row, the darker the more.

    Args:
        counts: [classes, classes], examples of each true and each found class.
        names: of the classes.
    """
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [_short(name) for name in names]
    height = min(7.5, 0.8 + 0.3 * len(names)) + 0.1 * max(map(len, names))
    with _style("confusion"):
        figure = Figure(figsize=(WIDTH_IN, height), layout="constrained")
        axis, places = figure.subplots(), np.arange(len(names))
        for row, column in np.argwhere(shares > 0).tolist():
            box = [column - 0.5, column + 0.5], row - 0.5, row + 0.5
            share = float(shares[row, column])
            axis.fill_between(*box, color=COLOURS[0], alpha=share, linewidth=0)
            if len(names) <= 12:
                axis.text(column, row, str(counts[row, column]), ha="center", va="center")
        axis.set(
            xticks=places, yticks=places, xlabel="taken for", ylabel="true",
            xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), aspect="equal",
            anchor="W",
        )  # fmt: skip
        axis.set_xticklabels(names, rotation=90)
        axis.set_yticklabels(names)
        return _svg(figure)


def _style(name: str) -> AbstractContextManager[None]:
    settings: Any = STYLE | {"svg.hashsalt": name}
    return mpl.rc_context(settings)


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH_IN, height), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _density(values: NDArray[np.float32], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Height of the distribution over `grid`; equal values are a narrow bump, not an error."""
    if len(values) < 2 or float(np.ptp(values)) < 1e-6:
        width = max((grid[-1] - grid[0]) / 100, 1e-6)
        return np.asarray(np.exp(-0.5 * ((grid - float(values.mean())) / width) ** 2))
    return np.asarray(gaussian_kde(values)(grid))


def _svg(figure: Figure) -> Markup:
    file = io.StringIO()
    with warnings.catch_warnings():  # the page's fonts have what the measuring font has not
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    return Markup(text[text.index("<svg") :].replace(INK, "currentColor"))
