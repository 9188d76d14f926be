"""What the figures share: rows in groups, lines in bands, panels in a grid.

Lines join means over seeds, bands are +- one sample standard deviation (of the
logarithm on logarithmic axes). Depths differ by dash as well as by colour, and
colours differ in lightness.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import matplotlib.ticker
import numpy as np

from cnn_jax.plots.style import LINES

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


def plain_numbers(axis: Any) -> None:
    """Ticks of a logarithmic axis as '0.9' and '2', also between powers of ten."""
    form = matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}")
    axis.set_major_formatter(form)
    axis.set_minor_formatter(form)
