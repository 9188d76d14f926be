"""Figures of nets as ensembles: lesions, paths, stochastic depth."""

import pathlib
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np

from cnn_jax.plots.style import FIGURE_STYLE, OTHER_STYLES, STYLES, save
from cnn_jax.plots_analysis.drawing import (
    POINTS,
    Row,
    draw_families,
    draw_line,
    grid_of,
    grouped,
    looks_of_depths,
    seeds_of,
)


def lesions(rows: Sequence[Row], directory: pathlib.Path, title: str) -> None:
    """Test error with blocks removed or exchanged (Veit et al. 2016, figures 3 to 5).

    Args:
      rows: 'kind', 'count', 'block', 'kendall_tau' and 'error'.
      directory: receives ``lesions.png`` and ``.svg``.
      title: what was trained on.
    """
    percent = [{**row, "percent": 100 * row["error"]} for row in rows]
    kinds = grouped(percent, "kind")
    # Zero blocks removed or exchanged are part of those lines.
    several = [*kinds["intact"], *kinds.get("several", [])]
    exchanged = [{**r, "kendall_tau": 1.0} for r in kinds["intact"]]
    for members in grouped(
        kinds.get("exchanged", []), "family", "depth", "count"
    ).values():
        tau = float(np.mean([row["kendall_tau"] for row in members]))
        exchanged += [{**row, "kendall_tau": tau} for row in members]
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = grid_of(rows, 3, sharex="row")
        for line, own, x, what in (
            (panels[0], kinds.get("one", []), "block", "one block removed"),
            (panels[1], several, "count", "several blocks removed"),
            (panels[2], exchanged, "kendall_tau", "blocks exchanged"),
        ):
            draw_families(line, own, x, "percent", f"{{}}, {what}", **POINTS)
            line[0].set_ylabel("test error (%)")
        for panels_of_line, label in zip(
            panels,
            ("block removed, from the input", "blocks removed", "Kendall's tau"),
            strict=True,
        ):
            for panel in panels_of_line:
                panel.set_xlabel(label)
        for panel in panels[2]:
            panel.set_ylim(0, 100)
        panels[2][0].invert_xaxis()
        panels[0][-1].legend(title="layers", loc="upper right", ncols=2)
        figure.suptitle(f"{title}: lesions, {seeds_of(rows)}", fontsize=11)
        save(figure, directory, "lesions")


def paths(rows: Sequence[Row], directory: pathlib.Path, title: str) -> None:
    """Paths by length: how many, their gradient, and both (Veit et al., figure 6).

    Args:
      rows: 'length', 'share', 'gradient' and 'contribution'.
      directory: receives ``paths.png`` and ``.svg``.
      title: what was trained on.
    """
    whole = {
        key: sum(row["contribution"] for row in members)
        for key, members in grouped(rows, "depth", "seed").items()
    }
    rows = [
        {**row, "part": row["contribution"] / whole[row["depth"], row["seed"]]}
        for row in rows
    ]
    # Beyond some length nothing is left that float32 could hold.
    rows = [row for row in rows if row["gradient"] > 0]
    looks = looks_of_depths(rows)
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = plt.subplots(1, 3, figsize=(11, 3.3))
        panels[1].set_yscale("log")
        for panel, y, label in zip(
            panels,
            ("share", "gradient", "part"),
            ("share of the paths", "gradient norm at the input", "share of gradient"),
            strict=True,
        ):
            for depth, members in grouped(rows, "depth").items():
                draw_line(panel, members, "length", y, f"{depth}", **looks[depth])
            panel.set_xlabel("path length (branches)")
            panel.set_ylabel(label)
        panels[0].legend(title="layers", loc="upper right")
        figure.suptitle(
            f"{title}: paths through residual nets, {seeds_of(rows)}", fontsize=11
        )
        save(figure, directory, "paths")


def stochastic_depth(rows: Sequence[Row], directory: pathlib.Path, title: str) -> None:
    """Test error over blocks removed, of nets trained at one depth and at many.

    Args:
      rows: 'death_rate', 'removed' and 'error'.
      directory: receives ``stochastic_depth.png`` and ``.svg``.
      title: what was trained on.
    """
    looks = (
        {**STYLES["residual"], "label": "as usual"},
        {**OTHER_STYLES[0], "label": "with stochastic depth"},
    )
    percent = [{**row, "percent": 100 * row["error"]} for row in rows]
    with plt.rc_context(FIGURE_STYLE):
        figure, panel = plt.subplots(figsize=(6.4, 3.6))
        rates = grouped(percent, "death_rate")
        for members, look in zip(rates.values(), looks, strict=True):
            draw_line(panel, members, "removed", "percent", **look)
        panel.set_ylim(bottom=0)
        panel.set_xlabel("blocks removed")
        panel.set_ylabel("test error (%)")
        panel.legend(title="trained", loc="upper left")
        figure.suptitle(
            f"{title}: residual nets of {rows[0]['depth']} layers, {seeds_of(rows)}",
            fontsize=11,
        )
        save(figure, directory, "stochastic_depth")
