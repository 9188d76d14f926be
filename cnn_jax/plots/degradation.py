"""Figures of a study from its collected rows; nothing here trains."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from cnn_jax.plots.style import FIGURE_STYLE, LINES, save, style_of
from cnn_jax.study.results import Row, summarize


def depth_vs_error(
    rows: Sequence[Row], directory: pathlib.Path, title: str, held_out: str = "test"
) -> None:
    """The degradation plot: final training and test error over depth.

    The training error is the clean one (evaluation mode, every training example
    once, no augmentation). Lines join means over seeds; bars are +- one sample
    standard deviation; every seed is a faint point.

    Args:
      rows: from `cnn_jax.study.collect`.
      directory: receives ``depth_vs_error.png`` and ``.svg``.
      title: what was trained on.
      held_out: what the test error is of, see `cnn_jax.study.held_out`.
    """
    finished = [row for row in rows if row["status"] == "finished"]
    families = sorted({row["family"] for row in finished})
    seeds = len({row["seed"] for row in finished})
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = plt.subplots(
            1, 2, figsize=(8.2, 3.6), sharex=True, sharey=True
        )
        names = ("clean_train_error", "test_error")
        labels = ("training error, clean (%)", f"{held_out} error (%)")
        for panel, column, label in zip(panels, names, labels, strict=True):
            cells = summarize(finished, column)
            for family in families:
                style = style_of(family, families)
                own = [cell for cell in cells if cell.family == family]
                depths = [cell.depth for cell in own]
                panel.errorbar(
                    depths,
                    [100 * cell.mean for cell in own],
                    [100 * cell.std for cell in own],
                    capsize=3,
                    markersize=5,
                    label=family,
                    **style,
                )
                for cell in own:
                    panel.plot(
                        [cell.depth] * len(cell.values),
                        [100 * value for value in cell.values],
                        linestyle="none",
                        marker=style["marker"],
                        color=style["color"],
                        markersize=3,
                        alpha=0.45,
                        markeredgewidth=0,
                    )
            panel.set_xlabel("depth (weight layers)")
            panel.set_ylabel(label)
            panel.set_xticks(sorted({cell.depth for cell in cells}))
            panel.set_ylim(bottom=min(0, panel.get_ylim()[0]))
        panels[0].legend(loc="upper left")
        over = f"mean ± std of {seeds} seeds" if seeds > 1 else "1 seed"
        figure.suptitle(f"{title}: final error over depth, {over}", fontsize=11)
        save(figure, directory, "depth_vs_error")


def training_curves(
    rows: Sequence[Row],
    logs: Mapping[str, Sequence[Mapping[str, Any]]],
    directory: pathlib.Path,
    title: str,
    held_out: str = "test",
) -> None:
    """Error over steps: thin lines training, bold lines test.

    The arrangement of He et al. (2015), figures 1 and 6: one panel a family, one
    colour and dash a depth. The training error is the running one (augmented images,
    batch statistics); lines are means over seeds, bands +- one std of the test
    error.

    Args:
      rows: from `cnn_jax.study.collect`.
      logs: log rows by run name, from the same.
      directory: receives ``training_curves.png`` and ``.svg``.
      title: what was trained on.
      held_out: what the test error is of, see `cnn_jax.study.held_out`.
    """
    finished = [row for row in rows if row["status"] == "finished"]
    families = sorted({row["family"] for row in finished})
    depths = sorted({row["depth"] for row in finished})
    colors = matplotlib.colormaps["cividis"](np.linspace(0.0, 0.75, len(depths)))
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = plt.subplots(
            1,
            len(families),
            figsize=(4.2 * len(families), 3.8),
            sharey=True,
            squeeze=False,
        )
        for panel, family in zip(panels[0], families, strict=True):
            for index, (depth, color) in enumerate(zip(depths, colors, strict=True)):
                look = {"color": color, "linestyle": LINES[index % len(LINES)]}
                runs = [
                    logs[f"{family}-{depth}-seed{row['seed']}"]
                    for row in finished
                    if row["family"] == family and row["depth"] == depth
                ]
                if not runs:  # of a study that was stopped
                    continue
                steps, mean, _ = curve(runs, "running_train_error")
                panel.plot(steps, 100 * mean, linewidth=0.8, **look)
                steps, mean, std = curve(runs, "test_error")
                # A run that is evaluated at its end alone gives a point.
                look["marker"] = "o" if len(steps) == 1 else ""
                panel.plot(steps, 100 * mean, linewidth=2.2, label=f"{depth}", **look)
                panel.fill_between(
                    steps,
                    100 * (mean - std),
                    100 * (mean + std),
                    color=color,
                    alpha=0.15,
                    linewidth=0,
                )
            panel.set_title(family)
            panel.set_xlabel("optimizer step")
            panel.set_ylim(bottom=0)
        panels[0][0].set_ylabel("error (%)")
        # on the last panel of those that show the most depths
        fullest = max(panels[0][::-1], key=lambda panel: len(panel.lines))
        fullest.legend(title="layers", loc="upper right")
        lines = f"thin training (running), bold {held_out}"
        figure.suptitle(f"{title}: {lines}", fontsize=11)
        save(figure, directory, "training_curves")


def curve(
    runs: Sequence[Sequence[Mapping[str, Any]]], key: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A logged value over steps, over the seeds of a shape.

    Args:
      runs: the log rows of each seed.
      key: the value.

    Returns:
      Steps at which every seed has it, mean and sample std there.
    """
    series = [{row["step"]: row[key] for row in run if key in row} for run in runs]
    steps = sorted(set.intersection(*map(set, series))) if series else []
    values = np.array([[one[step] for step in steps] for one in series])
    values = values.reshape(len(series), len(steps))
    std = values.std(0, ddof=1) if len(series) > 1 else np.zeros(len(steps))
    return np.array(steps), values.mean(0) if series else values, std
