"""Hosts that differ, and hosts that die at various moments."""

import numpy as np
import pytest

from cnn_jax.training.run_directory import RunDirectory
from tests.training.test_hosts import (
    assert_goes_on,
    cache,
    config,
    ended,
    ending,
    job,
    started,
    wait_for_row,
)

__all__ = ["cache"]
pytestmark = pytest.mark.soak


def test_hosts_with_different_devices_are_refused(tmp_path, cache):
    differing = config(devices=0)
    with started(cache, job(differing, tmp_path / "run"), devices=(2, 1)) as running:
        statuses, said = ended(running)
    assert statuses == [2, 2]
    for words in said:
        assert "error: all hosts need the same devices; they have 2 x cpu, 1 x" in words


def test_hosts_with_different_configs_are_refused(tmp_path, cache):
    one, other = config(), {**config(), "batch_size": 16}
    place = tmp_path / "run"
    with started(cache, job(one, place), other=job(other, place)) as running:
        statuses, said = ended(running)
    assert statuses == [2, 2]
    for words in said:
        assert "error: host(s) 1 differ from host 0 in the config" in words
    assert not place.exists()


def test_stopped_killed_and_started_again_with_shard_map(tmp_path, cache):
    sharded, whole = config("shard_map"), tmp_path / "whole"
    with started(cache, job(sharded, whole)) as running:
        assert ended(running)[0] == [0, 0]
    assert_goes_on(sharded, RunDirectory(tmp_path / "run"), whole, cache)


@pytest.mark.parametrize("seed", range(4))
def test_either_host_dies_at_any_moment(tmp_path, cache, seed):
    """Both are restarted until the end; the run equals an uninterrupted one."""
    rng = np.random.default_rng(seed)
    whole, killed = tmp_path / "whole", RunDirectory(tmp_path / "killed")
    with started(cache, job(config(), whole)) as running:
        assert ended(running)[0] == [0, 0]
    for row in (3, 6, 9):
        with started(cache, job(config(), killed.path, seconds=0.2)) as running:
            wait_for_row(killed, running, row)
            victim = int(rng.integers(2))
            running[victim].kill()
            statuses, _ = ended(running)
        assert statuses[victim] == -9
        assert statuses[1 - victim] != 0
        assert killed.result() is None
    with started(cache, job(config(), killed.path)) as running:
        assert ended(running)[0] == [0, 0]
    log, state = ending(killed.path, config())
    expected_log, expected = ending(whole, config())
    assert log == expected_log
    for leaf, wanted in zip(state, expected, strict=True):
        np.testing.assert_array_equal(leaf, wanted)
