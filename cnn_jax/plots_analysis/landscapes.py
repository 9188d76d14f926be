"""Figures of loss landscapes, from the rows of their grids; nothing trains.

Losses rise by orders of magnitude around a deep net, so they are drawn by their
logarithm, on one scale for all nets of a figure.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from cnn_jax.plots.style import FIGURE_STYLE, save, style_of
from cnn_jax.plots_analysis.drawing import Row, grouped, seeds_of

# Losses below this are drawn as this (nats).
LEAST = 1e-3
COLORS = "cividis"


def grid(rows: Sequence[Row], value: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A column of the rows of one net as an array.

    Args:
      rows: 'first' and 'second' are a point's coordinates.
      value: the column.

    Returns:
      Coordinates along the first and the second direction, and the values, the
      first direction down.
    """
    first = sorted({row["first"] for row in rows})
    second = sorted({row["second"] for row in rows})
    places = {(row["first"], row["second"]): row[value] for row in rows}
    found = [[places[down, across] for across in second] for down in first]
    return np.array(first), np.array(second), np.array(found, float)


def landscape(rows: Sequence[Row], directory: pathlib.Path, title: str) -> None:
    """Surfaces, contours and sections of the loss around trained nets.

    Surfaces and contours are of the first seed of each net, sections of all.

    Args:
      rows: 'family', 'depth', 'seed', 'first', 'second', 'loss' and 'error' (a
        fraction), a row a point of a square grid.
      directory: receives ``landscape_surface``, ``landscape_contours`` and
        ``landscape_sections`` (``.png`` and ``.svg``).
      title: what was trained on.
    """
    nets = grouped(rows, "depth", "family")
    with plt.rc_context({**FIGURE_STYLE, "axes.grid": False}):
        surfaces(nets, directory, title)
        contours(nets, directory, title)
    with plt.rc_context(FIGURE_STYLE):
        sections(nets, directory, title)


def surfaces(nets: Any, directory: pathlib.Path, title: str) -> None:
    """The loss of the first seed of each net as a surface over both directions."""
    drawn = {key: _logarithms(_first_seed(rows)) for key, rows in nets.items()}
    scale = _scale(values for _, _, values in drawn.values())
    depths, families = _rows_and_columns(nets)
    figure = plt.figure(figsize=(4.3 * len(families), 3.7 * len(depths) + 0.2))
    for (depth, family), (first, second, values) in drawn.items():
        place = depths.index(depth) * len(families) + families.index(family) + 1
        panel = figure.add_subplot(len(depths), len(families), place, projection="3d")
        across, down = np.meshgrid(second, first)
        panel.plot_surface(
            across,
            down,
            values,
            cmap=COLORS,
            norm=scale,
            rcount=len(first),
            ccount=len(second),
            linewidth=0.15,
            edgecolor="#00000055",
        )
        panel.set_zlim(scale.vmin, scale.vmax)
        panel.zaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, integer=True))
        panel.zaxis.set_major_formatter(lambda power, _: power_of_ten(power))
        panel.set_xlabel("second direction")
        panel.set_ylabel("first direction")
        panel.set_title(f"{family}, {depth} layers", fontsize=10)
        panel.view_init(elev=28, azim=-58)
    figure.suptitle(
        f"{title}: training loss (nats) around {_one_seed(nets)}", fontsize=11
    )
    save(figure, directory, "landscape_surface")


