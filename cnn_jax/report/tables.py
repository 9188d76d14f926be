"""Tables over several seeds: one number per net, and its formatting.

A missing number is NaN and is printed as `MISSING`.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

from cnn_jax.plots.curves import seed_counts
from cnn_jax.report.page import Table

NET = ["family", "depth", "seed"]
GROUP = NET[:2]
MISSING = "n/a"

# A function that formats the numbers of several seeds.
Write = Callable[[Iterable[float]], str]


def per_net(rows: pd.DataFrame, value: str | Callable[..., float]) -> pd.Series:
    """One number per net, by family, depth and seed.

    Args:
      rows: rows of an analysis.
      value: a column, of which the mean is taken, or a function of the rows of a net.
    """
    groups = rows.groupby(NET)
    if isinstance(value, str):
        return groups[value].mean()
    found = {net: value(own) for net, own in groups}
    index = pd.MultiIndex.from_tuples(found, names=NET)
    return pd.Series(list(found.values()), index, dtype=float)


def of(rows: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """The rows with these values in these columns."""
    for name, value in columns.items():
        rows = rows[rows[name] == value]
    return rows


def of_family(values: pd.Series, family: str) -> pd.Series:
    """The values of a family, by depth and seed; empty if the family is missing."""
    own = values[values.index.get_level_values("family") == family]
    return own.droplevel("family")


def ratio(above: float, below: float) -> float:
    """The quotient, or NaN if the divisor is zero."""
    return above / below if below else math.nan


def short(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, as 0.123, 12.3, 1234 or 1.2e+06."""
    if math.isnan(value):
        return MISSING
    if value == 0 or math.isinf(value):
        return f"{value:g}"
    size = math.floor(math.log10(abs(value)))
    if -4 <= size < 5:
        return f"{value:.{max(digits - 1 - size, 0)}f}"
    return f"{value:.{digits - 2}e}"


def spread(
    values: Iterable[float],
    mean: Callable[[float], str] = short,
    std: Callable[[float], str] = lambda value: short(value, 2),
) -> str:
    """Mean ± sample standard deviation, or the mean alone for a single seed.

    Args:
      values: one value per seed; the number of NaN values is reported.
      mean: formats the mean.
      std: formats the standard deviation.
    """
    every = pd.Series(list(values), dtype=float)
    there, missing = every.count(), int(every.isna().sum())
    if not there:
        return MISSING
    text = mean(every.mean()) + (f" ± {std(every.std())}" if there > 1 else "")
    return f"{text} ({missing} of {len(every)} seeds {MISSING})" if missing else text


def percent(values: Iterable[float]) -> str:
    """Fractions in percent: mean ± sample standard deviation, two decimals."""
    return spread([100 * value for value in values], "{:.2f}".format, "{:.2f}".format)


def seeds(rows: pd.DataFrame, what: str = "seeds") -> str:
    """A phrase for captions, such as 'mean ± sample standard deviation of 3 seeds'."""
    counts = seed_counts(rows)
    if counts == [1]:
        return f"one {what.removesuffix('s')}, no spread"
    over = "mean ± sample standard deviation of"
    if len(counts) == 1:
        return f"{over} {counts[0]} {what}"
    return f"{over} {counts[0]} to {counts[-1]} {what} (see the column)"


def summarize(
    rows: pd.DataFrame, numbers: Callable[[pd.DataFrame], Iterable[tuple[str, float]]]
) -> pd.DataFrame:
    """Numbers of nets as mean and spread over seeds.

    Args:
      rows: rows of an analysis.
      numbers: rows of one net to (quantity, value).

    Returns:
      'quantity', 'family', 'depth', 'seeds' (that have the number), 'mean' and 'std'
      (sample standard deviation, NaN for a single seed).
    """
    found = [
        (quantity, *net[:2], value)
        for net, own in rows.groupby(NET)
        for quantity, value in numbers(own)
    ]
    keys = ["quantity", *GROUP]
    table = pd.DataFrame(found, columns=[*keys, "value"]).dropna()
    values = table.groupby(keys, sort=False)["value"]
    return values.agg(seeds="size", mean="mean", std="std").reset_index()


def errors(table: pd.DataFrame, held_out: str = "test") -> pd.DataFrame:
    """The final errors of a study's finished runs, formatted in percent.

    Args:
      table: from `cnn_jax.study.load`.
      held_out: name of the set that the test error is measured on.

    Returns:
      'family', 'depth', 'seeds', 'training (clean)' and a column named ``held_out``.
    """
    finished = of(table, status="finished")
    return finished.groupby(GROUP, as_index=False).agg(
        seeds=("seed", "size"),
        **{"training (clean)": ("clean_train_error", percent)},
        **{held_out: ("test_error", percent)},
    )


def group_table(
    rows: pd.DataFrame,
    caption: str,
    columns: Mapping[str, tuple[pd.Series, Write]],
    what: str = "seeds",
) -> Table:
    """A table with a row for each family and depth.

    Args:
      rows: rows of the analysis.
      caption: what the table shows; the number of seeds is appended.
      columns: header to the values of all nets (see `per_net`) and the function that
        formats those of a family and depth.
      what: a word for the seeds.

    Returns:
      The table, with a column for the number of seeds if the groups differ in it.
    """
    if len(seed_counts(rows)) > 1:
        count = rows.drop_duplicates(NET).set_index(NET, drop=False)["seed"]
        columns = {"seeds": (count, lambda own: str(len(list(own)))), **columns}
    found = [
        (dict(iter(values.groupby(GROUP))), write) for values, write in columns.values()
    ]
    return Table(
        f"{caption}; {seeds(rows, what)}.",
        ("net", *columns),
        [
            (
                f"{net[0]}, {net[1]} layers",
                *(write(of.get(net, ())) for of, write in found),
            )
            for net in rows.groupby(GROUP).groups
        ],
    )
