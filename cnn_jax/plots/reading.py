"""Figures of systems that read strings: errors, segmentation of a line, and speed."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas

from cnn_jax.analysis.reading import Explanation
from cnn_jax.plots.style import FIGURE_STYLE, save

STRING, DIGIT = "#0072B2", "#D55E00"


def reading_errors(
    table: pandas.DataFrame,
    names: Mapping[str, str],
    directory: pathlib.Path,
    title: str,
) -> None:
    """Plot the string and digit error of each system: mean, sample std, every seed.

    Args:
      table: 'system', 'seed', 'string_error' and 'digit_error' (fractions).
      names: display name of each system, in the order of the figure.
      directory: receives ``reading_errors.png``, ``.svg`` and ``.pdf``.
      title: title above the figure.
    """
    with plt.rc_context(FIGURE_STYLE):
        figure, panel = plt.subplots(figsize=(7.2, 0.7 * len(names) + 1.7))
        places = table["system"].map({name: y for y, name in enumerate(names)})
        for shift, key, color, marker in (
            (-0.12, "string_error", STRING, "o"),
            (0.12, "digit_error", DIGIT, "s"),
        ):
            over = (100 * table[key]).groupby(places).agg(["mean", "std"])
            style: Any = {"color": color, "marker": marker, "linestyle": "none"}
            panel.errorbar(
                over["mean"],
                over.index + shift,
                xerr=over["std"],  # NaN for a single seed: no bar
                capsize=3,
                label=key.replace("_", " "),
                **style,
            )
            small: Any = {"markersize": 3, "alpha": 0.45, "markeredgewidth": 0}
            panel.plot(100 * table[key], places + shift, **style, **small)
        panel.set_yticks(range(len(names)), list(names.values()))
        panel.invert_yaxis()
        panel.set_xlim(left=0)
        panel.set_xlabel("error on held-out lines (%)")
        figure.legend(loc="outside lower center", ncols=2)
        figure.suptitle(title)
        save(figure, directory, "reading_errors")


def segmentation(
    seen: Sequence[Explanation], titles: Sequence[str], directory: pathlib.Path
) -> None:
    """Plot the segmentation graph of a line below the line, its best path in colour.

    Each arc below the image is a piece between two cuts. Its line width is the
    posterior probability that the piece is a digit of the string (the gradient of the
    forward score). Arcs of the best path are labelled with the digits read.

    Args:
      seen: each system's segmentation of the line.
      titles: display name of each system.
      directory: receives ``segmentation.png``, ``.svg`` and ``.pdf``.
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
            arcs = zip(one.source.tolist(), one.target.tolist(), strict=True)
            taken = dict(zip(arcs, one.read.tolist(), strict=True))
            sweep = np.linspace(0, np.pi, 40)
            for target, piece in np.argwhere(one.present[: len(one.cut)]):
                source, depth = target - 1 - piece, 4 + 7 * piece
                label = taken.get((source, target))
                left, right = one.cut[source], one.cut[target]
                panel.plot(
                    (left + right) / 2 - (right - left) / 2 * np.cos(sweep),
                    height + 4 + depth * np.sin(sweep),
                    color="#444444" if label is None else DIGIT,
                    linewidth=0.4 + 2.6 * one.posterior[target, piece].sum(),
                    alpha=0.6 if label is None else 1.0,
                    zorder=2 if label is None else 3,
                )
                if label is not None:
                    panel.text(
                        (left + right) / 2,
                        height + 6 + depth,
                        str(label),
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


def speed(rows: pandas.DataFrame, directory: pathlib.Path) -> None:
    """Plot the training time per string against its length.

    Args:
      rows: 'length' and 'ms_per_string'.
      directory: receives ``speed.png``, ``.svg`` and ``.pdf``.
    """
    length, spent = rows["length"], rows["ms_per_string"]
    linear = spent[0] / length[0] * length
    with plt.rc_context(FIGURE_STYLE):
        figure, panel = plt.subplots(figsize=(4.6, 3.4))
        panel.plot(length, spent, color=STRING, marker="o", label="measured")
        panel.plot(length, linear, ":", color="#888888", label="proportional to length")
        panel.set_xlabel("digits per string")
        panel.set_ylabel("training time per string (ms)")
        panel.set_xlim(left=0)
        panel.set_ylim(bottom=0)
        panel.legend(loc="upper left")
        save(figure, directory, "speed")
