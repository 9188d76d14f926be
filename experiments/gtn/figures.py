"""Figures of graph transformer networks; nothing here trains."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from cnn_jax.plots.style import FIGURE_STYLE, save

STRING, DIGIT = "#0072B2", "#D55E00"


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What a system sees in a line.

    Attributes:
      image: the line, (height, width).
      label: its digits.
      cut: column in front of which each cut is.
      present: pieces that there are, (cuts, pieces).
      posterior: posterior probability of each arc, (cuts, pieces, classes).
      source: cuts where the arcs of the best path begin.
      target: cuts where they end.
      read: their labels.
    """

    image: np.ndarray
    label: np.ndarray
    cut: np.ndarray
    present: np.ndarray
    posterior: np.ndarray
    source: np.ndarray
    target: np.ndarray
    read: np.ndarray


def reading_errors(
    rows: Sequence[Mapping[str, Any]],
    titles: Mapping[str, str],
    directory: pathlib.Path,
    title: str,
) -> None:
    """String and digit error of each system: mean, sample std, every seed.

    Args:
      rows: 'system', 'seed', 'string_error' and 'digit_error' (fractions).
      titles: what each system is called, in the order of the figure.
      directory: receives ``reading_errors.png`` and ``.svg``.
      title: what was read.
    """
    seeds = len({row["seed"] for row in rows})
    with plt.rc_context(FIGURE_STYLE):
        figure, panel = plt.subplots(figsize=(7.2, 0.7 * len(titles) + 1.4))
        for place, system in enumerate(titles):
            own = [row for row in rows if row["system"] == system]
            for shift, key, color, marker in (
                (-0.12, "string_error", STRING, "o"),
                (0.12, "digit_error", DIGIT, "s"),
            ):
                values = 100 * np.array([row[key] for row in own])
                std = values.std(ddof=1) if len(values) > 1 else 0.0
                panel.errorbar(
                    values.mean(),
                    place + shift,
                    xerr=std,
                    color=color,
                    marker=marker,
                    capsize=3,
                    linestyle="none",
                    label=key.replace("_", " ") if not place else None,
                )
                panel.plot(
                    values,
                    np.full(len(values), place + shift),
                    color=color,
                    marker=marker,
                    markersize=3,
                    alpha=0.45,
                    linestyle="none",
                    markeredgewidth=0,
                )
        panel.set_yticks(range(len(titles)), list(titles.values()))
        panel.invert_yaxis()
        panel.set_xlim(left=0)
        panel.set_xlabel("error on held-out lines (%)")
        panel.legend(loc="upper right")
        plural = "s" if seeds != 1 else ""
        figure.suptitle(f"{title}: mean ± std of {seeds} seed{plural}", fontsize=11)
        save(figure, directory, "reading_errors")


def segmentation(
    seen: Sequence[Explanation], titles: Sequence[str], directory: pathlib.Path
) -> None:
    """The segmentation graph of a line under the line, its best path in colour.

    An arc under the image is a piece between two cuts, as wide as the posterior
    probability that it is a digit of the string (the gradient of the forward
    score); those of the best path carry what is read.

    Args:
      seen: what each system sees in the line.
      titles: what each system is called.
      directory: receives ``segmentation.png`` and ``.svg``.
    """
    with plt.rc_context({**FIGURE_STYLE, "axes.grid": False}):
        figure, panels = plt.subplots(
            1, len(seen), figsize=(4.4 * len(seen), 4.2), squeeze=False
        )
        for panel, one, title in zip(panels[0], seen, titles, strict=True):
            height, width = one.image.shape
            panel.imshow(one.image, cmap="gray_r", extent=(0, width, height, 0))
            panel.vlines(one.cut, 0, height + 4, color="#888888", linewidth=0.8)
            panel.plot(one.cut, np.full(len(one.cut), height + 4), "ko", markersize=4)
            taken = {
                (int(source), int(target)): int(label)
                for source, target, label in zip(
                    one.source, one.target, one.read, strict=True
                )
            }
            for target in range(len(one.cut)):
                for piece in range(one.posterior.shape[1]):
                    source = target - 1 - piece
                    if not one.present[target, piece]:
                        continue
                    mass = float(one.posterior[target, piece].sum())
                    on_path = (source, target) in taken
                    left, right = one.cut[source], one.cut[target]
                    sweep = np.linspace(0, np.pi, 40)
                    depth = 4 + 7 * piece
                    panel.plot(
                        (left + right) / 2 - (right - left) / 2 * np.cos(sweep),
                        height + 4 + depth * np.sin(sweep),
                        color=DIGIT if on_path else "#444444",
                        linewidth=0.4 + 2.6 * mass,
                        alpha=1.0 if on_path else 0.6,
                        zorder=3 if on_path else 2,
                    )
                    if on_path:
                        panel.text(
                            (left + right) / 2,
                            height + 6 + depth,
                            str(taken[source, target]),
                            ha="center",
                            va="top",
                            color=DIGIT,
                            fontweight="bold",
                        )
            panel.set_xlim(one.cut[0] - 6, one.cut[-1] + 6)
            panel.set_ylim(height + 8 + 7 * one.posterior.shape[1], -1)
            panel.set_axis_off()
            spelled = "".join(map(str, one.label.tolist()))
            read = "".join(map(str, one.read.tolist()))
            panel.set_title(f"{title}\n{spelled} is read as {read}", fontsize=10)
        save(figure, directory, "segmentation")


def speed(rows: Sequence[Mapping[str, Any]], directory: pathlib.Path) -> None:
    """Time to train on a string over its length.

    Args:
      rows: 'length' and 'ms_per_string'.
      directory: receives ``speed.png`` and ``.svg``.
    """
    length = np.array([row["length"] for row in rows])
    spent = np.array([row["ms_per_string"] for row in rows])
    with plt.rc_context(FIGURE_STYLE):
        figure, panel = plt.subplots(figsize=(4.6, 3.4))
        panel.plot(length, spent, color=STRING, marker="o", label="measured")
        panel.plot(
            length,
            spent[0] / length[0] * length,
            color="#888888",
            linestyle=":",
            label="in proportion",
        )
        panel.set_xlabel("digits of a string")
        panel.set_ylabel("training time of a string (ms)")
        panel.set_xlim(left=0)
        panel.set_ylim(bottom=0)
        panel.legend(loc="upper left")
        save(figure, directory, "speed")
