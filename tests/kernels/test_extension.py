"""The compiled extension: loading, answers, and the memory of its process."""

import ctypes
import importlib
import importlib.machinery
import pathlib
import shutil
import subprocess
import sys

import pytest

from cnn_jax import kernels
from cnn_jax.kernels import extension, sources
from tests.needs import needs

FOLDER = pathlib.Path(extension.__file__).parent

pytestmark = needs("oneDNN")


def test_a_user_without_the_compiled_file_is_told(monkeypatch):
    assert kernels.advice() == ""
    monkeypatch.setattr(extension, "attempt", extension.attempt.__wrapped__)
    monkeypatch.setattr(extension, "MODULE", "cnn_jax.kernels.no_such_module")
    assert kernels.library() == "xla"
    assert "is not compiled; with a C++ compiler (g++)" in kernels.advice()
    assert "pip install -v -e ." in kernels.advice()
    monkeypatch.setenv(extension.SWITCH, "false")
    assert kernels.advice() == ""


def test_nothing_is_loaded_without_the_library(monkeypatch):
    monkeypatch.setattr(extension, "DISTRIBUTION", "no-such-distribution")
    loaded, reason = extension.attempt.__wrapped__()
    assert loaded is None
    assert reason == "cannot be loaded (no-such-distribution is not installed)"
    assert isinstance(extension.load(), ctypes.CDLL)


def test_a_damaged_file_is_named_with_what_the_system_says(monkeypatch, tmp_path):
    file = tmp_path / "_onednn.abi3.so"
    file.write_text("no library")
    monkeypatch.setattr(extension, "compiled_file", lambda: file)
    loaded, reason = extension.attempt.__wrapped__()
    assert loaded is None
    assert str(file) in reason


def test_the_compiled_file_is_found_by_any_suffix_of_this_interpreter(
    monkeypatch, tmp_path
):
    assert extension.compiled_file().parent == FOLDER
    monkeypatch.setattr(kernels, "__path__", [str(tmp_path)])
    assert extension.compiled_file() is None
    file = tmp_path / f"_onednn{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    file.touch()
    importlib.invalidate_caches()
    assert extension.compiled_file() == file


def test_an_extension_of_other_sources_is_not_used(monkeypatch, tmp_path):
    copy = tmp_path / "kernels"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("*.so", "__*"))
    attempt = extension.attempt.__wrapped__
    monkeypatch.setattr(extension, "__file__", str(copy / "extension.py"))
    compiled = extension.compiled_file()
    monkeypatch.setattr(extension, "compiled_file", lambda: compiled)
    assert attempt()[1] == ""
    with open(copy / "threads.h", "a") as file:
        file.write("// edited")
    assert attempt() == (None, "was compiled from other C++ files")
    # an installed wheel
    for file in (*copy.glob("*.cc"), *copy.glob("*.h")):
        file.unlink()
    assert attempt()[1] == ""


def test_what_identifies_the_sources(tmp_path):
    # what editors and file systems put beside a file
    (tmp_path / ".#onednn.cc").symlink_to("me@host.1234")
    (tmp_path / "._onednn.cc").touch()
    assert sources.digest(tmp_path) is None
    found = set()
    for name, content in (("a.cc", ""), ("b.h", ""), ("a.cc", "b"), ("c.py", "d")):
        (tmp_path / name).write_text(content)
        found.add(sources.digest(tmp_path))
    assert len(found) == 3
    macro = sources.macro(tmp_path)
    assert macro == (sources.MACRO, f"0x{sources.digest(tmp_path):016x}u")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no C\+\+ files"):
        sources.macro(tmp_path / "empty")


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
