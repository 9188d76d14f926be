"""Figures of landscapes: what is drawn is what was measured."""

import numpy as np
import pytest

AXIS = (-1.0, 0.0, 1.0)


def bowl(family, depth, seed, steepness):
    return [
        {
            **{"family": family, "depth": depth, "seed": seed},
            **{"first": a, "second": b, "error": min(1.0, (a**2 + b**2) / 4)},
            "loss": steepness * (0.1 + a**2 + 2 * b**2),
        }
        for b in AXIS
        for a in AXIS
    ]


def test_rows_become_the_grid_they_came_from():
    first, second, values = landscapes.grid(bowl("plain", 8, 0, 1.0), "loss")
    assert first.tolist() == second.tolist() == list(AXIS)
    a, b = np.meshgrid(AXIS, AXIS, indexing="ij")
    np.testing.assert_allclose(values, 0.1 + a**2 + 2 * b**2)


def test_a_point_that_is_missing_is_an_error():
    with pytest.raises(KeyError):
        landscapes.grid(bowl("plain", 8, 0, 1.0)[1:], "loss")


def test_figures_of_several_nets_some_of_them_missing(tmp_path, monkeypatch):
    """Depths down, families across; infinite losses are drawn as the highest."""
    rows = [
        *bowl("plain", 8, 0, 1e6),
        *bowl("plain", 14, 0, 1e9),
        *bowl("residual", 8, 0, 1.0),
        *bowl("residual", 8, 1, 2.0),
    ]
    rows[0]["loss"] = float("inf")
    titles = {}
    save = landscapes.save

    def watched(figure, directory, name):
        titles[name] = [panel.get_title() for panel in figure.axes]
        save(figure, directory, name)

    monkeypatch.setattr(landscapes, "save", watched)
    landscapes.landscape(rows, tmp_path, "noise")
    names = ("landscape_surface", "landscape_contours", "landscape_sections")
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name}.{suffix}" for name in names for suffix in ("png", "svg")
    }
    shown = {"plain, 8 layers", "plain, 14 layers", "residual, 8 layers"}
    for name in names[:2]:
        assert shown == set(filter(None, titles[name]))
