"""Claims tested on several seeds: yes, no or undecided.

Values are a series whose last index level is 'seed'. Each combination of the other
levels is a case, and a claim must hold in every case. A missing value or a single
seed leaves it undecided.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping

import pandas as pd

from cnn_jax.report.page import Finding
from cnn_jax.report.tables import Write, of_family, spread

# Names a case: a function or format string of the levels' values.
Case = str | Callable[..., str]


def paired(low: pd.Series, high: pd.Series, equal: bool = False) -> bool | None:
    """Whether one mean lies below the other, from the differences seed by seed.

    Args:
      low: values by seed that should be lower.
      high: values by seed that should be higher; seeds present on only one side are
        ignored.
      equal: whether equal means satisfy the claim.

    Returns:
      The answer, or None if the mean difference is within its standard error.
    """
    low, high = low.align(high, join="inner")
    differences = high - low
    if len(differences) < 2 or differences.isna().any():
        return None
    return _decide(differences.mean(), differences.sem(), equal)


def unpaired(low: pd.Series, high: pd.Series) -> bool | None:
    """Like `paired`, for unpaired seeds, whose numbers may differ."""
    if min(len(low), len(high)) < 2 or low.isna().any() or high.isna().any():
        return None
    return _decide(high.mean() - low.mean(), (low.sem() ** 2 + high.sem() ** 2) ** 0.5)


def _decide(difference: float, error: float, equal: bool = False) -> bool | None:
    if difference == error == 0:
        return equal
    return None if abs(difference) <= error else bool(difference > 0)


def cases_of(values: pd.Series, case: Case) -> dict[str, pd.Series]:
    """The values by name of their case; ``case`` itself if there is no other level."""
    levels = [name for name in values.index.names if name != "seed"]
    if not levels:
        return {str(case): values}
    name = case.format if isinstance(case, str) else case
    groups = values.groupby(levels)
    return {name(*key): own.droplevel(levels) for key, own in groups}


def below(
    claim: str,
    low: pd.Series,
    high: pd.Series,
    write: Write = spread,
    case: Case = "{} layers",
    equal: bool = False,
) -> Finding | None:
    """Whether one mean lies below the other in every case (see `paired`).

    Args:
      claim: the claim.
      low: values that should be lower.
      high: values that should be higher; cases present on only one side are ignored.
      write: formats the values of a case.
      case: names the cases.
      equal: whether equal means satisfy the claim.

    Returns:
      The finding, whose evidence lists both sides of each case; None if there is no
      case.
    """
    low, high = low.align(high, join="inner")
    if not len(low):
        return None
    lows, highs = cases_of(low, case), cases_of(high, case)
    return _finding(
        claim,
        {name: paired(own, highs[name], equal) for name, own in lows.items()},
        (f"{n}: {write(own)} vs. {write(highs[n])}" for n, own in lows.items()),
    )


def residual_below_plain(
    claim: str, values: pd.Series, write: Write = spread, equal: bool = False
) -> Finding | None:
    """Whether residual nets lie below their plain twins of the same depth and seed."""
    residual, plain = of_family(values, "residual"), of_family(values, "plain")
    return below(claim, residual, plain, write, equal=equal)


def residual_above_plain(
    claim: str, values: pd.Series, write: Write = spread
) -> Finding | None:
    """Whether residual nets lie above their plain twins of the same depth and seed."""
    residual, plain = of_family(values, "residual"), of_family(values, "plain")
    return below(claim, plain, residual, write)


def ascending(
    claim: str,
    values: pd.Series,
    write: Write = spread,
    case: Case = "{} layers",
    from_the_last: bool = False,
) -> Finding | None:
    """Whether means rise from each case to the next (see `unpaired`).

    Args:
      claim: the claim.
      values: values of the cases, in ascending order of the cases.
      write: formats the values of a case.
      case: names the cases.
      from_the_last: whether the last case should have the lowest mean instead.

    Returns:
      The finding, whose evidence lists the cases; None for fewer than two cases.
    """
    cases = cases_of(values, case) if len(values) else {}
    if len(cases) < 2:
        return None
    if from_the_last:
        cases = dict(reversed(cases.items()))
    return _finding(
        claim,
        {
            f"{low} to {high}": unpaired(cases[low], cases[high])
            for low, high in itertools.pairwise(cases)
        },
        (f"{name}: {write(own)}" for name, own in cases.items()),
    )


def _finding(
    claim: str, verdicts: Mapping[str, bool | None], evidence: Iterable[str]
) -> Finding:
    """A claim on all cases; the evidence names those that prevent a yes."""
    text, found = f"{'; '.join(evidence)}.", set(verdicts.values())
    for answer, what in ((False, "False for"), (None, "Undecided for")):
        cases = [case for case, verdict in verdicts.items() if verdict is answer]
        if 0 < len(cases) < len(verdicts):
            text += f" {what} {', '.join(cases)}."
    holds = False if False in found else None if None in found else True
    return Finding(claim, holds, text)
