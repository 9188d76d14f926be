"""Shattered gradients of random dense nets of one input, as in the paper's figures."""

import itertools
from collections.abc import Iterator, Sequence

import jax
import numpy as np
import pandas as pd

from cnn_jax.analysis import shattered
from cnn_jax.plots import curves
from cnn_jax.plots.style import depth_styles
from cnn_jax.report import claims, page, tables
from experiments.why_resnets_work import analysis, papers


def measure(
    depths: Sequence[int], width: int, points: int, beta: float, seeds: int, lags: int
) -> Iterator[analysis.Row]:
    """Measure the autocorrelation of the derivative of random nets of a scalar.

    Args:
      depths: numbers of layers.
      width: units per layer.
      points: number of points of the grid.
      beta: scale of the branches of the third kind of net.
      seeds: number of random nets of each kind and depth.
      lags: lags of the autocorrelation.

    Yields:
      A row for each net and lag: 'lag' and 'autocorrelation'. The families are
      'plain', 'residual' and one whose name contains ``beta``.
    """
    families = {
        "plain": (0.0, 1.0),
        "residual": (1.0, 1.0),
        f"residual, branch x {beta:g}": (1.0, beta),
    }
    for depth, (family, (skip, scale)), seed in itertools.product(
        depths, families.items(), range(seeds)
    ):
        derivative = shattered.grid_gradients(
            jax.random.key(seed), depth, width, points, skip, scale
        )
        found = shattered.autocorrelation(np.asarray(derivative), lags)
        label = {"family": family, "depth": depth, "seed": seed, "step": 0}
        for lag, value in enumerate(found):
            yield {**label, "lag": lag, "autocorrelation": float(value)}


def draw(rows: pd.DataFrame, styles: analysis.Styles) -> analysis.Figures:
    """Plot the autocorrelation of the derivative of random nets of a scalar."""
    own = depth_styles(rows["depth"])  # these depths are not the study's
    lines = [(rows, "lag", "lag (grid points)", "")]
    figure, _ = curves.family_panels(lines, "autocorrelation", "autocorrelation", own)
    count = curves.seeds_of(rows, "nets")
    figure.suptitle(f"derivative of random one-input nets, {count}")
    return {"grid": figure}


def section(rows: pd.DataFrame, settings: analysis.Settings) -> page.Section:
    """Autocorrelation of the derivative of random nets of one input."""
    one = tables.of(rows, lag=1)
    correlations = tables.per_net(one, "autocorrelation")
    deepest = one["depth"].max()
    return page.Section(
        title="Shattered gradients of random nets",
        question="Do the gradients also shatter in the paper's own setting?",
        method="The derivative of randomly initialised dense nets with a single input, "
        "evaluated on a grid. Its autocorrelation distinguishes white noise (deep "
        "plain nets) from a smooth function.",
        sources=[papers.BALDUZZI],
        figures=[
            page.Figure(
                "grid",
                "Autocorrelation over the lag. One line per depth; one panel each for "
                "plain nets, residual nets, and residual nets with scaled branches.",
                "Autocorrelation of the derivative.",
            )
        ],
        tables=[
            tables.group_table(
                one,
                "Autocorrelation at a lag of one grid point",
                {"autocorrelation": (correlations, tables.spread)},
                "random nets",
            )
        ],
        findings=[
            claims.residual_above_plain(
                f"At {deepest} layers, the derivative of plain nets is less correlated "
                "than that of residual nets.",
                correlations.xs(deepest, level="depth", drop_level=False),
            )
        ],
    )


def summary(rows: pd.DataFrame) -> Iterator[tuple[str, float]]:
    """Autocorrelation between neighbouring points of the grid."""
    for value in tables.of(rows, lag=1)["autocorrelation"]:
        yield "autocorrelation at lag 1", value


ANALYSIS = analysis.Analysis(measure, section, draw, summary)
