"""The ensemble of depths: lesions of nets trained with stochastic depth."""

import functools
from collections.abc import Iterator, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cnn_jax import study
from cnn_jax.analysis import blocks, gradients, lesions
from cnn_jax.analysis.net import Net
from cnn_jax.names import ConfigError
from cnn_jax.plots import curves
from cnn_jax.plots.style import OTHER_STYLES, STYLES, name_lines
from cnn_jax.report import claims, page, tables
from cnn_jax.training.program import Program
from experiments.why_resnets_work import analysis, papers


def measure(
    net: Net, depth: int, death_rate: float, removed: Sequence[int], draws: int
) -> Iterator[analysis.Row]:
    """Measure test error with blocks removed, with and without stochastic depth.

    Args:
      net: a residual net, trained without stochastic depth.
      depth: its depth (other nets are not passed).
      death_rate: death rate of the last block (see `cnn_jax.models.resnet.ResNet`);
        the same run is trained again with it.
      removed: numbers of blocks to remove at random; numbers larger than the net's
        removable blocks are skipped.
      draws: number of random choices for each number of blocks.

    Yields:
      A row for each death rate (0 and ``death_rate``), number and draw: 'death_rate',
      'removed', 'draw' and 'error'. Both nets lose the same blocks.

    Raises:
      ValueError: the net was trained with stochastic depth, or cannot be.
    """
    if getattr(net.model, "stochastic_depth", None) != 0:
        raise ValueError("the net must have the field stochastic_depth, with value 0")
    sites = blocks.sites(net.model, net.variables, net.program.image_shape)
    cases = list(lesions.cases(sites, net.seed, removed, (), draws))
    program = with_stochastic_depth(net.program, death_rate)
    [again] = gradients.snapshots(program, net.seed, [net.step])
    for rate, one in ((0.0, net), (death_rate, again)):
        data = list(one.batches("test"))
        for kind, keep, _, columns in cases:
            if kind != "one":
                error = lesions.error_without(
                    one.model, one.variables, data, keep, one.program.errors
                )
                count, draw = columns.get("count", 0), columns.get("draw", 0)
                row = {"death_rate": rate, "removed": count, "draw": draw}
                yield {**row, "error": error}


@functools.lru_cache(maxsize=1)
def with_stochastic_depth(program: Program, death_rate: float) -> Program:
    """The program with stochastic depth, cached because all seeds share it."""
    changes = {"model": {"stochastic_depth": death_rate}}
    return Program(study.merge(program.config, changes), program.source)


def check(settings: analysis.Settings) -> None:
    """Refuse a death rate that is no probability, or drops no branch."""
    rate = settings["death_rate"]
    if not 0 < rate < 1:
        raise ConfigError(f"stochastic_depth.death_rate must be in (0, 1), got {rate}")


def draw(rows: pd.DataFrame, styles: analysis.Styles) -> analysis.Figures:
    """Plot test error over blocks removed, for both kinds of training."""
    looks = {"standard training": STYLES["residual"]}
    looks["stochastic depth"] = OTHER_STYLES[0]
    training = np.where(rows["death_rate"] > 0, "stochastic depth", "standard training")
    rows = rows.assign(percent=100 * rows["error"], training=training)
    figure, panel = plt.subplots(figsize=(6.4, 3.6))
    lines = curves.draw_lines(panel, rows, "training", "removed", "percent", looks)
    panel.set(xlabel="blocks removed", ylabel="test error (%)", ylim=(0, None))
    name_lines(figure, list(lines.values()), list(lines))
    depth = rows["depth"].iloc[0]
    figure.suptitle(f"residual nets of {depth} layers, {curves.seeds_of(rows)}")
    return {"stochastic_depth": figure}


def section(rows: pd.DataFrame, settings: analysis.Settings) -> page.Section:
    """Lesions of nets trained with and without stochastic depth."""
    errors = rows.groupby(["death_rate", "removed", "seed"])["error"].mean()
    rates, counts = sorted(set(rows["death_rate"])), sorted(set(rows["removed"]))
    depth, usual, trained = rows["depth"].iloc[0], rates[0], rates[-1]

    def rise(rate: float) -> pd.Series:
        """The rise of the error, by blocks removed and seed."""
        own = errors[rate]
        intact = own[0].reindex(own.index, level="seed")
        return (own - intact).drop(0, level="removed")

    return page.Section(
        title="The ensemble of depths",
        question="Does a net trained with stochastic depth depend less on each block?",
        method=f"The residual net of {depth} layers is trained again with stochastic "
        "depth: every step drops each branch at random. The drop probability grows "
        f"linearly to {trained:g} at the last branch. Evaluation scales each branch by "
        "its survival probability. Then blocks are removed at random from both nets.",
        sources=[papers.HUANG, papers.VEIT],
        figures=[
            page.Figure(
                "stochastic_depth",
                "Test error over the number of removed blocks, for training with and "
                "without stochastic depth.",
                "Test error with blocks removed at random.",
            )
        ],
        tables=[
            page.Table(
                f"Test error (%) of residual nets of {depth} layers; "
                f"{tables.seeds(rows)}.",
                ("blocks removed", *(f"death rate {rate:g}" for rate in rates)),
                [
                    (str(n), *(tables.percent(errors[rate, n]) for rate in rates))
                    for n in counts
                ],
            )
        ],
        findings=[
            claims.below(
                "Removing blocks harms the net trained with stochastic depth less.",
                *(rise(trained), rise(usual)),
                *(tables.percent, "{} removed"),
            ),
            claims.below(
                "When intact, the net trained with stochastic depth has the lower test "
                "error.",
                *(errors[trained, 0], errors[usual, 0]),
                *(tables.percent, f"death rate {trained:g}"),
            ),
        ],
        remark="Huang et al. train for hundreds of epochs, which lets a net of lower "
        "expected depth catch up. A few epochs put it at a disadvantage.",
    )


def summary(rows: pd.DataFrame) -> Iterator[tuple[str, float]]:
    """Test error (%) by death rate and blocks removed."""
    for (rate, count), own in rows.groupby(["death_rate", "removed"], sort=False):
        what = f"death rate {rate:g}, {count} blocks removed"
        yield f"test error (%), {what}", 100 * own["error"].mean()


ANALYSIS = analysis.Analysis(
    *(measure, section, draw, summary),
    check=check,
    wants=lambda group, own: (group.family, group.depth) == ("residual", own["depth"]),
    long=True,
)
