"""Any config is refused with a line, or builds, takes a step and evaluates."""

import math
import traceback

import hypothesis

from cnn_jax.names import ConfigError
from cnn_jax.train.program import Program
from tests.drawn_configs import configs


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
    state = program.devices.replicate(program.initial_state(config["seed"]))
    batches = program.source.train_batches(config["seed"], config["batch_size"], 0)
    item, _ = next(batches)
    state, sums = program.train_step(
        state, program.resident, program.devices.split(item)
    )
    sums = program.devices.fetch(sums)
    assert sums["count"] == config["batch_size"]
    assert int(program.devices.fetch(state.step)) == 1
    measured = program.evaluate(state, "test")
    assert math.isnan(measured["error"]) or 0 <= measured["error"] <= 1
    return True


@hypothesis.given(config=configs())
@hypothesis.settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.generate],
)
def test_a_random_config_runs_or_is_refused(config):
    hypothesis.event("ran" if try_config(config) else "refused")
