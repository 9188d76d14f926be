"""Figures of landscapes show the measured values, even for flat landscapes."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cnn_jax.plots import landscape as plots
from cnn_jax.plots.style import FIGURE_STYLE
from experiments.why_resnets_work import landscape

AXIS = (-1.0, 0.0, 1.0)


def bowl(family, depth, seed, steepness, least=0.1):
    return [
        {
            **{"family": family, "depth": depth, "seed": seed},
            **{"first": a, "second": b, "error": min(1.0, (a**2 + b**2) / 4)},
            "loss": steepness * (least + a**2 + 2 * b**2),
        }
        for b in AXIS
        for a in AXIS
    ]


def draw(rows):
    with plt.rc_context(FIGURE_STYLE):
        figures = landscape.draw(pd.DataFrame(rows), {})
        for figure in figures.values():
            figure.draw_without_rendering()
            plt.close(figure)
    return figures


def test_rows_become_the_grid_they_came_from():
    found = plots.grid_of(pd.DataFrame(bowl("plain", 8, 0, 1.0)), "loss")
    assert found.index.tolist() == found.columns.tolist() == list(AXIS)
    a, b = np.meshgrid(AXIS, AXIS, indexing="ij")
    np.testing.assert_allclose(found, 0.1 + a**2 + 2 * b**2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (bowl("plain", 8, 0, 1.0)[1:], "1 points of the grid are missing"),
        (bowl("plain", 8, 0, 1.0) * 2, "duplicate"),
    ],
)
def test_a_point_that_is_missing_or_there_twice_is_an_error(rows, message):
    with pytest.raises(ValueError, match=message):
        plots.grid_of(pd.DataFrame(rows), "loss")


def test_figures_of_several_nets_some_of_them_missing():
    """Depths in rows, families in columns."""
    rows = [
        *bowl("plain", 8, 0, 1e6),
        *bowl("plain", 14, 0, 1e9),
        *bowl("residual", 8, 0, 1.0),
        *bowl("residual", 8, 1, 2.0),
    ]
    rows[0]["loss"] = float("inf")
    surface, contours, sections = draw(rows).values()
    shown = {"plain, 8 layers", "plain, 14 layers", "residual, 8 layers"}
    for figure in (surface, contours):
        assert shown == {panel.get_title() for panel in figure.axes} - {""}
    assert [panel.get_title() for panel in sections.axes[::2]] == [
        "8 layers",
        "14 layers",
    ]
    lines = sections.axes[0].get_lines()
    assert [len(line.get_xdata()) for line in lines] == [3, 3, 3]


def test_infinite_losses_are_drawn_as_the_highest():
    rows = bowl("plain", 8, 0, 1.0)
    rows[0]["loss"] = float("inf")
    found = plots.logarithms(pd.DataFrame(rows))
    assert found.loc[-1.0, -1.0] == found.max().max() == np.log10(0.1 + 1 + 2)
    assert found.loc[0.0, 0.0] == pytest.approx(-1)


@pytest.mark.parametrize("loss", [0.0, 1e-4, 5.0, float("inf"), float("nan")])
def test_a_flat_landscape_is_drawn(loss):
    """All losses of a net are equal, or below the drawn range."""
    rows = [{**row, "loss": loss} for row in bowl("plain", 8, 0, 1.0)]
    surface, contours, _ = draw(rows).values()
    [panel] = surface.axes
    low, high = panel.get_zlim()
    assert high - low > 0.99
    assert contours.axes[0].get_title() == "plain, 8 layers"
