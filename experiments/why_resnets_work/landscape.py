"""The loss landscape around trained nets (Li et al. 2018, figure 1).

Losses rise by orders of magnitude around a deep net. The figures therefore show their
logarithm, on one scale for all nets of a figure.
"""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cnn_jax.analysis import landscape
from cnn_jax.analysis.trained import Net
from cnn_jax.names import ConfigError
from cnn_jax.plots import curves
from cnn_jax.plots.style import name_lines, style_of
from experiments.why_resnets_work import analysis, claims, page, papers, tables

# Lower losses are drawn at this value (nats).
LEAST = 1e-3
HUGE = float(np.finfo(np.float32).max)
COLORS = "cividis"


def measure(
    net: Net,
    directory: pathlib.Path,
    depths: Sequence[int],
    points: int,
    extent: float,
    images: int,
    seed: int,
) -> Iterator[analysis.Row]:
    """Measure training loss and error on a square grid around a net.

    Args:
      net: a trained net.
      directory: receives a file with the landscape and its directions.
      depths: depths to measure (nets of other depths are not passed).
      points: points per axis, odd, so that the net itself is one of them.
      extent: the axes go from ``-extent`` to ``extent`` (1 in the paper).
      images: training images that the loss is averaged over, 0 for all.
      seed: random seed of the directions, the same for all nets.

    Yields:
      A row for each point: 'first' and 'second' (its coordinates), 'loss' and 'error'.
    """
    axis = np.linspace(-extent, extent, points)
    found = landscape.explore(
        landscape.EvaluationLoss(net.model, net.program.loss, net.program.errors),
        net.variables["params"],
        (axis, axis),
        seed,
        (net.variables["batch_stats"], landscape.stack(net.batches("train", images))),
    )
    name = f"landscape-{net.family}-{net.depth}-seed{net.seed}.npz"
    landscape.save(found, directory / name)
    for down, across in np.ndindex(points, points):
        yield {
            "first": float(axis[down]),
            "second": float(axis[across]),
            "loss": float(found.values["loss"][down, across]),
            "error": float(found.values["error"][down, across]),
        }


def check(settings: analysis.Settings) -> None:
    """Refuse grids without a centre point or without an area."""
    if settings["points"] < 3 or settings["points"] % 2 == 0:
        raise ConfigError(
            "landscape.points must be odd and at least 3, so that the net is in the "
            f"middle of the grid; got {settings['points']}"
        )
    if not 0 < settings["extent"] < float("inf"):
        raise ConfigError(
            "landscape.extent must be positive and finite (1 in the paper), got "
            f"{settings['extent']:g}"
        )