def contours(nets: Any, directory: pathlib.Path, title: str) -> None:
    """The same from above, with lines of equal loss a factor of ten apart."""
    drawn = {key: _logarithms(_first_seed(rows)) for key, rows in nets.items()}
    scale = _scale(values for _, _, values in drawn.values())
    levels = np.arange(np.floor(scale.vmin), np.ceil(scale.vmax) + 0.1, 0.2)
    depths, families = _rows_and_columns(nets)
    figure, panels = plt.subplots(
        len(depths),
        len(families),
        figsize=(3.8 * len(families) + 0.9, 3.6 * len(depths) + 0.2),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for (depth, family), (first, second, values) in drawn.items():
        panel = panels[depths.index(depth), families.index(family)]
        filled = panel.contourf(second, first, values, levels, cmap=COLORS, norm=scale)
        lines = panel.contour(
            second,
            first,
            values,
            levels[::5],
            colors="white",
            linewidths=0.8,
            linestyles="solid",
        )
        panel.clabel(lines, fmt=power_of_ten, fontsize=8)
        panel.plot(0, 0, marker="+", color="white", markersize=9, markeredgewidth=1.6)
        panel.set_aspect("equal")
        panel.set_title(f"{family}, {depth} layers", fontsize=10)
    for panel in panels[-1]:
        panel.set_xlabel("second direction")
    for panel in panels[:, 0]:
        panel.set_ylabel("first direction")
    bar = figure.colorbar(filled, ax=panels, shrink=0.85)
    bar.set_ticks(levels[::5], labels=[power_of_ten(level) for level in levels[::5]])
    bar.set_label("training loss (nats)")
    figure.suptitle(f"{title}: training loss around {_one_seed(nets)}", fontsize=11)
    save(figure, directory, "landscape_contours")


def power_of_ten(power: float) -> str:
    """A label such as 10³, in matplotlib's mathematics."""
    return f"$10^{{{round(power)}}}$"


def sections(nets: Any, directory: pathlib.Path, title: str) -> None:
    """Loss and error of every seed along the first direction."""
    every = [row for rows in nets.values() for row in rows]
    depths, families = _rows_and_columns(nets)
    figure, panels = plt.subplots(
        len(depths), 2, figsize=(8.2, 3.3 * len(depths)), sharex=True, squeeze=False
    )
    for line, depth in zip(panels, depths, strict=True):
        for panel, value, factor in zip(line, ("loss", "error"), (1, 100), strict=True):
            for family in families:
                look = {**style_of(family, families), "marker": ""}
                along = [
                    row
                    for row in nets.get((depth, family), ())
                    if row["second"] == min((r["second"] for r in every), key=abs)
                ]
                for number, members in enumerate(grouped(along, "seed").values()):
                    panel.plot(
                        [row["first"] for row in members],
                        [factor * max(row[value], 0) for row in members],
                        linewidth=1.5,
                        label=None if number else f"{family}, {depth} layers",
                        **look,
                    )
            panel.set_xlabel("step along the first direction")
        line[0].set_yscale("log")
        line[0].set_ylabel("training loss (nats)")
        line[1].set_ylabel("training error (%)")
        line[1].set_ylim(0, 100)
        line[0].legend(loc="upper center")
    count = seeds_of(every).rpartition("of ")[2]
    figure.suptitle(f"{title}: a section of the landscape, {count}", fontsize=11)
    save(figure, directory, "landscape_sections")


def _rows_and_columns(nets: Any) -> tuple[list[int], list[str]]:
    """Depths and families of the panels."""
    return sorted({depth for depth, _ in nets}), sorted({name for _, name in nets})


def _one_seed(nets: Any) -> str:
    seeds = sorted({min(row["seed"] for row in rows) for rows in nets.values()})
    return f"the nets of seed {', '.join(map(str, seeds))}"


def _first_seed(rows: Sequence[Row]) -> list[Row]:
    seed = min(row["seed"] for row in rows)
    return [row for row in rows if row["seed"] == seed]


def _logarithms(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    first, second, values = grid(rows, "loss")
    top = np.nanmax(np.where(np.isfinite(values), values, np.nan))
    values = np.where(np.isfinite(values), values, top)
    return first, second, np.log10(np.maximum(values, LEAST))


def _scale(values: Any) -> matplotlib.colors.Normalize:
    together = np.concatenate([array.ravel() for array in values])
    return matplotlib.colors.Normalize(together.min(), together.max())
