"""Figures of the analyses of `cnn_jax.analysis`, from their rows; nothing trains.

Rows are mappings with 'family', 'depth' and 'seed'. Lines join means over seeds,
bands are +- one sample standard deviation (of the logarithm on logarithmic axes).
Families and depths look as in `cnn_jax.plots`.
"""

import pathlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from cnn_jax.plots import FIGURE_STYLE, LINES, save

Row = Mapping[str, Any]


def seeds_of(rows: Iterable[Row]) -> str:
    """'mean ± std of 3 seeds', as titles say it."""
    count = len({row["seed"] for row in rows})
    return f"mean ± std of {count} seeds" if count > 1 else "one seed"


def grouped(rows: Iterable[Row], *keys: str) -> dict[Hashable, list[Row]]:
    """Rows by the values of some columns, ascending."""
    found: dict[Hashable, list[Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in keys)
        found.setdefault(key if len(keys) > 1 else key[0], []).append(row)
    return dict(sorted(found.items()))


def over_seeds(
    rows: Iterable[Row], x: str, y: str, logarithmic: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A column against another, over seeds.

    Args:
      rows: those of one line.
      x: column of the abscissa.
      y: column of the ordinate.
      logarithmic: take mean and spread of the logarithm.

    Returns:
      Abscissae, means, and the lower and upper end of the band.
    """
    found = grouped(rows, x)
    middle, low, high = [], [], []
    for members in found.values():
        values = np.array([row[y] for row in members], float)
        if logarithmic:
            values = np.log(np.maximum(values, 1e-300))
        std = values.std(ddof=1) if len(values) > 1 else 0.0
        ends = np.array([values.mean(), values.mean() - std, values.mean() + std])
        ends = np.exp(ends) if logarithmic else ends
        for place, value in zip((middle, low, high), ends, strict=True):
            place.append(value)
    return np.array(list(found), float), np.array(middle), np.array(low), np.array(high)


def looks_of_depths(rows: Iterable[Row]) -> dict[int, dict[str, Any]]:
    """Colour and dash of each depth."""
    depths = sorted({row["depth"] for row in rows})
    colors = matplotlib.colormaps["cividis"](np.linspace(0.0, 0.75, len(depths)))
    return {
        depth: {"color": color, "linestyle": LINES[index % len(LINES)]}
        for index, (depth, color) in enumerate(zip(depths, colors, strict=True))
    }


def draw_line(
    panel: Any, rows: Iterable[Row], x: str, y: str, label: str, **look: Any
) -> None:
    """Means over seeds as a line, in a band of one standard deviation.

    Args:
      panel: axes; on a logarithmic ordinate, mean and spread are of the logarithm.
      rows: those of one line.
      x: column of the abscissa.
      y: column of the ordinate.
      label: for the legend; '' for none.
      **look: of the line.
    """
    logarithmic = panel.get_yscale() == "log"
    places, middle, low, high = over_seeds(rows, x, y, logarithmic)
    panel.plot(places, middle, label=label or None, **look)
    panel.fill_between(
        places, low, high, color=look["color"], alpha=0.15, linewidth=0, zorder=1
    )


def gradients(rows: Sequence[Row], directory: pathlib.Path, title: str) -> None:
    """Gradient norm of each layer, at initialisation, after and along training.

    Args:
      rows: 'step', 'layer' and 'gradient_norm'.
      directory: receives ``gradients.png``, and ``gradients_along_training.png``
        where there are steps in between (and ``.svg``).
      title: what was trained on.
    """
    families = sorted({row["family"] for row in rows})
    last = max(row["step"] for row in rows)
    looks = looks_of_depths(rows)
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = plt.subplots(
            2,
            len(families),
            figsize=(4.2 * len(families), 5.6),
            sharex=True,
            sharey="row",
            squeeze=False,
        )
        for line, (step, when) in enumerate(
            ((0, "at initialisation"), (last, f"after {last} steps"))
        ):
            for panel, family in zip(panels[line], families, strict=True):
                panel.set_yscale("log")
                own = [r for r in rows if r["family"] == family and r["step"] == step]
                for depth, members in grouped(own, "depth").items():
                    draw_line(
                        panel,
                        members,
                        "layer",
                        "gradient_norm",
                        f"{depth}",
                        linewidth=1.6,
                        **looks[depth],
                    )
                panel.set_title(f"{family}, {when}", fontsize=10)
            panels[line][0].set_ylabel("gradient norm of the layer")
        for panel in panels[-1]:
            panel.set_xlabel("layer, from the input")
        panels[0][-1].legend(title="layers", loc="upper right", ncols=2)
        figure.suptitle(f"{title}: gradient reach, {seeds_of(rows)}", fontsize=11)
        save(figure, directory, "gradients")
    steps = sorted({row["step"] for row in rows} - {0, last})
    if steps:
        _gradients_along_training(rows, [0, *steps, last], directory, title)


def _gradients_along_training(
    rows: Sequence[Row], steps: Sequence[int], directory: pathlib.Path, title: str
) -> None:
    """One panel a family and depth, one line a step: gradient norm over layers."""
    between = [row for row in rows if row["step"] in steps[1:-1]]
    families = sorted({row["family"] for row in between})
    depths = sorted({row["depth"] for row in between})
    colors = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, len(steps)))
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = plt.subplots(
            len(depths),
            len(families),
            figsize=(4.2 * len(families) + 0.8, 2.7 * len(depths) + 0.6),
            sharex="row",
            sharey="row",
            squeeze=False,
        )
        for line, depth in enumerate(depths):
            for panel, family in zip(panels[line], families, strict=True):
                panel.set_yscale("log")
                for index, (step, color) in enumerate(zip(steps, colors, strict=True)):
                    own = [
                        row
                        for row in rows
                        if (row["family"], row["depth"], row["step"])
                        == (family, depth, step)
                    ]
                    if own:
                        draw_line(
                            panel,
                            own,
                            "layer",
                            "gradient_norm",
                            f"{step}",
                            color=color,
                            linestyle=LINES[index % len(LINES)],
                            linewidth=1.4,
                        )
                panel.set_title(f"{family}, {depth} layers", fontsize=10)
            panels[line][0].set_ylabel("gradient norm of the layer")
        for panel in panels[-1]:
            panel.set_xlabel("layer, from the input")
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, title="step", loc="outside right center")
        figure.suptitle(
            f"{title}: gradients along training, {seeds_of(rows)}", fontsize=11
        )
        save(figure, directory, "gradients_along_training")


def responses(rows: Sequence[Row], directory: pathlib.Path, title: str) -> None:
    """Layer responses in order and sorted (He et al. 2015, figure 7).

    Args:
      rows: 'layer' and 'std'.
      directory: receives ``responses.png`` and ``.svg``.
      title: what was trained on.
    """
    families = sorted({row["family"] for row in rows})
    looks = looks_of_depths(rows)
    ranked = []
    for members in grouped(rows, "family", "depth", "seed").values():
        largest_first = sorted(members, key=lambda row: -row["std"])
        ranked += [{**r, "rank": n} for n, r in enumerate(largest_first, start=1)]
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = plt.subplots(
            2,
            len(families),
            figsize=(4.2 * len(families), 5.6),
            sharex=True,
            sharey=True,
            squeeze=False,
        )
        for line, x in enumerate(("layer", "rank")):
            for panel, family in zip(panels[line], families, strict=True):
                panel.set_yscale("log")
                own = [row for row in ranked if row["family"] == family]
                for depth, members in grouped(own, "depth").items():
                    label, look = f"{depth}", {"linewidth": 1.6, **looks[depth]}
                    draw_line(panel, members, x, "std", label, **look)
                order = "in order" if x == "layer" else "sorted"
                panel.set_title(f"{family}, {order}", fontsize=10)
                panel.set_xlabel(
                    "3x3 layer, from the input" if x == "layer" else "largest first"
                )
            panels[line][0].set_ylabel("std of the layer's response")
        panels[0][-1].legend(title="layers", loc="upper right", ncols=2)
        figure.suptitle(
            f"{title}: layer responses on the training set, {seeds_of(rows)}",
            fontsize=11,
        )
        save(figure, directory, "responses")
