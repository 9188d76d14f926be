"""Curves over several seeds: means with bands, and panels of families.

Lines join means over seeds. Bands are +- one sample standard deviation (of the
logarithm on logarithmic axes). A missing number leaves a gap in the line.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import matplotlib.ticker
import numpy as np

from cnn_jax.plots.style import name_lines

if TYPE_CHECKING:
    import pandas

# A line may have a single point.
POINTS = {"marker": "o", "markersize": 2.5}


def seed_counts(rows: "pandas.DataFrame") -> list[int]:
    """The distinct numbers of seeds of the families and depths, ascending."""
    return sorted(set(rows.groupby(["family", "depth"])["seed"].nunique()))


def seeds_of(rows: "pandas.DataFrame", what: str = "seeds") -> str:
    """A phrase for titles, such as 'mean ± std of 3 seeds' or '1 seed'.

    Args:
      rows: with 'family', 'depth' and 'seed'.
      what: a word for the seeds.
    """
    counts = [f"{count}" for count in seed_counts(rows)]
    if counts == ["1"]:
        return f"1 {what.removesuffix('s')}"
    return (
        f"mean ± std of {' to '.join(sorted({counts[0], counts[-1]}, key=int))} {what}"
    )


def mean_and_band(
    rows: "pandas.DataFrame", x: str, y: str, logarithmic: bool = False
) -> "pandas.DataFrame":
    """Mean and spread over seeds of one column against another.

    Args:
      rows: rows of one line.
      x: column of the abscissa.
      y: column of the ordinate.
      logarithmic: take mean and spread of the logarithm; values that are not positive
        then count as missing.

    Returns:
      'mean', and 'low' and 'high' (the ends of the band), by abscissa.
    """
    # Several values of a seed (draws) count as one: the spread is over seeds.
    values = rows.groupby([x, "seed"])[y].mean()
    if logarithmic:
        values = np.log(values.where(values > 0))
    groups = values.groupby(x)
    mean = groups.agg(lambda own: own.mean(skipna=False))
    std = groups.std().fillna(0)
    found = mean.to_frame("mean").assign(low=mean - std, high=mean + std)
    return np.exp(found) if logarithmic else found


def draw_line(panel: Any, rows: "pandas.DataFrame", x: str, y: str, **look: Any) -> Any:
    """Draw means over seeds as a line with a band of one standard deviation.

    Args:
      panel: axes; on a logarithmic ordinate, mean and spread are of the logarithm.
      rows: rows of one line.
      x: column of the abscissa.
      y: column of the ordinate.
      **look: matplotlib's properties of the line.

    Returns:
      The line.
    """
    found = mean_and_band(rows, x, y, panel.get_yscale() == "log")
    [line] = panel.plot(found.index, found["mean"], **look)
    band = {"color": look["color"], "alpha": 0.15, "linewidth": 0, "zorder": 1}
    if found["mean"].notna().any():
        panel.fill_between(found.index, found["low"], found["high"], **band)
    return line


def draw_lines(
    panel: Any,
    rows: "pandas.DataFrame",
    by: str,
    x: str,
    y: str,
    styles: Mapping[Any, Mapping[str, Any]],
    **look: Any,
) -> dict[Any, Any]:
    """Draw a line for each value of a column, see `draw_line`.

    Args:
      panel: axes.
      rows: rows of all lines.
      by: the column with one line per value.
      x: column of the abscissa.
      y: column of the ordinate.
      styles: colour, dash and marker of each line, by value of the column.
      **look: matplotlib's properties of every line; those of a style come first.

    Returns:
      The lines, by value.
    """
    return {
        value: draw_line(panel, own, x, y, **{**look, **styles[value]})
        for value, own in rows.groupby(by)
    }


def family_panels(
    lines: "Sequence[tuple[pandas.DataFrame, str, str, str]]",
    y: str,
    label: str,
    styles: Mapping[int, Mapping[str, Any]],
    *,
    by: tuple[str, str] = ("depth", "layers"),
    log: str = "",
    share: str = "all",
    more_columns: int = 0,
    **look: Any,
) -> tuple[Any, Any]:
    """Draw a column of panels per family, each with a line per depth (or step).

    Args:
      lines: for each row of panels its data, the column of the abscissa, the label of
        the abscissa, and the text after the family in the panels' titles.
      y: column of the ordinate.
      label: label of the ordinates.
      styles: colour and dash of each line, by the value of its column (see
        `depth_styles`: all figures of a study have the same colours).
      by: the column with one line per value; also the legend's title.
      log: contains 'x' or 'y' for logarithmic abscissae or ordinates.
      share: 'all' panels share an ordinate, or those of a 'row'.
      more_columns: number of empty panels at the right, with separate ordinates.
      **look: matplotlib's properties of every line.

    Returns:
      The figure and its panels.
    """
    drawn: dict[int, Any] = {}
    families = sorted(set().union(*(own["family"] for own, *_ in lines)))
    shape = len(lines), len(families) + more_columns
    size = (4.0 * shape[1] + 0.6, 2.6 * shape[0] + 0.6)
    figure, panels = plt.subplots(*shape, figsize=size, squeeze=False)
    for row, (own, x, x_label, what) in zip(panels, lines, strict=True):
        first = panels[0][0] if share == "all" else row[0]
        for panel, family in zip(row, families, strict=False):
            if panel is not first:
                panel.sharey(first)
            if "x" in log:
                panel.set_xscale("log")
            if "y" in log:
                panel.set_yscale("log")
            members = own[own["family"] == family]
            look = {"linewidth": 1.6, **look}
            drawn |= draw_lines(panel, members, by[0], x, y, styles, **look)
            panel.set_title(", ".join(filter(None, (family, what))))
            panel.set_xlabel(x_label)
            if "x" not in log and (own[x] % 1 == 0).all():
                panel.xaxis.get_major_locator().set_params(integer=True)
            panel.tick_params(labelleft=panel is row[0])
        row[0].set_ylabel(label)
    name_values(figure, drawn, by[1])
    return figure, panels


def name_values(figure: Any, lines: Mapping[int, Any], title: str) -> None:
    """Add a legend at the right that names lines by depth or another number."""
    if lines:
        names = sorted(lines)
        drawn = [lines[name] for name in names]
        name_lines(figure, drawn, [f"{name}" for name in names], "right center", title)


def plain_numbers(axis: Any) -> None:
    """Label a logarithmic axis '0.9' and '2', also between powers of ten."""
    form = matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}")
    axis.set_major_formatter(form)
    axis.set_minor_formatter(form)
