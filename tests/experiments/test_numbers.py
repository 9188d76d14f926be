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
    good, bad = ([1.0, 2.0], [3.0, 4.0]), ([5.0], [4.0])
    found = numbers.below("A is below B.", {"8 layers": good})
    assert found.holds
    assert found.evidence == "8 layers: 1.50 ± 0.71 against 3.50 ± 0.71."
    found = numbers.below("A is below B.", {"8 layers": good, "20 layers": bad})
    assert not found.holds
    assert found.evidence.endswith("Not so at 20 layers.")
    assert numbers.below("A is below B.", {}) is None
    equal = {"8 layers": ([1.0], [1.0])}
    assert not numbers.below("A is below B.", equal).holds
    assert numbers.below("A is not above B.", equal, equal=True).holds


def test_ascending_cases():
    cases = {"8": [1.0], "20": [2.0], "32": [4.0]}
    assert numbers.ascending("It rises.", cases).holds
    assert not numbers.ascending("It rises.", {**cases, "56": [3.0]}).holds
    assert numbers.ascending("It rises.", {"8": [1.0]}) is None
    assert numbers.decided(None, numbers.ascending("It rises.", cases)) != []
