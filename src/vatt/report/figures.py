"""Figures of the report as SVG, ready for a page: curves, maps of a space, densities, confusions.

They take the page's text colour (`currentColor`) and no background, so that they suit a light
and a dark page alike, and the same numbers always give the same bytes.
"""

from __future__ import annotations

import io
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
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # the page's own fonts
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
            unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            perplexity = min(30.0, (len(vectors) - 1) / 3)
            tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed, max_iter=500)
            spots = tsne.fit_transform(unit)
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
    side = min(9.0, 1.5 + 0.3 * len(names))
    with _style("confusion"):
        figure = Figure(figsize=(WIDTH_IN, side), layout="constrained")
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
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    return Markup(text[text.index("<svg") :].replace(INK, "currentColor"))
