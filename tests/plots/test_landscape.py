"""Figures of landscapes: which direction is on which axis, and what lines show."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from mpl_toolkits.mplot3d import Axes3D

from cnn_jax.plots import landscape

AXIS = (-1.0, 0.0, 1.0)


def slope(seed=0):
    """Loss and error rise along the first direction only."""
    return pd.DataFrame(
        {
            **{"seed": seed, "first": first, "second": second},
            **{"loss": 10 ** (2 * first + seed), "error": (first + 1) / 4},
        }
        for second in AXIS
        for first in AXIS
    )


def test_contours_lie_across_the_first_direction_a_factor_of_ten_apart():
    _, figure = landscape.surface_and_contours({(8, "plain"): slope()})
    plt.close("all")
    [panel, bar] = figure.axes
    assert (figure.get_supxlabel(), figure.get_supylabel()) == (
        "second direction",
        "first direction",
    )
    filled, lines = panel.collections[:2]
    assert filled.filled
    assert not lines.filled
    ends = [(path.vertices.min(0), path.vertices.max(0)) for path in lines.get_paths()]
    inner = [(low, high) for low, high in ends if abs(low[1]) < 0.9]
    np.testing.assert_allclose(
        inner, [[(-1, y), (1, y)] for y in (-0.5, 0, 0.5)], atol=1e-6
    )
    [centre] = panel.get_lines()
    np.testing.assert_array_equal(centre.get_xydata(), [[0, 0]])
    assert bar.get_ylabel() == "training loss (nats)"
    named = [label.get_text() for label in bar.get_yticklabels()]
    np.testing.assert_allclose(bar.get_yticks(), [-2, -1, 0, 1, 2], atol=1e-6)
    assert named == [f"$10^{{{power}}}$" for power in (-2, -1, 0, 1, 2)]


def test_the_surface_rises_along_the_first_direction(monkeypatch):
    drawn = []
    original = Axes3D.plot_surface

    def record(panel, x, y, z, **look):
        drawn.append((x, y, np.asarray(z)))
        return original(panel, x, y, z, **look)

    monkeypatch.setattr(Axes3D, "plot_surface", record)
    figure, _ = landscape.surface_and_contours({(8, "plain"): slope()})
    plt.close("all")
    [(across, along, height)] = drawn
    [panel] = figure.axes
    assert (panel.get_xlabel(), panel.get_ylabel()) == (
        "second direction",
        "first direction",
    )
    assert sorted(set(across.ravel())) == list(AXIS)
    np.testing.assert_allclose(height, 2 * along, atol=1e-9)


def test_sections_are_loss_and_error_of_each_seed_along_the_first_direction():
    rows = pd.concat([slope(), slope(1)])
    figure = landscape.sections({(8, "plain"): rows})
    plt.close(figure)
    loss, error = figure.axes
    assert (loss.get_yscale(), loss.get_ylabel()) == ("log", "training loss (nats)")
    assert (error.get_ylim(), error.get_ylabel()) == ((0, 100), "training error (%)")
    for seed, (one, other) in enumerate(
        zip(loss.get_lines(), error.get_lines(), strict=True)
    ):
        np.testing.assert_array_equal(one.get_xdata(), AXIS)
        np.testing.assert_allclose(one.get_ydata(), 10**seed * np.array([0.01, 1, 100]))
        np.testing.assert_array_equal(other.get_xdata(), AXIS)
        np.testing.assert_allclose(other.get_ydata(), [0, 25, 50])
    for panel in figure.axes:
        assert panel.get_xlabel() == "distance along the first direction"
