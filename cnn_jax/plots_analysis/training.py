"""The figure of training error after layers were inserted."""

import pathlib
from collections.abc import Sequence

import matplotlib.pyplot as plt

from cnn_jax.plots.style import FIGURE_STYLE, STYLES, save
from cnn_jax.plots_analysis.drawing import Row, draw_line, seeds_of

INSERTIONS = {
    "none": ("nothing inserted", {"color": "#000000", "marker": "D", "linestyle": ":"}),
    "residual": ("residual, the identity", STYLES["residual"]),
    "plain_identity": (
        "plain, made the identity",
        {"color": "#009E73", "marker": "^", "linestyle": "-."},
    ),
    "plain_he": ("plain, He-initialised", STYLES["plain"]),
}


def insertion(rows: Sequence[Row], directory: pathlib.Path, title: str) -> None:
    """Training error after layers were inserted and training went on.

    Args:
      rows: 'how', 'blocks', 'rate', 'more_steps' and 'train_error'.
      directory: receives ``insertion.png`` and ``.svg``.
      title: what was trained on.
    """
    percent = [{**row, "percent": 100 * row["train_error"]} for row in rows]
    rates = sorted({row["rate"] for row in rows})
    counts = sorted({row["blocks"] for row in rows} - {0})
    steps = sorted({row["more_steps"] for row in rows})
    first = rows[0]
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = plt.subplots(
            len(rates),
            len(counts),
            figsize=(4.0 * len(counts), 2.6 * len(rates) + 1.0),
            sharex=True,
            sharey=True,
            squeeze=False,
        )
        for line, rate in zip(panels, rates, strict=True):
            for panel, count in zip(line, counts, strict=True):
                for how, (label, look) in INSERTIONS.items():
                    own = [
                        row
                        for row in percent
                        if row["how"] == how
                        and row["rate"] == rate
                        and row["blocks"] in (0, count)
                    ]
                    if own:
                        draw_line(
                            panel,
                            own,
                            "more_steps",
                            "percent",
                            label,
                            markersize=4,
                            linewidth=1.4,
                            **look,
                        )
                panel.set_title(f"{2 * count} layers more, rate {rate:g}", fontsize=10)
                panel.set_xscale("symlog", linthresh=1)
                panel.set_xticks(steps, [str(step) for step in steps])
                panel.set_yscale("symlog", linthresh=1)
                panel.set_yticks((0, 1, 10, 100), ("0", "1", "10", "100"))
                panel.minorticks_off()
                panel.set_ylim(0, 110)
            line[0].set_ylabel("training error, clean (%)")
        for panel in panels[-1]:
            panel.set_xlabel("steps after the insertion")
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        figure.suptitle(
            f"{title}: layers inserted in a trained {first['family']} net of "
            f"{first['depth']}, {seeds_of(rows)}",
            fontsize=11,
        )
        save(figure, directory, "insertion")
