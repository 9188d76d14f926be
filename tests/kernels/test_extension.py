"""The compiled extension: loading, answers, and the memory of its process."""

import ctypes
import subprocess
import sys

import pytest

from cnn_jax import kernels
from cnn_jax.kernels import extension
from tests.needs import needs

pytestmark = needs("oneDNN")


def test_a_user_without_the_compiled_file_is_told(monkeypatch):
    assert kernels.advice() == ""
    monkeypatch.setattr(extension, "load", lambda: None)
    assert kernels.library() == "xla"
    assert "C++ compiler" in kernels.advice()
    monkeypatch.setenv(extension.SWITCH, "false")
    assert kernels.advice() == ""


def test_nothing_is_loaded_without_the_library(monkeypatch):
    monkeypatch.setattr(extension, "DISTRIBUTION", "no-such-distribution")
    assert extension.load.__wrapped__() is None
    assert isinstance(extension.load(), ctypes.CDLL)


def test_an_extension_of_another_version_is_not_used(monkeypatch):
    load = extension.load.__wrapped__
    assert load() is not None
    monkeypatch.setattr(extension, "VERSION", extension.VERSION + 1)
    assert load() is None


def test_no_memory_is_not_an_answer(monkeypatch):
    """A resumed run would otherwise use other code than before."""
    answers = [-1, 1]

    class Extension:
        def cnn_jax_has(self, numbers):
            return answers.pop(0)

    monkeypatch.setattr(extension, "load", Extension)
    with pytest.raises(MemoryError, match="no memory, or no thread"):
        extension.computes((9,) * 22)
    assert extension.computes((9,) * 22)
    extension.computes.cache_clear()


SEVERAL_CALLS = """
import jax, jax.numpy as jnp
from cnn_jax.kernels.convolution import conv_general_dilated as convolve

for size, channels in ((128, 1), (224, 3), (112, 4), (64, 6)):
    x, kernel = jnp.ones((2, size, size, channels)), jnp.ones((1, 1, channels, 12))
    how = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    loss = lambda kernel: jnp.sin(convolve(x, kernel, (2, 2), "SAME", **how)).sum()
    step = jax.jit(jax.grad(loss))
    for _ in range(30):
        step(kernel).block_until_ready()
"""


@pytest.mark.slow
def test_narrow_strided_projections_leave_the_memory_of_others_alone():
    """glibc ends the process when it finds its own notes overwritten."""
    done = subprocess.run([sys.executable, "-c", SEVERAL_CALLS], capture_output=True)
    assert done.returncode == 0, done.stderr
