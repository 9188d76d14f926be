"""Numbers as a report writes them, and the claims that they decide."""

import pytest

from experiments import numbers


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0"),
        (0.12345, "0.123"),
        (12.345, "12.3"),
        (1234.5, "1234"),
        (-0.0012345, "-0.00123"),
        (1234567.0, "1.2e+06"),
        (float("inf"), "inf"),
    ],
)
def test_short(value, written):
    assert numbers.short(value) == written


def test_mean_and_sample_standard_deviation_of_seeds():
    assert numbers.spread([1.0, 2.0, 3.0]) == "2.00 ± 1.0"
    assert numbers.spread([0.01, 0.03], 100) == "2.00 ± 1.4"
    assert numbers.spread([0.5]) == "0.500"
    assert numbers.percent([0.01, 0.03]) == "2.00 ± 1.41"
    assert numbers.percent([0.5]) == "50.00"


def test_draws_of_a_seed_count_as_one():
    rows = [{"seed": s, "x": x} for s, x in ((1, 4.0), (0, 1.0), (0, 3.0))]
    assert numbers.per_seed(rows, "x") == [2.0, 4.0]
    assert numbers.per_seed(rows, lambda own: max(r["x"] for r in own)) == [3.0, 4.0]


def test_a_claim_is_true_only_if_it_is_in_every_case():
    good, bad = ([1.0, 2.0], [3.0, 4.0]), ([5.0, 6.0], [4.0, 5.0])
    found = numbers.below("A is below B.", {"8 layers": good})
    assert found.holds is True
    assert found.evidence == "8 layers: 1.50 ± 0.71 against 3.50 ± 0.71."
    found = numbers.below("A is below B.", {"8 layers": good, "20 layers": bad})
    assert found.holds is False
    assert found.evidence.endswith("Not so at 20 layers.")
    assert numbers.below("A is below B.", {}) is None
    equal = {"8 layers": ([1.0, 2.0], [1.0, 2.0])}
    assert numbers.below("A is below B.", equal).holds is False
    assert numbers.below("A is not above B.", equal, equal=True).holds is True


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        # Differences 1, 1, 4 and 1, -2, 4: means 2 and 1, standard errors 1 and 1.73.
        ([1.0, 5.0, 9.0], [2.0, 6.0, 13.0], True),
        ([2.0, 6.0, 13.0], [1.0, 5.0, 9.0], False),
        ([1.0, 5.0, 9.0], [2.0, 3.0, 13.0], None),
        ([2.0, 3.0, 13.0], [1.0, 5.0, 9.0], None),
        ([1.0], [2.0], None),
        # The spread of the seeds does not count where all differ alike.
        ([1.0, 100.0], [1.1, 100.1], True),
    ],
)
def test_twins_are_compared_by_differences_seed_by_seed(low, high, verdict):
    assert numbers.paired(low, high) is verdict
    assert numbers.paired(low, high, equal=True) is verdict


def test_twins_have_as_many_seeds():
    with pytest.raises(ValueError, match="longer"):
        numbers.paired([1.0, 2.0], [1.0, 2.0, 3.0])


def test_a_claim_is_undecided_where_a_case_is_and_none_fails():
    good, bad = ([1.0, 2.0], [3.0, 4.0]), ([5.0, 6.0], [4.0, 5.0])
    noise = ([1.0, 2.0], [3.0, 1.0])
    found = numbers.below("A is below B.", {"8 layers": good, "20 layers": noise})
    assert found.holds is None
    assert found.verdict == "undecided"
    assert found.evidence.endswith("Undecided at 20 layers.")
    found = numbers.below("A is below B.", {"8": good, "20": noise, "32": bad})
    assert found.holds is False
    assert found.evidence.endswith("Not so at 32. Undecided at 20.")


def test_ascending_cases():
    cases = {"8": [1.0, 1.2], "20": [2.0, 2.2], "32": [4.0, 4.2, 4.4]}
    assert numbers.ascending("It rises.", cases).holds is True
    found = numbers.ascending("It rises.", {**cases, "56": [3.0, 3.1]})
    assert found.holds is False
    assert found.evidence.endswith("Not so at 32 to 56.")
    # 0.1 more, with a standard error of sqrt(0.04 / 3 + 0.08 / 2).
    found = numbers.ascending("It rises.", {**cases, "56": [4.1, 4.5]})
    assert found.holds is None
    assert found.evidence.endswith("Undecided at 32 to 56.")
    assert numbers.ascending("It rises.", {"8": [1.0], "20": [2.0]}).holds is None
    assert numbers.ascending("It rises.", {"8": [1.0, 1.2]}) is None
    assert numbers.decided(None, numbers.ascending("It rises.", cases)) != []
