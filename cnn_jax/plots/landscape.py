"""Figures of loss landscapes (Li et al. 2018, figure 1).

Losses rise by orders of magnitude around a deep net. The figures therefore show their
logarithm, on one scale for all nets of a figure. The rows of a net are the points of
a square grid: 'first' and 'second' (the coordinates), 'loss' and 'error'.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from cnn_jax.plots.style import name_lines, style_of

if TYPE_CHECKING:
    import pandas

# Lower losses are drawn at this value (nats).
LEAST = 1e-3
COLORS = "cividis"


def grid_of(rows: "pandas.DataFrame", value: str) -> "pandas.DataFrame":
    """A column of one net's rows as a grid: first direction down, second across.

    Raises:
      ValueError: a point of the grid is missing or duplicated.
    """
    found = rows.pivot(index="first", columns="second", values=value)
    if found.size != len(rows):
        raise ValueError(f"{found.size - len(rows)} points of the grid are missing")
    return found.astype(float)


def surface_and_contours(
    nets: "Mapping[Any, pandas.DataFrame]",
) -> tuple[matplotlib.figure.Figure, matplotlib.figure.Figure]:
    """Plot the loss around each net as a surface, and the same as contours.

    Args:
      nets: rows of each net, by depth and family.
    """
    powers = {key: logarithms(own) for key, own in nets.items()}
    lowest = min(values.min().min() for values in powers.values())
    highest = max(values.max().max() for values in powers.values())
    # A landscape may be flat, but a scale and its axis need some height.
    scale = matplotlib.colors.Normalize(lowest, max(highest, lowest + 1))
    with plt.rc_context({"axes.grid": False}):
        return surfaces(powers, scale), contours(powers, scale)


def logarithms(rows: "pandas.DataFrame") -> "pandas.DataFrame":
    """Base-10 logarithms of a net's losses; infinite ones become the highest."""
    values = grid_of(rows, "loss").replace([np.inf, -np.inf], np.nan)
    top = values.max().max()
    return np.log10(values.fillna(LEAST if np.isnan(top) else top).clip(lower=LEAST))


def surfaces(nets: "Mapping[Any, pandas.DataFrame]", scale: Any) -> Any:
    """Plot the loss of each net as a surface over both directions."""
    depths, families = depths_and_families(nets)
    size = (4.3 * len(families), 3.7 * len(depths) + 0.2)
    figure = plt.figure(figsize=size)
    for (depth, family), values in nets.items():
        place = depths.index(depth) * len(families) + families.index(family) + 1
        panel = figure.add_subplot(len(depths), len(families), place, projection="3d")
        panel.plot_surface(
            *np.meshgrid(values.columns, values.index),
            values.to_numpy(),
            **{"cmap": COLORS, "norm": scale},
            **{"rcount": len(values), "ccount": len(values)},
            **{"linewidth": 0.15, "edgecolor": "#00000055"},
        )
        panel.set_zlim(scale.vmin, scale.vmax)
        panel.zaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, integer=True))
        panel.zaxis.set_major_formatter(lambda power, _: power_of_ten(power))
        panel.set_xlabel("second direction")
        panel.set_ylabel("first direction")
        panel.set_title(f"{family}, {depth} layers")
        panel.view_init(elev=28, azim=-58)
    return figure


def contours(nets: "Mapping[Any, pandas.DataFrame]", scale: Any) -> Any:
    """Plot contours of the same surfaces, a factor of ten apart in loss."""
    levels = np.arange(np.floor(scale.vmin), np.ceil(scale.vmax) + 0.1, 0.2)
    depths, families = depths_and_families(nets)
    size = (3.8 * len(families) + 0.9, 3.6 * len(depths) + 0.2)
    shared: Any = {"sharex": True, "sharey": True, "squeeze": False}
    figure, panels = plt.subplots(len(depths), len(families), figsize=size, **shared)
    for (depth, family), values in nets.items():
        panel = panels[depths.index(depth), families.index(family)]
        grid = values.columns, values.index, values
        filled = panel.contourf(*grid, levels, cmap=COLORS, norm=scale)
        low, high = values.min().min(), values.max().max()
        crossed = [level for level in levels[::5] if low < level < high]
        if crossed:
            look = {"colors": "white", "linewidths": 0.8, "linestyles": "solid"}
            lines = panel.contour(*grid, crossed, **look)
            panel.clabel(lines, fmt=power_of_ten, fontsize=8)
        panel.plot(0, 0, marker="+", color="white", markersize=9, markeredgewidth=1.6)
        panel.set_aspect("equal")
        panel.set_title(f"{family}, {depth} layers")
    figure.supxlabel("second direction")
    figure.supylabel("first direction")
    bar = figure.colorbar(filled, ax=panels, shrink=0.85)
    bar.set_ticks(levels[::5], labels=[power_of_ten(level) for level in levels[::5]])
    bar.set_label("training loss (nats)")
    return figure


def sections(nets: "Mapping[Any, pandas.DataFrame]") -> Any:
    """Plot loss and error along the first direction, a line for each seed.

    Args:
      nets: rows of the seeds of each net, by depth and family.
    """
    depths, families = depths_and_families(nets)
    size = (8.2, 3.3 * len(depths))
    shared: Any = {"sharex": True, "squeeze": False}
    drawn: dict[str, Any] = {}
    figure, panels = plt.subplots(len(depths), 2, figsize=size, **shared)
    for (depth, family), own in nets.items():
        line = panels[depths.index(depth)]
        middle = own[own["second"].abs() == own["second"].abs().min()]
        look = {**style_of(family, families), "marker": "", "linewidth": 1.5}
        for _, along in middle.groupby("seed"):
            [drawn[family]] = line[0].plot(
                along["first"], along["loss"].clip(lower=LEAST), **look
            )
            line[1].plot(along["first"], 100 * along["error"], **look)
        for panel in line:
            panel.set_title(f"{depth} layers")
            panel.set_xlabel("distance along the first direction")
        line[0].set_yscale("log")
        line[0].set_ylabel("training loss (nats)")
        line[1].set_ylabel("training error (%)")
        line[1].set_ylim(0, 100)
    name_lines(figure, [drawn[name] for name in families], families)
    return figure


def depths_and_families(nets: Mapping[Any, Any]) -> tuple[list[int], list[str]]:
    """Depths (rows) and families (columns) of the panels."""
    return sorted({depth for depth, _ in nets}), sorted({name for _, name in nets})


def power_of_ten(power: float) -> str:
    """A label such as 10³, in matplotlib's mathtext."""
    return f"$10^{{{round(power)}}}$"
