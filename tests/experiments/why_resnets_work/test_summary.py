"""The numbers of `summary.csv`, from hand-written rows."""

import math

import pandas as pd
import pytest

from cnn_jax.report import tables
from experiments.why_resnets_work.registry import ANALYSES

COLUMNS = ["quantity", "family", "depth", "seeds", "mean", "std"]


def summarize(name, made):
    """The lines of summary.csv."""
    table = tables.summarize(pd.DataFrame(made), ANALYSES[name].summary)
    assert list(table.columns) == COLUMNS
    return table.to_dict("records")


def rows(family, seed, **columns):
    head = {"family": family, "depth": 8, "seed": seed, "step": 0}
    count = len(next(iter(columns.values())))
    return [
        {**head, **{key: values[n] for key, values in columns.items()}}
        for n in range(count)
    ]


def test_numbers_are_means_of_seeds_with_their_spread():
    found = summarize(
        "responses",
        [
            *rows("plain", 0, std=[1.0, 2.0, 6.0]),
            *rows("plain", 1, std=[2.0, 3.0, 10.0]),
            *rows("residual", 0, std=[0.5, 0.5, 0.5]),
        ],
    )
    mean, median, single, _ = found
    assert (mean["mean"], mean["seeds"]) == (4, 2)
    assert mean["std"] == pytest.approx(2**0.5)
    assert median["mean"] == 2.5
    assert (single["family"], single["mean"]) == ("residual", 0.5)
    assert math.isnan(single["std"])


def test_gradients_are_compared_at_the_ends_of_training():
    both = [
        {**row, "step": step}
        for step, scale in ((0, 1.0), (5, 7.0), (9, 2.0))
        for row in rows(
            "plain", 0, layer=[1, 2, 3, 4], gradient_norm=[9.0, 8.0 * scale, 2.0, 5.0]
        )
    ]
    found = summarize("gradients", both)
    assert {row["quantity"][-6:]: row["mean"] for row in found} == {
        "step 0": 4.0,
        "step 9": 8.0,
    }


def test_path_lengths_are_weighted():
    found = summarize(
        "paths",
        rows(
            "residual",
            0,
            length=[0, 1, 2],
            share=[0.25, 0.5, 0.25],
            contribution=[3.0, 1.0, 0.0],
        ),
    )
    assert [row["mean"] for row in found] == [1.0, 0.25]


def test_lesions_are_averaged_over_blocks_and_draws():
    found = summarize(
        "lesions",
        rows(
            "residual",
            0,
            kind=["intact", "one", "one", "several", "several"],
            count=[0, 1, 1, 2, 2],
            error=[0.1, 0.2, 0.4, 0.5, 0.7],
        ),
    )
    assert [row["mean"] for row in found] == pytest.approx([10, 30, 60])
    assert found[2]["quantity"] == "test error (%), 2 blocks removed"


def test_an_analysis_without_summary_has_none():
    assert summarize("one_by_one", rows("plain", 0, loss=[1.0])) == []


def test_error_by_death_rate_and_blocks_removed():
    made = [
        row
        for seed in (0, 1)
        for row in rows(
            "residual",
            seed,
            death_rate=[0.0, 0.5, 0.5],
            removed=[0, 2, 2],
            error=[0.1, 0.2, 0.4],
        )
    ]
    found = summarize("stochastic_depth", made)
    assert [(row["quantity"], row["mean"], row["seeds"]) for row in found] == [
        ("test error (%), death rate 0, 0 blocks removed", 10.0, 2),
        ("test error (%), death rate 0.5, 2 blocks removed", pytest.approx(30.0), 2),
    ]


def test_the_shape_of_a_landscape():
    """A bowl with five points per side: 1 at the net, at least 10^5 at the edge."""
    axis = [-2, -1, 0, 1, 2]
    places = [(a, b) for a in axis for b in axis]
    made = rows(
        "plain",
        0,
        first=[a for a, _ in places],
        second=[b for _, b in places],
        loss=[10.0 ** (a**2 + b**2) for a, b in places],
        error=[0.1 * (a**2 + b**2) for a, b in places],
    )
    made[0]["loss"] = float("inf")
    found = {row["quantity"]: row["mean"] for row in summarize("landscape", made)}
    assert found["loss of the net (nats)"] == 1
    # of 16 squared distances at the edge: four of 4, eight of 5, four of 8
    assert found[
        "power of ten of the loss at the grid's edge, median"
    ] == pytest.approx(5)
    assert found["share of the grid with an error of at most half"] == 21 / 25
    assert found["local minima of the grid"] == 1
