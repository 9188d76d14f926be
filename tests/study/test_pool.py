"""Tasks in several processes: errors, killed processes and signals are reported."""

import multiprocessing
import os
import signal
import time

import pytest

from cnn_jax.names import ConfigError
from cnn_jax.study import pool


class Failing:
    """A task that cannot be computed."""

    name = "failing"

    def cached(self):
        return None

    def compute(self):
        raise ConfigError("it cannot be computed")


def test_what_a_task_raises_in_a_process_comes_out(tmp_path):
    with pytest.raises(ConfigError, match="it cannot be computed"):
        pool.compute_all([Failing(), Failing()], 2, print)


class Here(Failing):
    """A task that tells in which process it was computed."""

    def compute(self):
        return os.getpid()


def test_a_quota_of_one_core_needs_no_other_process(monkeypatch):
    monkeypatch.setattr("cnn_jax.runtime.backend.cores", lambda: [0, 1])
    monkeypatch.setattr("cnn_jax.runtime.backend.capacity", lambda: 1)
    assert pool.compute_all([Here(), Here()], 0, print) == [os.getpid()] * 2


class Endless(Failing):
    """A task that never ends."""

    name = "endless"

    def compute(self):
        time.sleep(600)


class Killed(Failing):
    """A task that needs more memory than the machine has."""

    name = "killed"

    def compute(self):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize(
    "tasks",
    [
        (Killed(), Endless()),
        pytest.param((Endless(), Killed()), marks=pytest.mark.slow),
    ],
)
def test_a_process_that_is_killed_is_told_at_once_and_in_a_line(tasks):
    begun = time.monotonic()
    names = " or ".join(task.name for task in tasks)
    with pytest.raises(ChildProcessError, match=f"during {names}; finished"):
        pool.compute_all(tasks, 2, print)
    assert time.monotonic() - begun < 300  # the other task would take 600


@pytest.mark.slow
def test_processes_of_others_go_on_where_a_task_fails():
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    other.start()
    try:
        with pytest.raises(ConfigError, match="it cannot be computed"):
            pool.compute_all([Failing(), Endless()], 2, print)
        time.sleep(0.2)
        assert other.is_alive()
        assert multiprocessing.active_children() == [other]
    finally:
        other.terminate()
        other.join()
