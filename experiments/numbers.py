"""Numbers of several seeds: how they are written, and claims that they decide."""

import itertools
import math
import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from cnn_jax.report import Finding

Row = Mapping[str, Any]
Values = Sequence[float]


def grouped(rows: Iterable[Row], *keys: str) -> dict[Any, list[Row]]:
    """Rows by the values of some columns, in the order of their first.

    Args:
      rows: of a table.
      keys: its columns; with a single one the keys of the result are its values.
    """
    found: dict[Hashable, list[Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in keys)
        found.setdefault(key if len(keys) > 1 else key[0], []).append(row)
    return found


def by(rows: Iterable[Row], *keys: str) -> dict[Any, list[Row]]:
    """Rows by the values of some columns, ascending (see `grouped`)."""
    return dict(sorted(grouped(rows, *keys).items()))


def per_seed(rows: Iterable[Row], value: str | Callable[[list[Row]], float]) -> Values:
    """A number for each seed: the mean of a column, or what a function says."""
    if isinstance(value, str):
        column = value
        return [
            statistics.fmean(row[column] for row in own)
            for own in by(rows, "seed").values()
        ]
    return [value(own) for own in by(rows, "seed").values()]


def short(value: float, digits: int = 3) -> str:
    """A number as people write it: 0.123, 12.3, 1234, 1.2e+06.

    Args:
      value: the number.
      digits: that count.
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    size = math.floor(math.log10(abs(value)))
    if -4 <= size < 5:
        return f"{value:.{max(digits - 1 - size, 0)}f}"
    return f"{value:.{digits - 2}e}"


def spread(values: Values, factor: float = 1.0, digits: int = 3) -> str:
    """Mean ± sample standard deviation; the mean alone of a single seed.

    Args:
      values: one a seed.
      factor: that each is multiplied by (100 for per cent).
      digits: of the mean that count.
    """
    scaled = [factor * value for value in values]
    mean = statistics.fmean(scaled)
    if len(scaled) < 2:
        return short(mean, digits)
    return f"{short(mean, digits)} ± {short(statistics.stdev(scaled), 2)}"


def percent(values: Values) -> str:
    """Fractions as per cent: mean ± sample standard deviation, two decimals."""
    scaled = [100 * value for value in values]
    mean = f"{statistics.fmean(scaled):.2f}"
    return mean if len(scaled) < 2 else f"{mean} ± {statistics.stdev(scaled):.2f}"


def paired(low: Values, high: Values, equal: bool = False) -> bool | None:
    """Whether one mean lies below the other, from the differences seed by seed.

    Args:
      low: values of the seeds that should be lower.
      high: those of the same seeds that should be higher.
      equal: equal means count too.

    Returns:
      None, undecided, where the mean difference is within its standard error, or
      of a single seed.

    Raises:
      ValueError: not as many seeds on both sides.
    """
    differences = [higher - lower for lower, higher in zip(low, high, strict=True)]
    if len(differences) < 2:
        return None
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return _decide(statistics.fmean(differences), error, equal)


def unpaired(low: Values, high: Values) -> bool | None:
    """Whether one mean lies below the other, where seeds have nothing in common.

    Args:
      low: values of the seeds that should be lower.
      high: values that should be higher, of as many seeds or not.

    Returns:
      None, undecided, where the difference of the means is within its standard
      error, or one of them is of a single seed.
    """
    if min(len(low), len(high)) < 2:
        return None
    error = math.sqrt(
        statistics.variance(low) / len(low) + statistics.variance(high) / len(high)
    )
    return _decide(statistics.fmean(high) - statistics.fmean(low), error)


def _decide(difference: float, error: float, equal: bool = False) -> bool | None:
    if difference == error == 0:
        return equal
    if abs(difference) <= error:
        return None
    return difference > 0


def _together(verdicts: Mapping[str, bool | None]) -> tuple[bool | None, str]:
    """The verdict on all cases, and the cases that stand in the way of a yes."""
    failing = [case for case, verdict in verdicts.items() if verdict is False]
    open_ = [case for case, verdict in verdicts.items() if verdict is None]
    where = ""
    for cases, what in ((failing, "Not so at"), (open_, "Undecided at")):
        if 0 < len(cases) < len(verdicts):
            where += f" {what} {', '.join(cases)}."
    return False if failing else None if open_ else True, where


def below(
    claim: str,
    pairs: Mapping[str, tuple[Values, Values]],
    write: Callable[[Values], str] = spread,
    equal: bool = False,
) -> Finding | None:
    """Whether one mean lies below the other in every case (see `paired`).

    Args:
      claim: what is claimed.
      pairs: by case ('56 layers'), values of the seeds that should be lower and of
        those that should be higher, the same seeds in the same order.
      write: how values are written.
      equal: equal means bear the claim out too.

    Returns:
      The finding, whose evidence lists both sides of each case; None of no case.
    """
    if not pairs:
        return None
    holds, where = _together(
        {case: paired(low, high, equal) for case, (low, high) in pairs.items()}
    )
    cases = "; ".join(
        f"{case}: {write(low)} against {write(high)}"
        for case, (low, high) in pairs.items()
    )
    return Finding(claim, holds, f"{cases}.{where}")


def ascending(
    claim: str, cases: Mapping[str, Values], write: Callable[[Values], str] = spread
) -> Finding | None:
    """Whether means rise from each case to the next (see `unpaired`).

    Args:
      claim: what is claimed.
      cases: values of the seeds, in the order in which they should rise.
      write: how values are written.

    Returns:
      The finding, whose evidence lists the cases; None of fewer than two.
    """
    if len(cases) < 2:
        return None
    holds, where = _together(
        {
            f"{low} to {high}": unpaired(cases[low], cases[high])
            for low, high in itertools.pairwise(cases)
        }
    )
    listed = "; ".join(f"{case}: {write(values)}" for case, values in cases.items())
    return Finding(claim, holds, f"{listed}.{where}")


def decided(*findings: Finding | None) -> list[Finding]:
    """The findings for which there was something to compare."""
    return [finding for finding in findings if finding is not None]
