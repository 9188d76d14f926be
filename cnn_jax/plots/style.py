"""How figures of the package look: colours, markers, lines; and how they are saved.

Families differ by marker and line style as well as by colour, and colours differ
in lightness, so figures survive print, grey and colour blindness (colours from
Okabe and Ito 2008, and matplotlib's 'cividis').
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

STYLES = {
    "plain": {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    "residual": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
}
OTHER_STYLES = (
    {"color": "#009E73", "marker": "^", "linestyle": "-."},
    {"color": "#000000", "marker": "D", "linestyle": ":"},
)
LINES = ("-", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
FIGURE_STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.hashsalt": "cnn_jax",  # the same figure gives the same file
    "figure.constrained_layout.use": True,
}


def style_of(family: str, families: Sequence[str]) -> dict[str, Any]:
    """Colour, marker and line of a family."""
    if family in STYLES:
        return STYLES[family]
    others = [name for name in families if name not in STYLES]
    return OTHER_STYLES[others.index(family) % len(OTHER_STYLES)]


def save(figure: matplotlib.figure.Figure, directory: pathlib.Path, name: str) -> None:
    """Write a figure as PNG (200 dots an inch) and SVG, and close it."""
    for suffix in ("png", "svg"):
        metadata = {"Date": None} if suffix == "svg" else None
        figure.savefig(directory / f"{name}.{suffix}", dpi=200, metadata=metadata)
    plt.close(figure)