def array(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """A column of one net's rows as a grid: first direction down, second across.

    Raises:
      ValueError: a point of the grid is missing or duplicated.
    """
    found = rows.pivot(index="first", columns="second", values=value)
    if found.size != len(rows):
        raise ValueError(f"{found.size - len(rows)} points of the grid are missing")
    return found.astype(float)


def draw(rows: pd.DataFrame, styles: analysis.Styles) -> analysis.Figures:
    """Plot surfaces and contours around the first seeds, and sections of all seeds."""
    nets = dict(iter(rows.groupby(["depth", "family"])))
    firsts = {
        key: logarithms(own[own["seed"] == own["seed"].min()])
        for key, own in nets.items()
    }
    lowest = min(values.min().min() for values in firsts.values())
    highest = max(values.max().max() for values in firsts.values())
    # A landscape may be flat, but a scale and its axis need some height.
    scale = matplotlib.colors.Normalize(lowest, max(highest, lowest + 1))
    seeds = sorted({own["seed"].min() for own in nets.values()})
    around = f"around the nets of seed {', '.join(map(str, seeds))}"
    with plt.rc_context({"axes.grid": False}):
        surface = draw_surfaces(firsts, scale)
        contours = draw_contours(firsts, scale)
    surface.suptitle(f"training loss (nats) {around}")
    contours.suptitle(f"training loss {around}")
    sections = draw_sections(nets)
    count = curves.seeds_of(rows).rpartition(" of ")[2]
    sections.suptitle(f"section of the landscape, {count}")
    return {
        "landscape_surface": surface,
        "landscape_contours": contours,
        "landscape_sections": sections,
    }


def logarithms(rows: pd.DataFrame) -> pd.DataFrame:
    """Base-10 logarithms of a net's losses; infinite ones become the highest."""
    values = array(rows, "loss").replace([np.inf, -np.inf], np.nan)
    top = values.max().max()
    return np.log10(values.fillna(LEAST if np.isnan(top) else top).clip(lower=LEAST))


def draw_surfaces(nets: Mapping[Any, pd.DataFrame], scale: Any) -> Any:
    """Plot the loss of each net as a surface over both directions."""
    depths, families = places_of(nets)
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


def draw_contours(nets: Mapping[Any, pd.DataFrame], scale: Any) -> Any:
    """Plot contours of the same surfaces, a factor of ten apart in loss."""
    levels = np.arange(np.floor(scale.vmin), np.ceil(scale.vmax) + 0.1, 0.2)
    depths, families = places_of(nets)
    size = (3.8 * len(families) + 0.9, 3.6 * len(depths) + 0.2)
    shared = {"sharex": True, "sharey": True, "squeeze": False}
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


def draw_sections(nets: Mapping[Any, pd.DataFrame]) -> Any:
    """Plot loss and error of every seed along the first direction."""
    depths, families = places_of(nets)
    size = (8.2, 3.3 * len(depths))
    shared = {"sharex": True, "squeeze": False}
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


def places_of(nets: Mapping[Any, Any]) -> tuple[list[int], list[str]]:
    """Depths (rows) and families (columns) of the panels."""
    return sorted({depth for depth, _ in nets}), sorted({name for _, name in nets})


def power_of_ten(power: float) -> str:
    """A label such as 10³, in matplotlib's mathtext."""
    return f"$10^{{{round(power)}}}$"


def finite(rows: pd.DataFrame, value: str = "loss") -> np.ndarray:
    """A column of one net's rows as a grid, with non-finite values made huge."""
    return np.nan_to_num(array(rows, value).to_numpy(), nan=HUGE, posinf=HUGE)


def centre(rows: pd.DataFrame) -> float:
    """The loss of the net itself, at the centre of its grid (nats)."""
    found = finite(rows)
    return float(found[found.shape[0] // 2, found.shape[1] // 2])


def rise(rows: pd.DataFrame) -> float:
    """Base-10 logarithm of the median loss (nats) at the grid's edge."""
    found = finite(rows)
    edge = np.concatenate([found[0], found[-1], found[1:-1, 0], found[1:-1, -1]])
    return float(np.log10(max(np.median(edge), 1e-12)))


def area(rows: pd.DataFrame) -> float:
    """Fraction of the grid with a training error of at most one half."""
    return float((finite(rows, "error") <= 0.5).mean())


def minima(rows: pd.DataFrame) -> float:
    """Number of local minima among the inner points."""
    return float(landscape.local_minima(finite(rows)))


def percent(values: Any) -> str:
    """Fractions of the grid, formatted with a percent sign."""
    return f"{tables.percent(values)} %"


def section(rows: pd.DataFrame, settings: analysis.Settings) -> page.Section:
    """The loss around trained nets."""
    points, images = settings["points"], settings["images"]
    names = {"surface": "as surfaces", "contours": "as contours"}
    rises, areas = tables.per_net(rows, rise), tables.per_net(rows, area)
    counts = tables.per_net(rows, minima)
    return page.Section(
        title="Loss landscape",
        question="What does the loss look like around the trained nets?",
        method=f"Training loss on a grid of {points} x {points} points along two "
        f"random directions, up to {settings['extent']:g} filter norms from the net, "
        "averaged over "
        + (f"the first {images} training images" if images else "the training set")
        + ". Each filter of a direction has the norm of the net's own filter. Biases "
        "and batch-norm parameters stay fixed, and batch norm uses the trained net's "
        "running statistics. All nets share the same directions. The directions and "
        "the losses are saved next to the tables.",
        sources=[papers.LI],
        figures=[
            *(
                page.Figure(
                    f"landscape_{name}",
                    f"The loss around plain and residual nets, {how}, on a shared "
                    "logarithmic scale. The table quantifies its shape.",
                    f"Training loss around the nets of the first seed, {how}, on a "
                    "shared logarithmic scale.",
                )
                for name, how in names.items()
            ),
            page.Figure(
                "landscape_sections",
                "Loss and error of plain and residual nets along the first direction. "
                "One line per seed.",
                "Sections along the first direction, for every seed.",
            ),
        ],
        tables=[
            tables.group_table(
                rows,
                "Shape of the landscape: loss of the net (nats), median log10 of the "
                "loss at the edge of the grid, share of the grid with a training error "
                "of at most 50 %, local minima among the inner points",
                {
                    "loss": (tables.per_net(rows, centre), tables.spread),
                    "rise": (rises, tables.spread),
                    "area": (areas, percent),
                    "minima": (counts, tables.spread),
                },
            )
        ],
        findings=[
            claims.residual_below_plain(
                "At the edge of the grid, the loss around residual nets is lower than "
                "around plain nets (log10).",
                rises,
            ),
            claims.residual_above_plain(
                "The region with a training error of at most 50 % is larger around "
                "residual nets.",
                areas,
                percent,
            ),
            claims.residual_below_plain(
                "Landscapes of residual nets have no more local minima than those of "
                "plain nets.",
                counts,
                equal=True,
            ),
        ],
        remark="Li et al. use 51 x 51 points, the whole training set, and nets that "
        "were trained for 300 epochs. A plain net that has barely trained has a flat "
        "landscape near the chance level of 2.3 nats for ten classes.",
    )


def main_numbers(rows: pd.DataFrame) -> Iterator[tuple[str, float]]:
    """Shape of the landscape around one net."""
    yield "loss of the net (nats)", centre(rows)
    yield "power of ten of the loss at the grid's edge, median", rise(rows)
    yield "share of the grid with an error of at most half", area(rows)
    yield "local minima of the grid", minima(rows)


ANALYSIS = analysis.Analysis(
    *(measure, section, draw, main_numbers),
    wants=lambda group, settings: group.depth in settings["depths"],
    check=check,
    long=True,
)
