"""The amount of available memory."""

import os

import pytest

from cnn_jax import names
from cnn_jax.data import memory


def test_a_container_has_its_own_limit(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CGROUP", str(limit))
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory.total() == machine
    limit.write_text("max\n")
    assert memory.total() == machine
    limit.write_text("5000000\n")
    assert memory.total() == 5_000_000
    memory.check(5_000_000, "sets", "make it smaller")
    with pytest.raises(names.ConfigError, match=r"sets need 6\.0 GB .*; make it sm"):
        memory.check(6 * 10**9, "sets", "make it smaller")


def test_where_memory_is_unknown_nothing_is_refused(monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    assert memory.total() == 0
    memory.check(10**30, "sets", "make it smaller")
