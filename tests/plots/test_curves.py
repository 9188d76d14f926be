"""Curves over seeds: means, bands and their panels."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cnn_jax.plots import curves

LOOK = {"color": "black"}


def rows_of(**values):
    """Rows of seeds 0 and 1 at the abscissae 1 and 2."""
    return pd.DataFrame({"seed": [0, 0, 1, 1], "x": [1, 2, 1, 2], **values})


@pytest.mark.parametrize("logarithmic", [False, True])
def test_bands_are_one_standard_deviation_of_seeds(logarithmic):
    values = np.array([1.0, 2.0, 4.0, 2.0])
    found = curves.mean_and_band(rows_of(y=values), "x", "y", logarithmic)
    if logarithmic:  # of 1 and 4: the logarithms' mean is log 2
        std = np.std(np.log([1, 4]), ddof=1)
        first = 2, 2 * np.exp(-std), 2 * np.exp(std)
    else:
        std = np.std([1, 4], ddof=1)
        first = 2.5, 2.5 - std, 2.5 + std
    np.testing.assert_allclose(found, [first, (2, 2, 2)])
    assert list(found) == ["mean", "low", "high"]
    assert found.index.tolist() == [1, 2]


def test_draws_of_a_seed_count_as_one():
    rows = pd.DataFrame({"seed": [0, 0, 1], "x": 1, "y": [1.0, 3.0, 2.0]})
    np.testing.assert_allclose(curves.mean_and_band(rows, "x", "y"), [(2, 2, 2)])


def test_a_missing_number_is_a_gap():
    rows = rows_of(y=[np.nan, 0.0, 1.0, 1.0])
    found = curves.mean_and_band(rows, "x", "y")["mean"]
    assert found.isna().tolist() == [True, False]
    found = curves.mean_and_band(rows, "x", "y", logarithmic=True)["mean"]
    assert found.isna().tolist() == [True, True]


@pytest.mark.parametrize(
    ("seeds", "phrase"),
    [
        ([(0,), (0,)], "1 draw"),
        ([(0, 1), (0, 1)], "mean ± std of 2 draws"),
        ([(0, 1), tuple(range(10))], "mean ± std of 2 to 10 draws"),
    ],
)
def test_titles_say_how_many_seeds_there_are(seeds, phrase):
    rows = pd.DataFrame(
        {"family": "plain", "depth": depth, "seed": seed}
        for depth, own in enumerate(seeds)
        for seed in own
    )
    assert curves.seeds_of(rows, "draws") == phrase


def test_a_panel_for_each_family_and_a_line_for_each_depth():
    rows = pd.concat(
        rows_of(y=[depth, 2 * depth] * 2).assign(family=family, depth=depth)
        for family, depth in (("residual", 8), ("plain", 14), ("plain", 8))
    )
    styles = {8: LOOK, 14: {"color": "red"}}
    lines = [(rows, "x", "step", ""), (rows[rows["x"] == 1], "x", "layer", "start")]
    figure, panels = curves.family_panels(lines, "y", "size", styles, more_columns=1)
    plt.close(figure)
    assert panels.shape == (2, 3)
    assert figure.get_size_inches().tolist() == pytest.approx([12.6, 5.8])
    titles = [[panel.get_title() for panel in row] for row in panels]
    assert titles == [
        ["plain", "residual", ""],
        ["plain, start", "residual, start", ""],
    ]
    assert [row[0].get_xlabel() for row in panels] == ["step", "layer"]
    assert [panel.get_ylabel() for panel in panels.flat] == ["size", "", ""] * 2
    drawn = [
        [(line.get_color(), line.get_ydata().tolist()) for line in panel.get_lines()]
        for panel in panels.flat
    ]
    plain, residual = ("black", [8, 16]), ("black", [8, 16])
    assert drawn[:3] == [[plain, ("red", [14, 28])], [residual], []]
    assert drawn[3:] == [[("black", [8]), ("red", [14])], [("black", [8])], []]
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["8", "14"]
    assert legend.get_title().get_text() == "layers"
    shared = panels[0][0].get_shared_y_axes()
    assert shared.joined(panels[0][0], panels[1][1])
    assert not shared.joined(panels[0][0], panels[0][2])


def test_logarithmic_axes_and_ordinates_that_a_row_shares():
    rows = rows_of(y=[1.0, 10.0, 100.0, 1000.0]).assign(family="plain", depth=8)
    figure, panels = curves.family_panels(
        [(rows, "x", "", ""), (rows, "x", "", "")],
        "y",
        "",
        {8: LOOK},
        log="xy",
        share="row",
    )
    plt.close(figure)
    [[one], [other]] = panels
    assert (one.get_xscale(), one.get_yscale()) == ("log", "log")
    assert not one.get_shared_y_axes().joined(one, other)
    np.testing.assert_allclose(one.get_lines()[0].get_ydata(), [10, 100])
    curves.plain_numbers(one.yaxis)
    form = one.yaxis.get_minor_formatter()
    assert [form(value) for value in (0.9, 2.0)] == ["0.9", "2"]
