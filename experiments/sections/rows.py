"""Rows of an analysis, chosen and put beside each other."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cnn_jax.report import Table
from experiments.numbers import (
    Row,
    Values,
    by,
    per_seed,
)

Settings = Mapping[str, Any]
Rows = Sequence[Row]


def seeds(rows: Rows) -> str:
    """'mean ± sample standard deviation of 3 seeds', of each family and depth."""
    counts = {count_of(own) for own in by(rows, "family", "depth").values()}
    if counts == {1}:
        return "one seed, so without a spread"
    if len(counts) == 1:
        return f"mean ± sample standard deviation of {min(counts)} seeds"
    return (
        f"mean ± sample standard deviation of {min(counts)} to {max(counts)} seeds, "
        "see the column"
    )


def count_of(rows: Rows) -> int:
    """How many seeds there are."""
    return len({row["seed"] for row in rows})


def counted(rows: Rows) -> dict[str, Callable[[list[Row]], str]]:
    """A column with the number of seeds, if it is not the same for all nets."""
    counts = {count_of(own) for own in by(rows, "family", "depth").values()}
    return {"seeds": lambda own: str(count_of(own))} if len(counts) > 1 else {}


def of(rows: Rows, **columns: Any) -> list[Row]:
    """The rows with these values in these columns."""
    return [row for row in rows if all(row[k] == v for k, v in columns.items())]


def twins(rows: Rows, value: Any) -> dict[str, tuple[Values, Values]]:
    """Values of the residual net and its plain twin, at each depth that has both.

    Twins have the same seed; one whose twin is missing is left out.
    """
    found = {}
    for depth, own in by(rows, "depth").items():
        residual, plain = of(own, family="residual"), of(own, family="plain")
        both = {row["seed"] for row in residual} & {row["seed"] for row in plain}
        residual, plain = (
            [row for row in side if row["seed"] in both] for side in (residual, plain)
        )
        if both:
            found[f"{depth} layers"] = (
                per_seed(residual, value),
                per_seed(plain, value),
            )
    return found


def depths_of(rows: Rows, family: str, value: Any) -> dict[str, Values]:
    """Values of a family at each depth."""
    return {
        f"{depth} layers": per_seed(own, value)
        for depth, own in by(of(rows, family=family), "depth").items()
    }


def swapped(pairs: Mapping[str, tuple[Values, Values]]) -> Any:
    """The other side first."""
    return {case: (high, low) for case, (low, high) in pairs.items()}


def depth_table(
    rows: Rows, caption: str, columns: Mapping[str, Callable[[list[Row]], str]]
) -> Table:
    """A row for each family and depth.

    Args:
      rows: of the analysis.
      caption: what the table shows; the number of seeds is added.
      columns: header to a cell, from the rows of a family and depth.

    Returns:
      The table, with a column of the number of seeds where nets differ in it.
    """
    columns = {**counted(rows), **columns}
    return Table(
        f"{caption}; {seeds(rows)}.",
        ("net", *columns),
        [
            (f"{family}, {depth} layers", *(cell(own) for cell in columns.values()))
            for (family, depth), own in by(rows, "family", "depth").items()
        ],
    )
