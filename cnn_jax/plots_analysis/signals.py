"""Figures of what passes through the layers: gradients, responses, changes."""

import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from cnn_jax.plots.style import FIGURE_STYLE, LINES, save, style_of
from cnn_jax.plots_analysis.drawing import (
    POINTS,
    Row,
    draw_families,
    draw_line,
    grid_of,
    grouped,
    plain_numbers,
    seeds_of,
)


def gradients(rows: Sequence[Row], directory: pathlib.Path, title: str) -> None:
    """Gradient norm of each layer, at initialisation, after and along training.

    Args:
      rows: 'step', 'layer' and 'gradient_norm'.
      directory: receives ``gradients.png``, and ``gradients_along_training.png``
        where there are steps in between (and ``.svg``).
      title: what was trained on.
    """
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = grid_of(rows, 2, sharey="row")
        for panel in panels.flat:
            panel.set_yscale("log")
        _draw_first_and_last(panels, rows, "layer", "gradient_norm")
        for line in panels:
            line[0].set_ylabel("gradient norm of the layer")
        for panel in panels[-1]:
            panel.set_xlabel("layer, from the input")
        panels[0][-1].legend(title="layers", loc="upper right", ncols=2)
        figure.suptitle(f"{title}: gradient reach, {seeds_of(rows)}", fontsize=11)
        save(figure, directory, "gradients")
    steps = sorted({row["step"] for row in rows})
    if len(steps) > 2:
        _gradients_along_training(rows, steps, directory, title)


def _draw_first_and_last(panels: Any, rows: Sequence[Row], x: str, y: str) -> None:
    """A line of panels before training and one after it, as `draw_families`."""
    last = max(row["step"] for row in rows)
    for line, step in zip(panels, (0, last), strict=True):
        when = f"after {step} steps" if step else "at initialisation"
        own = [row for row in rows if row["step"] == step]
        draw_families(line, own, x, y, f"{{}}, {when}")


def _gradients_along_training(
    rows: Sequence[Row], steps: Sequence[int], directory: pathlib.Path, title: str
) -> None:
    """One panel a family and depth, one line a step: gradient norm over layers."""
    depths = sorted({row["depth"] for row in rows if row["step"] in steps[1:-1]})
    rows = [row for row in rows if row["depth"] in depths]
    colors = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, len(steps)))
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = grid_of(rows, len(depths), sharex="row", sharey="row")
        for line, depth in zip(panels, depths, strict=True):
            of_depth = [row for row in rows if row["depth"] == depth]
            families = grouped(of_depth, "family")
            for panel, (family, own) in zip(line, families.items(), strict=True):
                panel.set_yscale("log")
                for index, (step, members) in enumerate(grouped(own, "step").items()):
                    look = {
                        "color": colors[steps.index(step)],
                        "linestyle": LINES[index % len(LINES)],
                        "linewidth": 1.4,
                    }
                    draw_line(
                        panel, members, "layer", "gradient_norm", f"{step}", **look
                    )
                panel.set_title(f"{family}, {depth} layers", fontsize=10)
            line[0].set_ylabel("gradient norm of the layer")
        for panel in panels[-1]:
            panel.set_xlabel("layer, from the input")
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, title="step", loc="outside right center")
        figure.suptitle(
            f"{title}: gradients along training, {seeds_of(rows)}", fontsize=11
        )
        save(figure, directory, "gradients_along_training")


def shattered(rows: Sequence[Row], directory: pathlib.Path, title: str) -> None:
    """Likeness of gradients at an image and where it has moved.

    Args:
      rows: 'step', 'distance' and 'correlation'.
      directory: receives ``shattered.png`` and ``.svg``.
      title: what was trained on.
    """
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = grid_of(rows, 2)
        _draw_first_and_last(panels, rows, "distance", "correlation")
        for line in panels:
            line[0].set_ylabel("cosine of gradients")
        for panel in panels[-1]:
            panel.set_xscale("log")
            panel.set_xlabel("distance / ‖image‖")
        panels[0][-1].legend(title="layers", loc="lower left", ncols=2)
        figure.suptitle(
            f"{title}: input gradients at nearby images, {seeds_of(rows)}", fontsize=11
        )
        save(figure, directory, "shattered")


