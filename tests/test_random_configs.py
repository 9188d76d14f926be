"""Any config is refused with a line, or builds, takes a step and evaluates."""

import collections
import math
import traceback

import hypothesis
import jax

from cnn_jax.names import ConfigError
from cnn_jax.train.feed import feed
from cnn_jax.train.program import Program
from tests.drawn_configs import configs

# Examples after which compiled programs are dropped: they fill the memory.
CLEAR_EVERY = 25


def try_config(config):
    """Whether it ran; the only other way out is one line of this project's own."""
    try:
        program = Program(config)
    except ConfigError as error:
        line = str(error)
        assert line
        assert "\n" not in line
        if error.__cause__ is not None:
            deepest = traceback.extract_tb(error.__cause__.__traceback__)[-1]
            assert "site-packages/jax" not in deepest.filename, line
        return False
    state = program.place(program.initial_state(config["seed"]))
    dispatch = next(feed(program.source, program.devices, config, 0, b""))
    state, sums = program.train(state, dispatch)
    counts = program.devices.fetch(sums)["count"][: dispatch.count]
    assert counts.tolist() == [config["batch_size"]] * dispatch.count
    assert int(program.devices.fetch(state.step)) == dispatch.last >= 1
    measured = program.evaluate(state, "test")
    assert math.isnan(measured["error"]) or 0 <= measured["error"] <= 1
    return True


def try_many(examples):
    """How many of so many random configs ran, and how many were refused."""
    outcomes: collections.Counter[str] = collections.Counter()

    @hypothesis.seed(2015)
    @hypothesis.given(config=configs())
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    def try_one(config):
        outcomes["ran" if try_config(config) else "refused"] += 1
        if outcomes.total() % CLEAR_EVERY == 0:
            print(dict(outcomes), flush=True)
            jax.clear_caches()

    try_one()
    assert outcomes.total() == examples
    return outcomes


def test_random_configs_run_or_are_refused():
    outcomes = try_many(12)
    assert min(outcomes["ran"], outcomes["refused"]) >= 3
