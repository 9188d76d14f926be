"""Figures of the analyses of `cnn_jax.analysis`, from their rows; nothing trains.

Rows are mappings with 'family', 'depth' and 'seed'. Lines join means over seeds,
bands are +- one sample standard deviation (of the logarithm on logarithmic axes).
Depths differ by dash as well as by colour, and colours differ in lightness.
"""

import pathlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import matplotlib.ticker
import numpy as np

from cnn_jax.plots import FIGURE_STYLE, LINES, OTHER_STYLES, STYLES, save, style_of

Row = Mapping[str, Any]

# A line may have a single point.
POINTS = {"marker": "o", "markersize": 2.5}


def seeds_of(rows: Iterable[Row]) -> str:
    """'mean ± std of 3 seeds', as titles say it."""
    count = len({row["seed"] for row in rows})
    return f"mean ± std of {count} seeds" if count > 1 else "one seed"


def grouped(rows: Iterable[Row], *keys: str) -> dict[Hashable, list[Row]]:
    """Rows by the values of some columns, ascending."""
    found: dict[Hashable, list[Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in keys)
        found.setdefault(key if len(keys) > 1 else key[0], []).append(row)
    return dict(sorted(found.items()))


def over_seeds(
    rows: Iterable[Row], x: str, y: str, logarithmic: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A column against another, over seeds.

    Args:
      rows: those of one line.
      x: column of the abscissa.
      y: column of the ordinate.
      logarithmic: take mean and spread of the logarithm.

    Returns:
      Abscissae, means, and the lower and upper end of the band.
    """
    found = grouped(rows, x)
    middle, low, high = [], [], []
    for members in found.values():
        # Several values of a seed (draws) count as one: the spread is that of seeds.
        values = np.array(
            [
                np.mean([row[y] for row in of_seed])
                for of_seed in grouped(members, "seed").values()
            ]
        )
        if logarithmic:
            values = np.log(np.maximum(values, 1e-300))
        std = values.std(ddof=1) if len(values) > 1 else 0.0
        ends = np.array([values.mean(), values.mean() - std, values.mean() + std])
        ends = np.exp(ends) if logarithmic else ends
        for place, value in zip((middle, low, high), ends, strict=True):
            place.append(value)
    return np.array(list(found), float), np.array(middle), np.array(low), np.array(high)


def looks_of_depths(rows: Iterable[Row]) -> dict[int, dict[str, Any]]:
    """Colour and dash of each depth; the deepest is darkest."""
    depths = sorted({row["depth"] for row in rows}, reverse=True)
    colors = matplotlib.colormaps["cividis"](np.linspace(0.0, 0.8, len(depths)))
    looks = {
        depth: {"color": color, "linestyle": LINES[index % len(LINES)]}
        for index, (depth, color) in enumerate(zip(depths, colors, strict=True))
    }
    return dict(sorted(looks.items()))


def draw_line(
    panel: Any, rows: Iterable[Row], x: str, y: str, label: str, **look: Any
) -> None:
    """Means over seeds as a line, in a band of one standard deviation.

    Args:
      panel: axes; on a logarithmic ordinate, mean and spread are of the logarithm.
      rows: those of one line.
      x: column of the abscissa.
      y: column of the ordinate.
      label: for the legend; '' for none.
      **look: of the line.
    """
    logarithmic = panel.get_yscale() == "log"
    places, middle, low, high = over_seeds(rows, x, y, logarithmic)
    panel.plot(places, middle, label=label or None, **look)
    panel.fill_between(
        places, low, high, color=look["color"], alpha=0.15, linewidth=0, zorder=1
    )


def draw_families(
    panels: Any, rows: Sequence[Row], x: str, y: str, title: str, **look: Any
) -> None:
    """One panel a family, one line a depth.

    Args:
      panels: an axes for each family, in the order of their names.
      rows: those of these panels.
      x: column of the abscissa.
      y: column of the ordinate.
      title: format of a panel's title, of the family.
      **look: of every line.
    """
    looks = looks_of_depths(rows)
    families = sorted({row["family"] for row in rows})
    for panel, family in zip(panels, families, strict=True):
        own = [row for row in rows if row["family"] == family]
        for depth, members in grouped(own, "depth").items():
            style = {"linewidth": 1.6, **looks[depth], **look}
            draw_line(panel, members, x, y, f"{depth}", **style)
        panel.set_title(title.format(family), fontsize=10)


def grid_of(rows: Sequence[Row], lines: int, **fields: Any) -> tuple[Any, Any]:
    """A figure of some lines of panels, one column a family."""
    families = len({row["family"] for row in rows})
    fields = {"sharex": True, "sharey": True, "squeeze": False, **fields}
    size = (4.0 * families, 2.6 * lines + 0.6)
    return plt.subplots(lines, families, figsize=size, **fields)


def gradients(rows: Sequence[Row], directory: pathlib.Path, title: str) -> None:
    """Gradient norm of each layer, at initialisation, after and along training.

    Args:
      rows: 'step', 'layer' and 'gradient_norm'.
      directory: receives ``gradients.png``, and ``gradients_along_training.png``
        where there are steps in between (and ``.svg``).
      title: what was trained on.
    """
    last = max(row["step"] for row in rows)
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = grid_of(rows, 2, sharey="row")
        for panel in panels.flat:
            panel.set_yscale("log")
        for line, step in zip(panels, (0, last), strict=True):
            when = f"after {step} steps" if step else "at initialisation"
            own = [row for row in rows if row["step"] == step]
            draw_families(line, own, "layer", "gradient_norm", f"{{}}, {when}")
            line[0].set_ylabel("gradient norm of the layer")
        for panel in panels[-1]:
            panel.set_xlabel("layer, from the input")
        panels[0][-1].legend(title="layers", loc="upper right", ncols=2)
        figure.suptitle(f"{title}: gradient reach, {seeds_of(rows)}", fontsize=11)
        save(figure, directory, "gradients")
    steps = sorted({row["step"] for row in rows} - {0, last})
    if steps:
        _gradients_along_training(rows, [0, *steps, last], directory, title)


def _gradients_along_training(
    rows: Sequence[Row], steps: Sequence[int], directory: pathlib.Path, title: str
) -> None:
    """One panel a family and depth, one line a step: gradient norm over layers."""
    depths = sorted({row["depth"] for row in rows if row["step"] in steps[1:-1]})
    rows = [row for row in rows if row["depth"] in depths]
    colors = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, len(steps)))
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = grid_of(rows, len(depths), sharex="row", sharey="row")
        for line, depth in zip(panels, depths, strict=True):
            of_depth = [row for row in rows if row["depth"] == depth]
            families = grouped(of_depth, "family")
            for panel, (family, own) in zip(line, families.items(), strict=True):
                panel.set_yscale("log")
                for index, (step, members) in enumerate(grouped(own, "step").items()):
                    look = {
                        "color": colors[steps.index(step)],
                        "linestyle": LINES[index % len(LINES)],
                        "linewidth": 1.4,
                    }
                    draw_line(
                        panel, members, "layer", "gradient_norm", f"{step}", **look
                    )
                panel.set_title(f"{family}, {depth} layers", fontsize=10)
            line[0].set_ylabel("gradient norm of the layer")
        for panel in panels[-1]:
            panel.set_xlabel("layer, from the input")
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, title="step", loc="outside right center")
        figure.suptitle(
            f"{title}: gradients along training, {seeds_of(rows)}", fontsize=11
        )
        save(figure, directory, "gradients_along_training")


def responses(rows: Sequence[Row], directory: pathlib.Path, title: str) -> None:
    """Layer responses in order, sorted, and over depth (He et al. 2015, figure 7).

    Args:
      rows: 'layer' and 'std'.
      directory: receives ``responses.png`` and ``.svg``.
      title: what was trained on.
    """
    ranked, wholes = [], []
    for members in grouped(rows, "family", "depth", "seed").values():
        largest_first = sorted(members, key=lambda row: -row["std"])
        ranked += [{**r, "rank": n} for n, r in enumerate(largest_first, start=1)]
        values = [row["std"] for row in members]
        wholes.append(
            {**members[0], "mean": np.mean(values), "median": np.median(values)}
        )
    families = sorted({row["family"] for row in rows})
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = plt.subplots(
            2,
            len(families) + 1,
            figsize=(3.7 * (len(families) + 1), 6.0),
            squeeze=False,
        )
        for line, x, label in (
            (panels[0], "layer", "3x3 layer, from the input"),
            (panels[1], "rank", "3x3 layers, largest first"),
        ):
            for panel in line[:-1]:
                panel.sharey(panels[0][0])
                panel.set_xlabel(label)
                panel.set_yscale("log")
            order = "in order" if x == "layer" else "sorted"
            draw_families(line[:-1], ranked, x, "std", f"{{}}, {order}")
            line[0].set_ylabel("std of the response")
        for panel, y in zip(panels[:, -1], ("mean", "median"), strict=True):
            panel.set_yscale("log")
            for family in families:
                own = [row for row in wholes if row["family"] == family]
                style = style_of(family, families)
                draw_line(panel, own, "depth", y, family, markersize=4, **style)
            panel.set_title(f"{y} over layers", fontsize=10)
            panel.set_xlabel("depth (weight layers)")
            panel.set_xticks(sorted({row["depth"] for row in rows}))
            plain_numbers(panel.yaxis)
        panels[0][-2].legend(title="layers", loc="upper right", ncols=2)
        panels[0][-1].legend(loc="upper left")
        figure.suptitle(
            f"{title}: layer responses on the training set, {seeds_of(rows)}",
            fontsize=11,
        )
        save(figure, directory, "responses")


def plain_numbers(axis: Any) -> None:
    """Ticks of a logarithmic axis as '0.9' and '2', also between powers of ten."""
    form = matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}")
    axis.set_major_formatter(form)
    axis.set_minor_formatter(form)


def linearity(rows: Sequence[Row], directory: pathlib.Path, title: str) -> None:
    """How far each block is from the identity.

    Args:
      rows: 'block' and 'change'.
      directory: receives ``linearity.png`` and ``.svg``.
      title: what was trained on.
    """
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = grid_of(rows, 1)
        draw_families(panels[0], rows, "block", "change", "{}", **POINTS)
        panels[0][0].set_ylabel("‖output - input‖ / ‖input‖")
        for panel in panels[0]:
            panel.set_ylim(bottom=0)
            panel.set_xlabel("block, from the input")
        panels[0][-1].legend(title="layers", loc="upper right", ncols=2)
        figure.suptitle(
            f"{title}: distance of blocks from the identity, {seeds_of(rows)}",
            fontsize=11,
        )
        save(figure, directory, "linearity")


def shattered(rows: Sequence[Row], directory: pathlib.Path, title: str) -> None:
    """Likeness of gradients at an image and where it has moved.

    Args:
      rows: 'step', 'distance' and 'correlation'.
      directory: receives ``shattered.png`` and ``.svg``.
      title: what was trained on.
    """
    last = max(row["step"] for row in rows)
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = grid_of(rows, 2)
        for line, step in zip(panels, (0, last), strict=True):
            when = f"after {step} steps" if step else "at initialisation"
            own = [row for row in rows if row["step"] == step]
            draw_families(line, own, "distance", "correlation", f"{{}}, {when}")
            line[0].set_ylabel("cosine of gradients")
        for panel in panels[-1]:
            panel.set_xscale("log")
            panel.set_xlabel("distance / ‖image‖")
        panels[0][-1].legend(title="layers", loc="lower left", ncols=2)
        figure.suptitle(
            f"{title}: input gradients at nearby images, {seeds_of(rows)}", fontsize=11
        )
        save(figure, directory, "shattered")


def grid(rows: Sequence[Row], directory: pathlib.Path, title: str) -> None:
    """Autocorrelation of the derivative of random nets of a scalar.

    Args:
      rows: 'lag' and 'autocorrelation'.
      directory: receives ``grid.png`` and ``.svg``.
      title: not used: these nets are trained on nothing.
    """
    del title
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = grid_of(rows, 1)
        draw_families(panels[0], rows, "lag", "autocorrelation", "{}")
        panels[0][0].set_ylabel("autocorrelation")
        for panel in panels[0]:
            panel.set_xlabel("lag (grid points)")
            panel.xaxis.get_major_locator().set_params(integer=True)
        panels[0][0].legend(title="layers", loc="center right", ncols=2)
        figure.suptitle(
            "derivative of random nets of one input: "
            + seeds_of(rows).replace("seeds", "nets"),
            fontsize=11,
        )
        save(figure, directory, "grid")


def lesions(rows: Sequence[Row], directory: pathlib.Path, title: str) -> None:
    """Test error with blocks removed or exchanged (Veit et al. 2016, figures 3 to 5).

    Args:
      rows: 'kind', 'count', 'block', 'kendall_tau' and 'error'.
      directory: receives ``lesions.png`` and ``.svg``.
      title: what was trained on.
    """
    percent = [{**row, "percent": 100 * row["error"]} for row in rows]
    kinds = grouped(percent, "kind")
    # Zero blocks removed or exchanged are part of those lines.
    several = [*kinds["intact"], *kinds.get("several", [])]
    exchanged = [{**r, "kendall_tau": 1.0} for r in kinds["intact"]]
    for members in grouped(
        kinds.get("exchanged", []), "family", "depth", "count"
    ).values():
        tau = float(np.mean([row["kendall_tau"] for row in members]))
        exchanged += [{**row, "kendall_tau": tau} for row in members]
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = grid_of(rows, 3, sharex="row")
        for line, own, x, what in (
            (panels[0], kinds.get("one", []), "block", "one block removed"),
            (panels[1], several, "count", "several blocks removed"),
            (panels[2], exchanged, "kendall_tau", "blocks exchanged"),
        ):
            draw_families(line, own, x, "percent", f"{{}}, {what}", **POINTS)
            line[0].set_ylabel("test error (%)")
        for panels_of_line, label in zip(
            panels,
            ("block removed, from the input", "blocks removed", "Kendall's tau"),
            strict=True,
        ):
            for panel in panels_of_line:
                panel.set_xlabel(label)
        for panel in panels[2]:
            panel.set_ylim(0, 100)
        panels[2][0].invert_xaxis()
        panels[0][-1].legend(title="layers", loc="upper right", ncols=2)
        figure.suptitle(f"{title}: lesions, {seeds_of(rows)}", fontsize=11)
        save(figure, directory, "lesions")


def paths(rows: Sequence[Row], directory: pathlib.Path, title: str) -> None:
    """Paths by length: how many, their gradient, and both (Veit et al., figure 6).

    Args:
      rows: 'length', 'share', 'gradient' and 'contribution'.
      directory: receives ``paths.png`` and ``.svg``.
      title: what was trained on.
    """
    whole = {
        key: sum(row["contribution"] for row in members)
        for key, members in grouped(rows, "depth", "seed").items()
    }
    rows = [
        {**row, "part": row["contribution"] / whole[row["depth"], row["seed"]]}
        for row in rows
    ]
    # Beyond some length nothing is left that float32 could hold.
    rows = [row for row in rows if row["gradient"] > 0]
    looks = looks_of_depths(rows)
    with plt.rc_context(FIGURE_STYLE):
        figure, panels = plt.subplots(1, 3, figsize=(11, 3.3))
        panels[1].set_yscale("log")
        for panel, y, label in zip(
            panels,
            ("share", "gradient", "part"),
            ("share of the paths", "gradient norm at the input", "share of gradient"),
            strict=True,
        ):
            for depth, members in grouped(rows, "depth").items():
                draw_line(panel, members, "length", y, f"{depth}", **looks[depth])
            panel.set_xlabel("path length (branches)")
            panel.set_ylabel(label)
        panels[0].legend(title="layers", loc="upper right")
        figure.suptitle(
            f"{title}: paths through residual nets, {seeds_of(rows)}", fontsize=11
        )
        save(figure, directory, "paths")


def stochastic_depth(rows: Sequence[Row], directory: pathlib.Path, title: str) -> None:
    """Test error over blocks removed, of nets trained at one depth and at many.

    Args:
      rows: 'death_rate', 'removed' and 'error'.
      directory: receives ``stochastic_depth.png`` and ``.svg``.
      title: what was trained on.
    """
    looks = (
        {**STYLES["residual"], "label": "as usual"},
        {**OTHER_STYLES[0], "label": "with stochastic depth"},
    )
    percent = [{**row, "percent": 100 * row["error"]} for row in rows]
    with plt.rc_context(FIGURE_STYLE):
        figure, panel = plt.subplots(figsize=(6.4, 3.6))
        rates = grouped(percent, "death_rate")
        for members, look in zip(rates.values(), looks, strict=True):
            draw_line(panel, members, "removed", "percent", **look)
        panel.set_ylim(bottom=0)
        panel.set_xlabel("blocks removed")
        panel.set_ylabel("test error (%)")
        panel.legend(title="trained", loc="upper left")
        figure.suptitle(
            f"{title}: residual nets of {rows[0]['depth']} layers, {seeds_of(rows)}",
            fontsize=11,
        )
        save(figure, directory, "stochastic_depth")


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
