"""Test set-up: eight virtual CPU devices and no silent rank promotion."""

import gc
import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("MPLBACKEND", "agg")
os.environ["CNN_JAX_KEEP_HEAP"] = "false"  # tests share a process and its memory
# Tests neither read nor write the user's own directories.
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
os.environ.pop("JAX_ENABLE_COMPILATION_CACHE", None)

import jax
import jaxlib
import pytest

from cnn_jax import kernels
from cnn_jax.kernels import extension
from cnn_jax.runtime import compilation_cache

pytest_plugins = ["tests.needs"]
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    """The default run compiles with fewer optimisations: that takes half the time.

    With ``-m slow``, and where all tests are run, programs are compiled as users' are.
    """
    # The flags are read when the backend starts, so nothing imported above starts it.
    if "not slow" in config.option.markexpr:
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"  # for other processes
        jax.config.update("jax_disable_most_optimizations", True)
        flags = " --xla_cpu_parallel_codegen_split_count=1"
        if jaxlib.__version__.startswith("0.10."):  # XLA ends on flags it does not know
            flags += " --xla_cpu_use_fusion_emitters=false"
        os.environ["XLA_FLAGS"] += flags
    broken = broken_extension()
    if broken:
        raise pytest.UsageError(broken)
    if kernels.advice():  # no compiler here; commands print what tests do not expect
        os.environ["CNN_JAX_ONEDNN"] = "false"


def broken_extension() -> str:
    """Why a compiled extension that is here is not used; '' if all is well.

    Its tests would be skipped. It is fine not to have it, or to switch it off.
    """
    note, file = kernels.advice(), extension.compiled_file()
    if not note or file is None:
        return ""
    advice = f"to test without it, set {extension.SWITCH}=false"
    return f"{file} is not used; {advice}; {note}"


def pytest_collection_finish():
    """Search for garbage less often, and never in what is imported by now."""
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.fixture(scope="session", autouse=True)
def session_directory(tmp_path_factory):
    """A directory for this session, shared by all its processes.

    It caches compiled programs, because many tests compile the same ones.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # a worker's directory is in the session's
        base = base.parent
    # `tests.mutation` keeps compiled programs from one session to the next.
    programs = os.environ.pop("CNN_JAX_TEST_PROGRAMS", str(base / "cache"))
    compilation_cache.enable({"XDG_CACHE_HOME": programs})
    return base


@pytest.fixture(autouse=True)
def quiet_home(session_directory, monkeypatch):
    """Redirect prepared data and compiled programs to the session's directory."""
    prepared = session_directory / "tensorflow_datasets"
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    monkeypatch.setenv("XDG_CACHE_HOME", str(session_directory / "cache"))


@pytest.fixture(scope="session")
def program():
    """The compiled program of the tiny run, shared by a process's tests."""
    from cnn_jax.training.program import Program
    from tests import tiny

    return Program(tiny.config())


@pytest.fixture(scope="session")
def reference(program, tmp_path_factory):
    """The uninterrupted tiny run; no test may change its directory."""
    from tests.training.uninterrupted import Uninterrupted

    return Uninterrupted.train(program, tmp_path_factory.mktemp("reference") / "run")
