"""Figures of a study, drawn from its tables."""

import math
import pathlib
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib import ticker

from cnn_jax.plots.curves import seeds_of
from cnn_jax.plots.style import FIGURE_STYLE, depth_styles, name_lines, save, style_of
from cnn_jax.study.results import over_seeds

if TYPE_CHECKING:
    import pandas

ACROSS = 3  # panels of training curves per row


def depth_vs_error(
    table: "pandas.DataFrame",
    directory: pathlib.Path,
    title: str,
    held_out: str = "test",
) -> None:
    """The degradation plot: final training and test error against depth.

    The training error is the clean one (evaluation mode, training images
    without augmentation). Lines connect the means over seeds. With several seeds,
    bars show +- one sample standard deviation. Faint points are the single seeds.

    Args:
      table: from `cnn_jax.study.load`, with at least one finished run.
      directory: the output directory for ``depth_vs_error.png``, ``.svg``, ``.pdf``.
      title: the dataset's name, for the title.
      held_out: kind of the held-out set, see `cnn_jax.study.held_out`.
    """
    finished = table[table["status"] == "finished"]
    families = sorted(set(finished["family"]))
    columns = {
        "clean_train_error": "clean training error (%)",
        "test_error": f"{held_out} error (%)",
    }
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = plt.subplots(
            1, 2, figsize=(8.2, 3.9), sharex=True, sharey=True
        )
        for panel, (column, label) in zip(panels, columns.items(), strict=True):
            means = over_seeds(finished, column)
            lines = []
            for family in families:
                style = style_of(family, families)
                own = means[means["family"] == family]
                lines += panel.plot(
                    own["depth"], 100 * own["mean"], markersize=5, **style
                )
                panel.errorbar(
                    own["depth"],
                    100 * own["mean"],
                    100 * own["std"],  # NaN for a single seed: no bar
                    fmt="none",
                    capsize=3,
                    ecolor=style["color"],
                )
                seeds = finished[finished["family"] == family]
                panel.plot(
                    seeds["depth"],
                    100 * seeds[column],
                    **{**style, "linestyle": "none"},
                    markersize=3,
                    alpha=0.45,
                    markeredgewidth=0,
                )
            panel.set_xlabel("depth (weight layers)")
            panel.set_ylabel(label)
        panels[0].set_xticks(sorted(set(finished["depth"])))
        # Set limits last: this ends autoscaling for all panels that share the axis.
        panels[0].set_ylim(bottom=min(0, panels[0].get_ylim()[0]))
        name_lines(figure, lines, families)
        figure.suptitle(f"{title}: final error over depth, {seeds_of(finished)}")
        save(figure, directory, "depth_vs_error")


def training_curves(
    logs: "pandas.DataFrame",
    directory: pathlib.Path,
    title: str,
    held_out: str = "test",
) -> None:
    """Training curves: error over steps, thin for training and bold for test.

    The layout follows He et al. (2015), figures 1 and 6: one panel per family, one
    colour and dash pattern per depth. The training error is the running one (augmented
    images, batch statistics). Lines are means over seeds; bands show +- one standard
    deviation of the test error.

    Args:
      logs: of finished runs, from `cnn_jax.study.logs`.
      directory: the output directory for ``training_curves.png``, ``.svg``, ``.pdf``.
      title: the dataset's name, for the title.
      held_out: kind of the held-out set, see `cnn_jax.study.held_out`.
    """
    families, depths = sorted(set(logs["family"])), sorted(set(logs["depth"]))
    looks = depth_styles(depths)
    across = min(ACROSS, len(families))
    down = math.ceil(len(families) / across)
    with plt.rc_context(FIGURE_STYLE):
        figure, grid = plt.subplots(
            down,
            across,
            figsize=(4.2 * across, 3.4 * down + 0.6),
            sharex=True,
            sharey=True,
            squeeze=False,
        )
        lines = {}
        for panel, family in zip(grid.flat, families, strict=False):
            for depth in depths:
                look = dict(looks[depth])
                runs = logs[(logs["family"] == family) & (logs["depth"] == depth)]
                if runs.empty:  # the study was stopped
                    continue
                training = curve(runs, "running_train_error")
                panel.plot(training.index, 100 * training["mean"], lw=0.8, **look)
                test = curve(runs, "test_error")
                # A run that is evaluated only once gives a point.
                look["marker"] = "o" if len(test) == 1 else ""
                [lines[depth]] = panel.plot(
                    test.index, 100 * test["mean"], lw=2.2, **look
                )
                panel.fill_between(
                    test.index,
                    100 * (test["mean"] - test["std"]),
                    100 * (test["mean"] + test["std"]),
                    color=look["color"],
                    alpha=0.15,
                    linewidth=0,
                )
            panel.set_title(family)
            panel.set_xlabel("optimizer step")
            panel.xaxis.set_major_locator(ticker.MaxNLocator(4, integer=True))
            panel.xaxis.set_major_formatter("{x:,.0f}")
            panel.tick_params(labelbottom=True)
        for panel in grid.flat[len(families) :]:
            panel.set_axis_off()
        for panel in grid[:, 0]:
            panel.set_ylabel("error (%)")
        grid[0, 0].set_ylim(bottom=0)
        name_lines(
            figure,
            [lines[depth] for depth in sorted(lines)],
            [f"{depth} layers" for depth in sorted(lines)],
        )
        words = f"thin: training (running), bold: {held_out}"
        figure.suptitle(f"{title}: {words}")
        save(figure, directory, "training_curves")


def curve(logs: "pandas.DataFrame", column: str) -> "pandas.DataFrame":
    """Statistics over seeds of a logged metric, by step.

    Args:
      logs: rows of one family and depth, from `cnn_jax.study.logs`.
      column: the metric.

    Returns:
      The columns ``mean`` and ``std`` (sample standard deviation; 0 for a single
      seed), indexed by the steps at which every seed logged the metric.
    """
    seeds = logs.pivot(index="step", columns="seed", values=column).dropna()
    return seeds.agg(["mean", "std"], axis=1).fillna(0)