def grid(rows: Sequence[Row], directory: pathlib.Path, title: str) -> None:
    """Autocorrelation of the derivative of random nets of a scalar.

    Args:
      rows: 'lag' and 'autocorrelation'.
      directory: receives ``grid.png`` and ``.svg``.
      title: not used: these nets are trained on nothing.
    """
    del title
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = grid_of(rows, 1)
        draw_families(panels[0], rows, "lag", "autocorrelation", "{}")
        panels[0][0].set_ylabel("autocorrelation")
        for panel in panels[0]:
            panel.set_xlabel("lag (grid points)")
            panel.xaxis.get_major_locator().set_params(integer=True)
        panels[0][0].legend(title="layers", loc="center right", ncols=2)
        figure.suptitle(
            "derivative of random nets of one input: "
            + seeds_of(rows).replace("seeds", "nets"),
            fontsize=11,
        )
        save(figure, directory, "grid")


def responses(rows: Sequence[Row], directory: pathlib.Path, title: str) -> None:
    """Layer responses in order, sorted, and over depth (He et al. 2015, figure 7).

    Args:
      rows: 'layer' and 'std'.
      directory: receives ``responses.png`` and ``.svg``.
      title: what was trained on.
    """
    ranked, wholes = [], []
    for members in grouped(rows, "family", "depth", "seed").values():
        largest_first = sorted(members, key=lambda row: -row["std"])
        ranked += [{**r, "rank": n} for n, r in enumerate(largest_first, start=1)]
        values = [row["std"] for row in members]
        wholes.append(
            {**members[0], "mean": np.mean(values), "median": np.median(values)}
        )
    families = sorted({row["family"] for row in rows})
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = plt.subplots(
            2,
            len(families) + 1,
            figsize=(3.7 * (len(families) + 1), 6.0),
            squeeze=False,
        )
        for line, x, label in (
            (panels[0], "layer", "3x3 layer, from the input"),
            (panels[1], "rank", "3x3 layers, largest first"),
        ):
            for panel in line[:-1]:
                panel.sharey(panels[0][0])
                panel.set_xlabel(label)
                panel.set_yscale("log")
            order = "in order" if x == "layer" else "sorted"
            draw_families(line[:-1], ranked, x, "std", f"{{}}, {order}")
            line[0].set_ylabel("std of the response")
        for panel, y in zip(panels[:, -1], ("mean", "median"), strict=True):
            panel.set_yscale("log")
            for family in families:
                own = [row for row in wholes if row["family"] == family]
                style = style_of(family, families)
                draw_line(panel, own, "depth", y, family, markersize=4, **style)
            panel.set_title(f"{y} over layers", fontsize=10)
            panel.set_xlabel("depth (weight layers)")
            panel.set_xticks(sorted({row["depth"] for row in rows}))
            plain_numbers(panel.yaxis)
        panels[0][-2].legend(title="layers", loc="upper right", ncols=2)
        panels[0][-1].legend(loc="upper left")
        figure.suptitle(
            f"{title}: layer responses on the training set, {seeds_of(rows)}",
            fontsize=11,
        )
        save(figure, directory, "responses")


def linearity(rows: Sequence[Row], directory: pathlib.Path, title: str) -> None:
    """How far each block is from the identity.

    Args:
      rows: 'block' and 'change'.
      directory: receives ``linearity.png`` and ``.svg``.
      title: what was trained on.
    """
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = grid_of(rows, 1)
        draw_families(panels[0], rows, "block", "change", "{}", **POINTS)
        panels[0][0].set_ylabel("‖output - input‖ / ‖input‖")
        for panel in panels[0]:
            panel.set_ylim(bottom=0)
            panel.set_xlabel("block, from the input")
        panels[0][-1].legend(title="layers", loc="upper right", ncols=2)
        figure.suptitle(
            f"{title}: distance of blocks from the identity, {seeds_of(rows)}",
            fontsize=11,
        )
        save(figure, directory, "linearity")
