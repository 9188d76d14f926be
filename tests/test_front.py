"""The public names of `cnn_jax`, as a notebook imports them."""

import json
import subprocess
import sys

import pytest

import cnn_jax

# They take a second or more to import, or only commands need them.
HEAVY = (
    *("flax", "optax", "pandas", "matplotlib", "sklearn", "tensorflow_datasets"),
    *("grain", "torch", "tensorflow", "experiments", "cnn_jax.data"),
)


def test_importing_the_package_is_light_and_starts_no_backend():
    """In another process, because this one has imported everything."""
    code = (
        "import json, sys, cnn_jax; from jax._src import xla_bridge; "
        "print(json.dumps([sorted(sys.modules), bool(xla_bridge._backends)]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    modules, started = json.loads(found.stdout)
    assert not set(HEAVY) & set(modules)
    assert not started
    assert "cnn_jax.runtime.backend" in modules


def test_the_front_door_is_listed_and_the_rest_is_refused():
    assert {"train", "load_run", "load_study"} <= set(dir(cnn_jax))
    for name in ("train", "load_run"):
        assert getattr(cnn_jax, name).__name__ == name
    assert cnn_jax.load_study.__module__ == "cnn_jax.study.results"
    with pytest.raises(AttributeError, match="'cnn_jax' has no attribute 'load'"):
        cnn_jax.load  # noqa: B018
