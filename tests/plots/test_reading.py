"""The figure of reading errors: means beside the points of their seeds."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cnn_jax.plots import reading


def test_means_stand_at_the_height_of_their_seeds(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(reading, "save", lambda figure, *_: drawn.append(figure))
    table = pd.DataFrame(
        {"system": system, "seed": seed, "string_error": error, "digit_error": 0.1}
        for system, errors in (("one", (0.2, 0.4)), ("two", (0.5, 0.7)))
        for seed, error in enumerate(errors)
    )
    systems = {"two": "a system", "one": "another"}
    reading.reading_errors(table, systems, tmp_path, "title")
    [figure] = drawn
    plt.close(figure)
    [panel] = figure.axes
    points = [line for line in panel.get_lines() if line.get_marker() in ("o", "s")]
    [mean, seeds, other, others] = [line.get_xydata() for line in points]
    np.testing.assert_allclose(mean[:, 0], [60, 30])
    np.testing.assert_allclose(seeds[:, 0], [20, 40, 50, 70])
    np.testing.assert_allclose(other[:, 0], 10)
    for one, own in ((mean, seeds), (other, others)):
        np.testing.assert_array_equal(np.unique(one[:, 1]), np.unique(own[:, 1]))
    assert not set(mean[:, 1]) & set(other[:, 1])
    names = [label.get_text() for label in panel.get_yticklabels()]
    assert names == ["a system", "another"]


def test_a_single_seed_has_no_bar(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(reading, "save", lambda figure, *_: drawn.append(figure))
    errors = {"string_error": [0.2], "digit_error": [0.1]}
    table = pd.DataFrame({"system": "one", "seed": 0, **errors})
    reading.reading_errors(table, {"one": "a system"}, tmp_path, "title")
    [figure] = drawn
    plt.close(figure)
    bars = [bar for bar in figure.axes[0].collections for bar in bar.get_segments()]
    assert not any(bar.size for bar in bars)
