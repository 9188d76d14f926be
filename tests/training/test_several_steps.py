"""Several steps per call give the bits of single steps, in a process as users start it.

The compiler's flags of this test session compile another program, in which the loop's
bits are those of single steps even where they would not be a user's.
"""

import os
import subprocess
import sys

import pytest

LOSSES = """
import sys
from cnn_jax import study
from cnn_jax.training import run
from configs import degradation_digits

config = degradation_digits.get_config()
config.depths, config.seeds = (20,), (0,)
config.run.steps = config.run.log_every = 6
config.run.schedule = {"name": "piecewise", "rates": (0.1,), "boundaries": ()}
[residual] = [one for one in study.expand(config) if one.family == "residual"]
for steps in (1, 6):
    directory = f"{sys.argv[1]}/{steps}"
    result = run.train({**residual.config, "steps_per_execution": steps}, directory)
    print("losses", result["clean_train_loss"].hex(), result["test_loss"].hex())
"""


@pytest.mark.slow
def test_several_steps_have_the_bits_of_single_ones(tmp_path):
    flags = ("XLA_FLAGS", "CNN_JAX_XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
    done = subprocess.run(
        [sys.executable, "-c", LOSSES, tmp_path],
        env={name: value for name, value in os.environ.items() if name not in flags},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("losses")]
    single, several = lines
    assert several == single
