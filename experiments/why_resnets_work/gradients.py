"""Gradient reach: the norm of the loss gradient by layer, along training.

He et al. (2015) state that plain nets with batch norm do not suffer from vanishing
gradients; Yang et al. (2019) that theirs explode, exponentially in depth.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from cnn_jax.analysis import gradients
from cnn_jax.analysis.net import Net
from cnn_jax.plots import curves
from cnn_jax.plots.style import depth_styles
from cnn_jax.report import claims, page, tables
from experiments.why_resnets_work import analysis, papers

LAYER = "layer, from the input"


def measure(
    net: Net, batches: int, along_training: Sequence[int], snapshots: Sequence[int]
) -> Iterator[analysis.Row]:
    """Measure the gradient norm of each layer before and after training, or along it.

    Args:
      net: a trained net.
      batches: number of training batches to average over.
      along_training: depths whose training is repeated to measure at ``snapshots``.
      snapshots: steps of the repeated training to measure at.

    Yields:
      A row for each step and layer, see `gradients.norms`.

    Raises:
      ValueError: the repeated training does not reproduce the trained network.
    """
    states = iter([net.at_initialisation(), net])
    if net.depth in along_training:
        steps = sorted({0, *(s for s in snapshots if s <= net.step), net.step})
        states = gradients.repeat_training(net, steps)
    data = net.train_batches(batches)
    for state in states:
        found = gradients.norms(net.model, state.variables, data, net.program.loss)
        yield from ({"step": state.step, **row} for row in found)


def draw(rows: pd.DataFrame, styles: analysis.Styles) -> analysis.Figures:
    """Plot each layer's gradient norm, at initialisation, after and along training."""
    what = ("gradient_norm", "gradient norm")
    scale: Any = {"log": "y", "share": "row"}
    lines = first_and_last(rows, "layer", LAYER)
    figure, _ = curves.family_panels(lines, *what, styles, **scale)
    figure.suptitle(f"gradient reach, {curves.seeds_of(rows)}")
    found = {"gradients": figure}
    along = along_training(rows)
    if len(along):
        lines = [
            (own, "layer", LAYER, f"{depth} layers")
            for depth, own in along.groupby("depth")
        ]
        scale |= {"by": ("step", "step"), "linewidth": 1.4}
        steps = depth_styles(along["step"])
        figure, _ = curves.family_panels(lines, *what, steps, **scale)
        figure.suptitle(f"gradients during training, {curves.seeds_of(along)}")
        found["gradients_along_training"] = figure
    return found


def first_and_last(
    rows: pd.DataFrame, x: str, label: str
) -> list[tuple[pd.DataFrame, str, str, str]]:
    """Rows of panels before and after each net's training, for `family_panels`."""
    last = rows[rows["step"] == rows.groupby(tables.NET)["step"].transform("max")]
    steps = " to ".join(map(str, sorted({last["step"].min(), last["step"].max()})))
    return [
        (tables.of(rows, step=0), x, label, "at initialisation"),
        (last, x, label, f"after {steps} steps"),
    ]


def along_training(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of nets that were measured between the first and the last step, too."""
    return rows[rows.groupby(tables.NET)["step"].transform("nunique") > 2]


def growth(rows: pd.DataFrame) -> float:
    """Ratio of a net's gradient norms: second layer over last convolution.

    The first layer's inputs differ from the others', and the last is the classifier.
    """
    norms = rows.sort_values("layer")["gradient_norm"].to_numpy()
    return tables.ratio(norms[1], norms[-2]) if len(norms) > 3 else math.nan


def section(rows: pd.DataFrame, settings: analysis.Settings) -> page.Section:
    """Gradient norm by layer."""
    start = tables.of(rows, step=0)
    growths = tables.per_net(start, growth)
    plain = tables.of_family(growths, "plain")
    figures = [
        page.Figure(
            "gradients",
            "Norm of the loss gradient at each layer, on a logarithmic scale, before "
            "and after training. One line per depth; plain and residual nets side by "
            "side.",
            "Gradient norm of each layer, before and after training.",
        )
    ]
    if len(along_training(rows)):
        figures.append(
            page.Figure(
                "gradients_along_training",
                "Norm of the loss gradient at each layer during training. One line "
                "per step; one panel per depth and family.",
                "Gradient norm of each layer during training.",
            )
        )
    return page.Section(
        title="Gradient reach",
        question="How much of the gradient reaches the early layers?",
        method="Norm of the gradient of a training batch's mean loss with respect to "
        "each layer's weights, averaged over batches; with the batch's own batch-norm "
        "statistics, without weight decay. Growth is the norm of the second layer "
        "divided by that of the last convolution. These two differ in width and "
        "resolution, so compare growths of nets of the same widths only.",
        sources=[papers.HE, papers.YANG],
        figures=figures,
        tables=[
            tables.group_table(
                start,
                "Growth of the gradient towards the input at initialisation",
                {"growth": (growths, tables.spread)},
            )
        ],
        findings=[
            claims.residual_below_plain(
                "At initialisation, the gradient grows less towards the input in a "
                "residual net than in its plain twin.",
                growths,
            ),
            claims.ascending("In plain nets, this growth rises with depth.", plain),
            page.Finding(
                "The gradient does not vanish in any plain net: before training, the "
                "norm of the second layer is at least a tenth of that of the last "
                "convolution.",
                bool(plain.min() >= 0.1) if plain.notna().all() else None,
                f"The smallest growth in a plain net is {tables.short(plain.min())}.",
            )
            if len(plain)
            else None,
        ],
        remark="He et al. state that plain nets with batch norm do not suffer from "
        "vanishing gradients. Yang et al. show that their gradients explode "
        "exponentially with depth.",
    )


def summary(rows: pd.DataFrame) -> Iterator[tuple[str, float]]:
    """Ratio of the gradient norms of the second and the last-but-one layer."""
    for step in sorted({0, rows["step"].max()} & set(rows["step"])):
        found = growth(tables.of(rows, step=step))
        yield f"gradient, layer 2 / last 3x3, step {step}", found


ANALYSIS = analysis.Analysis(measure, section, draw, summary)
