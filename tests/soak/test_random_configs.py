"""Five hundred random configs: none ends in a traceback from inside jax."""

import pytest

from tests.test_random_configs import try_many


@pytest.mark.soak
def test_five_hundred_random_configs_run_or_are_refused():
    outcomes = try_many(500)
    print(dict(outcomes))
    assert min(outcomes["ran"], outcomes["refused"]) >= 125
