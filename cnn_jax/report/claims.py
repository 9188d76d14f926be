"""Claims tested on several seeds: yes, no or undecided.

Values are a series whose last index level is 'seed'. Each combination of the other
levels is a case. Each case is decided by one-sided t tests at the level `LEVEL`, the
probability of a wrong verdict if the means are equal. The answer is yes if the test
finds the claim in every case (an intersection-union test, which needs no correction).
It is no if the opposite test finds a violation in any case; with k cases, this test has
the level `LEVEL` / k (Bonferroni). A missing value or a single seed leaves a case
undecided.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping

import pandas as pd
from scipy import special

from cnn_jax.report.page import Finding
from cnn_jax.report.tables import Write, of_family, spread

# Names a case: a function or format string of the levels' values.
Case = str | Callable[..., str]

LEVEL = 0.05


def paired(
    low: pd.Series, high: pd.Series, equal: bool = False, cases: int = 1
) -> bool | None:
    """Whether one mean lies below the other: Student's test on differences by seed.

    Args:
      low: values by seed that should be lower.
      high: values by seed that should be higher; seeds present on only one side are
        ignored.
      equal: whether the claim holds if all differences are zero.
      cases: number of cases of the claim.

    Returns:
      The answer, or None if neither test rejects.
    """
    low, high = low.align(high, join="inner")
    differences = high - low
    if len(differences) < 2 or differences.isna().any():
        return None
    mean, variance = differences.mean(), differences.sem() ** 2
    return _decide(mean, variance, len(differences) - 1.0, equal, cases)


def unpaired(low: pd.Series, high: pd.Series, cases: int = 1) -> bool | None:
    """Like `paired`, for unpaired seeds, whose numbers may differ (Welch's test)."""
    if min(len(low), len(high)) < 2 or low.isna().any() or high.isna().any():
        return None
    parts = [(own.sem() ** 2, len(own) - 1) for own in (low, high)]
    variance = sum(part for part, _ in parts)
    weights = sum(part**2 / degrees for part, degrees in parts)
    freedom = variance**2 / weights if weights else 1.0
    return _decide(high.mean() - low.mean(), variance, freedom, cases=cases)


def _decide(
    difference: float,
    variance: float,
    freedom: float,
    equal: bool = False,
    cases: int = 1,
) -> bool | None:
    """The verdict on a mean difference with this variance and degrees of freedom."""
    if difference == variance == 0:
        return equal
    yes, no = special.stdtrit(freedom, [1 - LEVEL, 1 - LEVEL / cases])
    error = variance**0.5
    if difference > yes * error:
        return True
    return False if -difference > no * error else None


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
      equal: see `paired`.

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
        {n: paired(own, highs[n], equal, len(lows)) for n, own in lows.items()},
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
            f"{low} to {high}": unpaired(cases[low], cases[high], len(cases) - 1)
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
