"""Any config is refused in one line, or builds, takes a step and evaluates."""

import collections
import math
import traceback

import hypothesis
import jax
import pytest

from cnn_jax.names import ConfigError
from cnn_jax.training import config as run_config
from cnn_jax.training.feed import feed
from cnn_jax.training.program import Program
from tests import tiny
from tests.drawn_configs import configs, damaged, nested

# Number of examples after which compiled programs are dropped to free memory.
CLEAR_EVERY = 25


def try_config(config):
    """Whether the config ran; otherwise it must be refused in one line."""
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
    """Try random configs; return the numbers that ran and that were refused."""
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


def test_a_wrong_value_at_any_place_is_refused_in_a_line():
    """Refused before anything is built, unless the config is valid."""
    lines = []

    @hypothesis.seed(2015)
    @hypothesis.given(config=damaged())
    @hypothesis.settings(
        max_examples=300,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    def try_one(config):
        try:
            run_config.check(config)
        except ConfigError as error:
            lines.append(str(error))

    try_one()
    assert len(lines) > 150
    for line in lines:
        assert line
        assert "\n" not in line
        assert len(line) < 1000


ABSURD = [
    {"batch_size": 2**31},
    {"batch_size": 2**31 - 1},
    {"eval_batch_size": 2**31 - 1},
    {"preprocess": {"pad": 1000003}},
    {"preprocess": {"size": 2**15}},
    {"augment": {"pad": 2**31 - 1}},
    {"augment": {"pad": 2**15}},
    {"schedule": {"boundaries": (2**64,)}},
    {"schedule": {"rates": (1e39, 0.1)}},
    {"optimizer": {"weight_decay": 2**1024}},
    {"optimizer": {"weight_decay": 1e-320}},
    {"dataset": {"max_length": 1000003}},
    {"model": {"name": "gtn", "radius": 2**15}},
    {"model": {"depth": 6 * 10**8 + 2}},
    {"model": {"widths": (2**16, 2**16, 2**16)}},
    {"model": {"widths": (2**31 - 1,) * 3}},
    {"parallel": {"devices": 2**31 - 1}},
    {"parallel": {"bn_group_size": 2**31 - 1}},
    {"parallel": {"host_timeout": 2**31 - 1}},
    {
        **dict.fromkeys(("steps", "steps_per_execution", "log_every"), 2**31 - 1),
        **{"eval_every": 0, "checkpoint_every": 0},
    },
    {"seed": 10**5000},
    {"seed": nested(600)},
    {"model": {"widths": nested(600)}},
    {"model": {"widths": {1: 2}}},
]


@pytest.mark.parametrize("number", range(len(ABSURD)))
def test_absurd_values_are_refused_in_a_line(number):
    """Values too large for int32 or float32, for memory, or to compile."""
    with pytest.raises(ConfigError) as error:
        Program(tiny.config(**ABSURD[number]))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.slow
def test_random_configs_run_or_are_refused():
    outcomes = try_many(8)
    assert min(outcomes["ran"], outcomes["refused"]) >= 3
