"""Claims: the numbers support them, contradict them or leave them undecided."""

import math

import numpy as np
import pandas as pd
import pytest

from cnn_jax.report import claims


def seeds(values):
    return pd.Series(values, pd.RangeIndex(len(values), name="seed"), dtype=float)


def cases(values):
    """Values by case and seed."""
    return pd.concat({name: seeds(own) for name, own in values.items()}, names=["case"])


def below(pairs, **words):
    """The claim that the first of each pair lies below the second."""
    low, high = (
        cases({name: pair[side] for name, pair in pairs.items()}) for side in (0, 1)
    )
    return claims.below("A is below B.", low, high, case="{}", **words)


def test_a_claim_is_true_only_if_it_is_in_every_case():
    good, bad = ([1.0, 2.0], [3.0, 4.0]), ([5.0, 6.0], [4.0, 5.0])
    found = below({"8 layers": good})
    assert found.holds is True
    assert found.evidence == "8 layers: 1.50 ± 0.71 vs. 3.50 ± 0.71."
    found = below({"8 layers": good, "20 layers": bad})
    assert found.holds is False
    assert found.evidence.endswith("False for 20 layers.")
    nothing = cases({8: [1.0]})[:0]
    assert claims.below("A is below B.", nothing, nothing) is None
    equal = {"8 layers": ([1.0, 2.0], [1.0, 2.0])}
    assert below(equal).holds is False
    assert below(equal, equal=True).holds is True


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        # Differences 2, 2, 5 and 2, 2, 6: means 3 and 3.33, standard errors 1 and 1.33.
        # With two degrees of freedom, their ratio must exceed 2.92.
        ([1.0, 5.0, 9.0], [3.0, 7.0, 14.0], True),
        ([3.0, 7.0, 14.0], [1.0, 5.0, 9.0], False),
        ([1.0, 5.0, 9.0], [3.0, 7.0, 15.0], None),
        ([3.0, 7.0, 15.0], [1.0, 5.0, 9.0], None),
        ([1.0], [2.0], None),
        # The spread of the seeds does not matter if all differences are equal.
        ([1.0, 100.0], [1.1, 100.1], True),
    ],
)
def test_twins_are_compared_by_differences_seed_by_seed(low, high, verdict):
    assert claims.paired(seeds(low), seeds(high)) is verdict
    assert claims.paired(seeds(low), seeds(high), equal=True) is verdict


def test_a_violation_must_be_clearer_among_more_cases():
    """3 standard errors: above 2.92 (5 %), below 4.30 (2.5 %, one of two cases)."""
    good, bad = ([1.0, 2.0], [3.0, 4.0]), ([3.0, 7.0, 14.0], [1.0, 5.0, 9.0])
    assert below({"20": bad}).holds is False
    assert below({"8": good, "20": bad}).holds is None
    # A confirmation needs no correction: it must come from every case.
    assert below({"8": good, "20": bad[::-1]}).holds is True
    # Of two rises, the second fails: Welch's t is -4, with 2 degrees of freedom.
    rises = {8: [1.0, 1.1, 1.2], 20: [9.0, 10.0, 11.0]}
    falls = {20: rises[20], 32: [10 - 4 / 3**0.5] * 3}
    for values, verdict in ((falls, False), (rises | falls, None)):
        found = claims.ascending("It rises.", cases(values), case="{}")
        assert found.holds is verdict


def test_one_claim_in_twenty_is_judged_wrongly_where_there_is_no_effect():
    random, verdicts = np.random.default_rng(0), []
    for _ in range(100):
        low, high = random.normal(size=(2, 4, 3))
        verdicts.append(below(dict(enumerate(zip(low, high, strict=True)))).holds)
    assert 0 < verdicts.count(False) <= 10
    assert not verdicts.count(True)  # 0.05 ** 4
    single = [
        claims.paired(seeds(low), seeds(high))
        for low, high in random.normal(size=(400, 2, 3))
    ]
    assert single.count(True) in range(10, 31)
    assert single.count(False) in range(10, 31)


def test_a_seed_without_its_twin_does_not_count():
    assert claims.paired(seeds([1.0, 2.0]), seeds([2.0, 3.0, -9.0])) is True
    assert claims.paired(seeds([1.0]), seeds([2.0, 3.0])) is None


def test_a_missing_number_decides_nothing():
    """Nor does the number of one seed stand for the others."""
    good = ([1.0, 2.0, 3.0], [3.0, 4.0, 5.5])
    found = below({"8 layers": good, "20 layers": ([1.0, math.nan, 1.0], good[1])})
    assert found.holds is None
    assert "20 layers: 1.00 ± 0 (1 of 3 seeds n/a) vs. 4.17" in found.evidence
    assert found.evidence.endswith("Undecided for 20 layers.")
    nothing = [math.nan] * 3
    assert "n/a vs. 4.17" in below({"8": (nothing, good[1])}).evidence
    found = claims.ascending("It rises.", cases({8: good[0], 20: nothing}), case="{}")
    assert found.holds is None


def test_a_claim_is_undecided_where_a_case_is_and_none_fails():
    good, bad = ([1.0, 2.0], [3.0, 4.0]), ([5.0, 6.0], [4.0, 5.0])
    noise = ([1.0, 2.0], [3.0, 1.0])
    found = below({"8 layers": good, "20 layers": noise})
    assert found.holds is None
    assert found.verdict == "undecided"
    assert found.evidence.endswith("Undecided for 20 layers.")
    found = below({"08": good, "20": noise, "32": bad})
    assert found.holds is False
    assert found.evidence.endswith("False for 32. Undecided for 20.")


def test_ascending_cases():
    values = {8: [1.0, 1.2], 20: [2.0, 2.2], 32: [4.0, 4.2, 4.4]}

    def rises(values):
        return claims.ascending("It rises.", cases(values), case="{}")

    assert rises(values).holds is True
    found = rises({**values, 56: [3.0, 3.1]})
    assert found.holds is False
    assert found.evidence.endswith("False for 32 to 56.")
    # 0.1 more, with a standard error of sqrt(0.04 / 3 + 0.08 / 2).
    found = rises({**values, 56: [4.1, 4.5]})
    assert found.holds is None
    assert found.evidence.endswith("Undecided for 32 to 56.")
    assert rises({8: [1.0], 20: [2.0]}).holds is None
    assert rises({8: [1.0, 1.2]}) is None
