"""One compiled program and its uninterrupted run, shared by a process's tests."""

import pytest

from cnn_jax.training.program import Program
from tests import tiny
from tests.training.uninterrupted import Uninterrupted


@pytest.fixture(scope="session")
def program():
    return Program(tiny.config())


@pytest.fixture(scope="session")
def reference(program, tmp_path_factory):
    return Uninterrupted.train(program, tmp_path_factory.mktemp("reference") / "run")
