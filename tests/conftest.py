"""Test set-up: eight virtual CPU devices, and no silent rank promotion."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("MPLBACKEND", "agg")
os.environ["CNN_JAX_KEEP_HEAP"] = "false"  # tests share a process, and its memory

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True)
def quiet_home(tmp_path_factory, monkeypatch):
    """What a test prepares or compiles is the session's, never the user's own."""
    base = tmp_path_factory.getbasetemp().parent / "tensorflow_datasets"
    monkeypatch.setenv("TFDS_DATA_DIR", str(base))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
