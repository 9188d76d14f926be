"""Several steps per call give the bits of single steps, in a process as users start it.

This session has eight virtual devices and may compile with fewer optimisations; a
user's process does not, and XLA then fuses other operations.
"""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECIPES = ("resnet_digits", "alexnet_digits")
# Six steps of recipes by one and by six steps per call; prints the parameters' hashes.
SCRIPT = """
import hashlib
import importlib
import sys

import jax
import numpy as np

import cnn_jax
from cnn_jax.training import run

directory, *recipes = sys.argv[1:]
for recipe in recipes:
    config = importlib.import_module(f"configs.{recipe}").get_config()
    config.steps = config.log_every = 6
    config.eval_every = config.checkpoint_every = 0
    config.schedule = {"name": "piecewise", "rates": (0.1,), "boundaries": ()}
    for steps in (1, 6):
        config.steps_per_execution = steps
        run.train(config, f"{directory}/{recipe}{steps}")
        variables = cnn_jax.load_run(f"{directory}/{recipe}{steps}").variables
        leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(variables)]
        print("hash", hashlib.sha256(b"".join(leaves)).hexdigest())
"""


@pytest.mark.slow
def test_several_steps_have_the_bits_of_single_ones(tmp_path):
    flags = ("XLA_FLAGS", "CNN_JAX_XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path, *RECIPES],
        env={name: value for name, value in os.environ.items() if name not in flags},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    hashes = [line for line in done.stdout.splitlines() if line.startswith("hash ")]
    assert len(set(hashes)) == len(RECIPES)
    assert hashes[0::2] == hashes[1::2]
