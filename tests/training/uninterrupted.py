"""The uninterrupted run, and comparison with another run."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from cnn_jax.training import checkpoint
from cnn_jax.training.loop import fit
from cnn_jax.training.program import Program
from cnn_jax.training.run_directory import RunDirectory


def final_state(program: Program, place: RunDirectory) -> Any:
    """The state in a run's newest checkpoint, on the host."""
    state, _, _ = checkpoint.restore(place.checkpoints, program.initial_state(0))
    return state


@dataclasses.dataclass
class Uninterrupted:
    """A finished run: parameters, momentum, statistics, step, log and result."""

    program: Program
    place: RunDirectory
    result: dict[str, Any]
    state: Any

    @classmethod
    def train(cls, program: Program, path: Any) -> "Uninterrupted":
        place = RunDirectory(path)
        result = fit(program, 0, place)
        return cls(program, place, result, final_state(program, place))

    def assert_equals(self, place: RunDirectory) -> None:
        """Assert equality, bit for bit, of everything but the times."""
        assert without_time(place.result()) == without_time(self.result)
        assert place.log() == self.place.log()
        self._compare(place, np.testing.assert_array_equal)

    def assert_close(self, place: RunDirectory) -> None:
        """Assert equality up to rounding."""
        for row, wanted in zip(place.rows(), self.place.rows(), strict=True):
            assert row == pytest.approx(wanted, rel=1e-4)
        self._compare(place, functools.partial(assert_allclose, rtol=1e-4, atol=1e-6))

    def _compare(self, place: RunDirectory, equal: Callable[..., None]) -> None:
        # this run's state as the template: a new one takes longer than the rest
        state, _, _ = checkpoint.restore(place.checkpoints, self.state)
        for found, wanted in zip(
            jax.tree.leaves(state), jax.tree.leaves(self.state), strict=True
        ):
            equal(found, wanted)


def without_time(result: dict[str, Any]) -> dict[str, Any]:
    """The result of a run without its duration and time of day."""
    return {k: value for k, value in result.items() if k not in ("seconds", "date")}
