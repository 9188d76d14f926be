"""Which values of a parameter the default run tests; ``-m slow`` tests the others."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def fast(few: Collection[Any], values: Iterable[Any]) -> list[Any]:
    """All values of a parameter, those marked slow that are not among the few.

    Args:
      few: values that stand for the others, all of them among ``values``.
      values: every value.

    Returns:
      What `pytest.mark.parametrize` takes.
    """
    values = list(values)
    assert all(value in values for value in few), (few, values)
    return [
        value if value in few else pytest.param(value, marks=pytest.mark.slow)
        for value in values
    ]
