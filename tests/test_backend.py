"""The flag against miscompilation: where it is needed, and never over a user's."""

import os

import jax
import jax.numpy as jnp
import jaxlib
import pytest

import cnn_jax
from cnn_jax.backend import FLAG, avoid_miscompilation


@pytest.mark.parametrize(
    ("version", "before", "after"),
    [
        ("0.10.2", {}, f"{FLAG}=-reduce"),
        ("0.10.2", {"XLA_FLAGS": "--a=1"}, f"--a=1 {FLAG}=-reduce"),
        ("0.10.2", {"XLA_FLAGS": f"{FLAG}="}, f"{FLAG}="),
        ("0.12.0.1", {"XLA_FLAGS": "--a=1"}, "--a=1"),
        ("0.12.0.1", {}, None),
    ],
)
def test_the_flag(version, before, after):
    avoid_miscompilation(before, version)
    assert before.get("XLA_FLAGS") == after


def test_importing_the_package_sets_it():
    assert cnn_jax.__doc__
    expected = jaxlib.__version__ == "0.10.2"
    assert (FLAG in os.environ.get("XLA_FLAGS", "")) == expected


def test_the_known_miscompilation_does_not_happen():
    """The program of jax issue 39103, last row: (32768 + 0 + 0) squared."""
    rows = jnp.arange(32769.0)[:, None] * jnp.array([[1.0, 0.0, 0.0]])
    squares = jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2))
    assert jax.jit(squares)(rows)[-1] == 32768.0**2
