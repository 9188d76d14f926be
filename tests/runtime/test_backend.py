"""The flag against miscompilation: set where needed, never over the user's."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import jaxlib
import pytest

import cnn_jax
from cnn_jax.runtime import backend
from cnn_jax.runtime.backend import FLAG, choose_library
from tests.needs import needs


@pytest.fixture
def cores(monkeypatch):
    """A function that sets the apparent number of cores; one at first."""

    def have(count):
        monkeypatch.setattr("cnn_jax.runtime.backend.cores", lambda: list(range(count)))

    have(1)
    return have


@pytest.mark.parametrize(
    ("version", "before", "after"),
    [
        ("0.10.2", {}, f"{FLAG}=-reduce"),
        ("0.10.2", {"XLA_FLAGS": "--a=1"}, f"--a=1 {FLAG}=-reduce"),
        ("0.10.2", {"XLA_FLAGS": f"{FLAG}="}, f"{FLAG}="),
        ("0.10.2", {"XLA_FLAGS": "a_file"}, "a_file"),
        ("0.12.0.1", {"XLA_FLAGS": "--a=1"}, "--a=1"),
        ("0.12.0.1", {}, None),
    ],
)
def test_the_flag(version, before, after, cores):
    choose_library(before, version)
    assert before.get("XLA_FLAGS") == after


def test_a_process_with_other_cores_chooses_again(cores):
    cores(2)
    environment = {"XLA_FLAGS": "--a=1"}
    choose_library(environment, "0.10.2")
    wide = f"--a=1 {FLAG}=-reduce,-individual_convolution"
    assert environment["XLA_FLAGS"] == wide
    cores(1)
    choose_library(environment, "0.10.2")
    assert environment["XLA_FLAGS"] == f"--a=1 {FLAG}=-reduce"
    choose_library(environment, "0.12.0.1")  # another jaxlib, started from this one
    assert environment == {"XLA_FLAGS": "--a=1"}


def test_what_a_user_chose_stays_in_processes_that_are_started(cores):
    environment = {"XLA_FLAGS": f"{FLAG}=-reduce"}
    cores(2)
    for _ in range(2):
        choose_library(environment, "0.10.2")
        assert environment == {"XLA_FLAGS": f"{FLAG}=-reduce"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "5000 100000\n"}, 1),
        ({"cpu.max": "1600000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "200000\n"}, 8),
    ],
)
def test_a_container_has_its_own_quota(files, expected, cores, tmp_path, monkeypatch):
    cores(8)
    monkeypatch.setattr(backend, "CGROUP", str(tmp_path))
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert backend.capacity() == expected


@needs("a faulty jaxlib")
@pytest.mark.parametrize(
    "count",
    [
        pytest.param(1, marks=pytest.mark.slow),
        pytest.param(2, marks=needs("two cores")),
    ],
)
def test_a_convolution_goes_to_the_library_on_one_core_only(count):
    program = """
import os
import sys

os.sched_setaffinity(0, list(os.sched_getaffinity(0))[: int(sys.argv[1])])

import cnn_jax
import jax
import jax.numpy as jnp
from jax import lax

convolve = jax.jit(
    lambda x, k: lax.conv_general_dilated(
        x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
)
shapes = jnp.zeros((8, 16, 16, 32)), jnp.zeros((3, 3, 32, 32))
print(convolve.lower(*shapes).compile().as_text())
"""
    environment = {**os.environ, "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, "-c", program, str(count)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("ynn" in done.stdout) == (count == 1)


def test_importing_the_package_sets_it():
    assert cnn_jax.__doc__
    expected = jaxlib.__version__ == "0.10.2"
    assert (FLAG in os.environ.get("XLA_FLAGS", "")) == expected


def test_the_known_miscompilation_does_not_happen():
    """Sums of squares, which jaxlib 0.10.2 miscompiles: (32768 + 0 + 0) squared."""
    rows = jnp.arange(32769.0)[:, None] * jnp.array([[1.0, 0.0, 0.0]])
    squares = jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2))
    assert jax.jit(squares)(rows)[-1] == 32768.0**2
