"""The formatting of numbers in a report."""

import math

import pandas as pd
import pytest

from cnn_jax.report import tables


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0"),
        (0.12345, "0.123"),
        (12.345, "12.3"),
        (1234.5, "1234"),
        (-0.0012345, "-0.00123"),
        (1234567.0, "1.2e+06"),
        (float("inf"), "inf"),
        (float("nan"), "n/a"),
    ],
)
def test_short(value, written):
    assert tables.short(value) == written


def test_mean_and_sample_standard_deviation_of_seeds():
    assert tables.spread([1.0, 2.0, 3.0]) == "2.00 ± 1.0"
    assert tables.spread([1.0, 3.0]) == "2.00 ± 1.4"
    assert tables.spread([0.5]) == "0.500"
    assert tables.percent([0.01, 0.03]) == "2.00 ± 1.41"
    assert tables.percent([0.5]) == "50.00"


def test_draws_of_a_seed_count_as_one():
    net = {"family": "plain", "depth": 8}
    rows = [{**net, "seed": s, "x": x} for s, x in ((1, 4.0), (0, 1.0), (0, 3.0))]
    rows = pd.DataFrame(rows)
    assert tables.per_net(rows, "x").to_dict() == {
        ("plain", 8, 0): 2.0,
        ("plain", 8, 1): 4.0,
    }
    largest = tables.per_net(rows, lambda own: own["x"].max())
    assert list(largest) == [3.0, 4.0]
    assert list(largest.index.names) == ["family", "depth", "seed"]


def test_a_number_that_is_not_there_is_said():
    assert tables.spread([math.nan]) == "n/a"
    assert tables.percent([]) == "n/a"
    assert tables.spread([1.0, math.nan, 3.0]) == "2.00 ± 1.4 (1 of 3 seeds n/a)"
    assert math.isnan(tables.ratio(1.0, 0.0))
