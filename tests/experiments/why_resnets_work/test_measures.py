"""The rows of a net, where what computes them is known."""

import types

import jax.numpy as jnp
import matplotlib.pyplot as plt
import pandas as pd
import pytest

from cnn_jax.analysis import blocks, gradients, lesions, linearity, shattered
from experiments.why_resnets_work import gradients as along
from experiments.why_resnets_work import stochastic_depth
from experiments.why_resnets_work.registry import ANALYSES
from tests.experiments.why_resnets_work.rows import gradients as gradient_rows
from tests.experiments.why_resnets_work.rows import one_by_one, responses

SITES = [blocks.Site(name, True, True, ()) for name in "abc"]
BATCH = {"image": jnp.zeros((4, 2)), "label": jnp.arange(4)}


class Model(str):
    """The name of a net, in its place."""

    stochastic_depth = 0.0


def net_of(name):
    """A net without weights."""
    return types.SimpleNamespace(
        **{"model": Model(name), "variables": f"{name} variables"},
        **{"seed": 3, "step": 140},
        program=types.SimpleNamespace(image_shape=(2,), loss="loss", errors="errors"),
        train_batches=lambda count: [BATCH] * count,
        batches=lambda split, images=0: [(split, images)],
        at_initialisation=lambda: types.SimpleNamespace(variables="fresh"),
    )


@pytest.fixture(autouse=True)
def three_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "sites", lambda *_: SITES)


def test_cosines_go_with_their_distances_before_and_after_training(monkeypatch):
    monkeypatch.setattr(
        shattered, "with_batch_statistics", lambda model, fresh, whole: "normalised"
    )
    found = {"normalised": [0.5, 0.25], "net variables": [0.9, 0.8]}

    def correlations(model, variables, batch, distances, key):
        assert len(batch["image"]) == len(batch["label"]) == 3
        return found[variables]

    monkeypatch.setattr(shattered, "input_correlations", correlations)
    rows = list(ANALYSES["shattered"].measure(net_of("net"), 3, (0.01, 0.1)))
    assert [tuple(row.values()) for row in rows] == [
        *((0, 0.01, 0.5), (0, 0.1, 0.25), (140, 0.01, 0.9), (140, 0.1, 0.8))
    ]
    assert list(rows[0]) == ["step", "distance", "correlation"]


def test_changes_of_blocks_have_their_numbers(monkeypatch):
    monkeypatch.setattr(
        linearity,
        "relative_changes",
        lambda model, variables, data: (
            {"c": 0.5, "a": 0.25, "data": data}
            if data != [("train", 7)]
            else {"c": 0.5, "a": 0.25}
        ),
    )
    rows = list(ANALYSES["linearity"].measure(net_of("net"), 7))
    assert rows == [
        {"block": 3, "name": "c", "change": 0.5},
        {"block": 1, "name": "a", "change": 0.25},
    ]


def test_paths_of_a_length_contribute_their_share_of_the_gradient(monkeypatch):
    asked = []

    def gradient(model, variables, batch, loss, through):
        assert len(batch["image"]) == 2
        asked.append(int(through.sum()))
        return 10.0 ** through.sum()

    monkeypatch.setattr(lesions, "path_gradient", gradient)
    rows = list(ANALYSES["paths"].measure(net_of("net"), (8,), 2, 4))
    assert asked == [0, *[1] * 4, *[2] * 4, 3]
    assert rows == [
        {
            **{"length": length, "share": share, "gradient": 10.0**length},
            "contribution": share * 10.0**length,
        }
        for length, share in enumerate((1 / 8, 3 / 8, 3 / 8, 1 / 8))
    ]


def test_both_trainings_lose_the_same_blocks(monkeypatch):
    again, kept = net_of("again"), {"net": [], "again": []}
    monkeypatch.setattr(
        stochastic_depth, "with_stochastic_depth", lambda program, rate: rate
    )
    monkeypatch.setattr(
        gradients,
        "snapshots",
        lambda program, seed, steps: (
            [again] if (program, seed, steps) == (0.5, 3, [140]) else []
        ),
    )

    def error(model, variables, data, keep, errors):
        assert data == [("test", 0)]
        kept[model].append(keep.tolist())
        return (model == "again") + (1 - keep).sum() / 10

    monkeypatch.setattr(lesions, "error_without", error)
    analysis = ANALYSES["stochastic_depth"]
    # None of the nets has four blocks.
    rows = list(analysis.measure(net_of("net"), 8, 0.5, (1, 4, 2), 3))
    assert kept["net"] == kept["again"]
    assert [tuple(row.values()) for row in rows] == [
        (rate, removed, draw, pytest.approx(2 * rate + removed / 10))
        for rate in (0.0, 0.5)
        for removed, draws in ((0, 1), (1, 3), (2, 3))
        for draw in range(draws)
    ]


@pytest.mark.parametrize("rate", [0.5, None])
def test_only_a_net_without_stochastic_depth_is_trained_again(rate):
    net = net_of("net")
    net.model.stochastic_depth = rate  # None: a net without this field
    with pytest.raises(ValueError, match="stochastic_depth, with value 0"):
        next(ANALYSES["stochastic_depth"].measure(net, 8, 0.5, (1,), 3))


def test_summaries_of_blocks_and_of_neighbours():
    changes = pd.DataFrame({"change": [0.25, 0.75]})
    assert list(ANALYSES["linearity"].summary(changes)) == [
        ("relative change, mean over blocks", 0.5)
    ]
    lags = pd.DataFrame({"lag": [0, 1, 2], "autocorrelation": [1.0, 0.5, 0.25]})
    assert list(ANALYSES["grid"].summary(lags)) == [("autocorrelation at lag 1", 0.5)]


def test_more_than_half_is_saved_or_not():
    table = pd.DataFrame(one_by_one())
    for macs, holds in ((9_999, True), (10_000, False)):
        rows = table.assign(macs=table["macs"].where(table["kind"] != "shrink", macs))
        settings = {"channels": 192, "width": 32, "size": 28, "shrink": 16}
        found = ANALYSES["one_by_one"].section(rows, settings).findings[0]
        assert found.holds is holds


def test_the_last_panels_of_responses_are_over_depth():
    rows = pd.DataFrame(responses())
    styles = {depth: {"color": "black"} for depth in (8, 20)}
    [figure] = ANALYSES["responses"].draw(rows, styles).values()
    plt.close(figure)
    titles = [panel.get_title() for panel in figure.axes]
    assert titles[2::3] == ["mean over layers", "median over layers"]
    assert [len(panel.get_lines()) for panel in figure.axes] == [2] * 6


def test_steps_of_training_have_colours_of_their_own():
    """Also the last two, of a map that ends before its lightest colour."""
    rows = pd.DataFrame(gradient_rows())
    start = rows[rows["step"] == 0]
    steps = (0, 50, 70, 90, 140)
    table = pd.concat([rows, *(start.assign(step=step) for step in steps[1:-1])])
    styles = {depth: {"color": "black"} for depth in (8, 20)}
    figure = along.draw(table, styles)["gradients_along_training"]
    plt.close("all")
    colours = {tuple(line.get_color()) for line in figure.axes[0].get_lines()}
    assert len(colours) == 5
