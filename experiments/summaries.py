"""The main numbers of each analysis, as mean and spread over seeds.

From the rows that `experiments.measures` makes to a line for each quantity and
shape; this is what ``summary.csv`` holds.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from experiments.numbers import Row, grouped
from experiments.sections import landscapes

COLUMNS = ("analysis", "quantity", "family", "depth", "seeds", "mean", "std")


def summarize(analysis: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The main numbers of an analysis.

    Args:
      analysis: its name.
      rows: of all shapes.

    Returns:
      Rows with the keys `COLUMNS`; 'std' is the sample standard deviation over
      seeds, 0 for a single one. Nothing for an analysis that has no summary.
    """
    found: dict[tuple[str, str, int], list[float]] = {}
    if analysis in QUANTITIES:
        for members in grouped(rows, "family", "depth", "seed").values():
            head = members[0]
            for quantity, value in QUANTITIES[analysis](members):
                key = quantity, head["family"], head["depth"]
                found.setdefault(key, []).append(value)
    return [
        {
            "analysis": analysis,
            "quantity": quantity,
            "family": family,
            "depth": depth,
            "seeds": len(values),
            "mean": statistics.fmean(values),
            "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        }
        for (quantity, family, depth), values in found.items()
    ]


# Each of these goes from the rows of one net to its numbers.
Numbers = Iterator[tuple[str, float]]


def of_insertion(rows: Sequence[Row]) -> Numbers:
    """Training error (%) right after the insertion and at the last step."""
    last = max(row["more_steps"] for row in rows)
    for row in rows:
        what = f"{row['how']}, {2 * row['blocks']} layers more"
        percent = 100 * row["train_error"]
        if row["more_steps"] == 0 and row["rate"] == rows[0]["rate"]:
            yield f"training error (%), {what}, at once", percent
            yield f"changed logits, {what}", row["changed_logits"]
        if row["more_steps"] == last:
            after = f"after {last} steps at {row['rate']:g}"
            yield f"training error (%), {what}, {after}", percent


def of_gradients(rows: Sequence[Row]) -> Numbers:
    """How much larger the second layer's gradient is than the last but one's.

    The first layer has other inputs than the rest, and the last is the classifier.
    """
    for step, members in grouped(rows, "step").items():
        if step not in (0, max(row["step"] for row in rows)):
            continue
        norms = [row["gradient_norm"] for row in members]
        if len(norms) > 3 and norms[-2] > 0:
            yield f"gradient, layer 2 / last 3x3, step {step}", norms[1] / norms[-2]


def of_responses(rows: Sequence[Row]) -> Numbers:
    """Mean and median over layers of the response's standard deviation."""
    values = [row["std"] for row in rows]
    yield "std of responses, mean over layers", statistics.fmean(values)
    yield "std of responses, median over layers", statistics.median(values)


def of_linearity(rows: Sequence[Row]) -> Numbers:
    """Mean relative change over blocks."""
    values = [row["change"] for row in rows if not math.isnan(row["change"])]
    if values:
        yield "relative change, mean over blocks", statistics.fmean(values)


def of_lesions(rows: Sequence[Row]) -> Numbers:
    """Test error (%) of the intact net and of each kind of lesion."""
    names = {
        "intact": "intact",
        "one": "one block removed, mean over blocks",
        "several": "{} blocks removed",
        "exchanged": "blocks exchanged {} times",
    }
    for (kind, count), members in grouped(rows, "kind", "count").items():
        percent = 100 * statistics.fmean(row["error"] for row in members)
        yield f"test error (%), {names[kind].format(count)}", percent


def of_paths(rows: Sequence[Row]) -> Numbers:
    """Mean length of all paths, and of paths weighted by the gradient they carry."""
    for name, weight in (("all paths", "share"), ("gradient", "contribution")):
        total = sum(row[weight] for row in rows)
        if total > 0:
            mean = sum(row[weight] * row["length"] for row in rows) / total
            yield f"mean path length, {name}", mean


def of_shattered(rows: Sequence[Row]) -> Numbers:
    """Cosine of input gradients at each distance, before and after training."""
    for row in rows:
        when = f"step {row['step']}"
        yield f"cosine at distance {row['distance']:g}, {when}", row["correlation"]


def of_grid(rows: Sequence[Row]) -> Numbers:
    """Autocorrelation between neighbouring points of the grid."""
    for row in rows:
        if row["lag"] == 1:
            yield "autocorrelation at lag 1", row["autocorrelation"]


def of_stochastic_depth(rows: Sequence[Row]) -> Numbers:
    """Test error (%) by death rate and blocks removed."""
    for (rate, count), members in grouped(rows, "death_rate", "removed").items():
        percent = 100 * statistics.fmean(row["error"] for row in members)
        yield f"test error (%), death rate {rate:g}, {count} blocks removed", percent


def of_landscape(rows: Sequence[Row]) -> Numbers:
    """Shape of the landscape around one net."""
    yield "loss of the net (nats)", landscapes.centre(rows)
    yield "power of ten of the loss at the grid's edge, median", landscapes.rise(rows)
    yield "share of the grid with an error of at most half", landscapes.area(rows)
    yield "local minima of the grid", landscapes.minima(rows)


QUANTITIES: dict[str, Callable[[Sequence[Row]], Numbers]] = {
    "insertion": of_insertion,
    "gradients": of_gradients,
    "shattered": of_shattered,
    "grid": of_grid,
    "responses": of_responses,
    "lesions": of_lesions,
    "paths": of_paths,
    "linearity": of_linearity,
    "stochastic_depth": of_stochastic_depth,
    "landscape": of_landscape,
}
