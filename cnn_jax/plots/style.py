"""The style of figures (colours, markers, lines) and their output files.

Families differ in marker and line style as well as in colour, and colours differ in
lightness. Figures therefore remain readable in print, in greyscale and with colour
blindness (colours from Okabe and Ito 2008, and matplotlib's 'cividis').
"""

import io
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from cnn_jax.training.files import write_atomically

STYLES = {
    "plain": {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    "residual": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
}
LINES = ("-", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
COLORS = ("#009E73", "#000000", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("^", "D", "v", "P", "X", "*", "p")
# Styles of other families: all differ, and the first seven already by marker alone.
OTHER_STYLES = tuple(
    {
        "color": COLORS[index % len(COLORS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": LINES[1:][index % len(LINES[1:])],
    }
    for index in range(len(COLORS) * len(MARKERS))
)
FIGURE_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "figure.titlesize": 11,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "svg.hashsalt": "cnn_jax",  # makes files reproducible
    "figure.constrained_layout.use": True,
}


def style_of(family: str, families: Sequence[str]) -> dict[str, Any]:
    """Colour, marker and line style of a family."""
    if family in STYLES:
        return STYLES[family]
    others = [name for name in families if name not in STYLES]
    return OTHER_STYLES[others.index(family) % len(OTHER_STYLES)]


def depth_styles(depths: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Colour and dash pattern of each depth (or step); the largest is darkest."""
    deepest_first = sorted(set(depths), reverse=True)
    colors = matplotlib.colormaps["cividis"](np.linspace(0.0, 0.8, len(deepest_first)))
    return {
        depth: {"color": color, "linestyle": LINES[index % len(LINES)]}
        for index, (depth, color) in enumerate(zip(deepest_first, colors, strict=True))
    }


def name_lines(
    figure: matplotlib.figure.Figure,
    lines: Sequence[matplotlib.lines.Line2D],
    names: Sequence[str],
    side: str = "lower center",
    title: str = "",
) -> None:
    """Add a legend outside the panels.

    Args:
      figure: a figure with constrained layout.
      lines: the lines of one panel.
      names: the names of the lines. Any text works, even with a leading underscore,
        for which matplotlib would omit the entry.
      side: side of the figure; 'right center' lists the lines in one column.
      title: title of the legend; may be empty.
    """
    across = int(12 * figure.get_figwidth()) // (max(map(len, names)) + 8)
    place: Any = f"outside {side}"  # missing from matplotlib's annotations
    legend = figure.legend(
        lines,
        [f"{number}" for number in range(len(names))],
        loc=place,
        title=title or None,
        ncols=max(1, min(len(names), across)) if side == "lower center" else 1,
        handlelength=3.5,
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)


def save(figure: matplotlib.figure.Figure, directory: pathlib.Path, name: str) -> None:
    """Write a figure as PNG (200 dots per inch), SVG and PDF, and close it.

    Each file is replaced atomically. Dollar signs in titles and labels are literal and
    do not start a formula.
    """
    for text in _words(figure):
        text.set_parse_math(False)
    for suffix, date in (("png", None), ("svg", "Date"), ("pdf", "CreationDate")):
        content = io.BytesIO()
        figure.savefig(
            content,
            format=suffix,
            dpi=200,
            metadata={date: None} if date else None,
        )
        write_atomically(directory / f"{name}.{suffix}", content.getvalue())
    plt.close(figure)


def _words(figure: matplotlib.figure.Figure) -> Iterator[matplotlib.text.Text]:
    """Titles, labels and legends, but not ticks and contours, which use formulas."""
    yield from figure.texts
    for panel in figure.axes:
        yield from (panel.title, panel.xaxis.label, panel.yaxis.label)
    for legend in figure.findobj(matplotlib.legend.Legend):
        yield from (legend.get_title(), *legend.get_texts())
