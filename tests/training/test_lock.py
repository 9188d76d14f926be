"""A lock between processes, and its cross-check between machines."""

import fcntl
import os
import shutil
import signal
import socket
import threading
import time

import pytest

from cnn_jax.names import ConfigError
from cnn_jax.training import checkpoint, lock
from cnn_jax.training.interrupt import StopRequest
from cnn_jax.training.loop import fit
from cnn_jax.training.run_directory import RunDirectory


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lock, "SIGN_EVERY", 0.05)
    monkeypatch.setattr(lock, "WATCH", 0.5)


def elsewhere(monkeypatch):
    """Make this process appear to be on another machine."""
    monkeypatch.setattr("socket.gethostname", lambda: "another")


def test_a_released_lock_is_free_at_once_everywhere(tmp_path, monkeypatch, capsys):
    path = tmp_path / "lock"
    with lock.hold(path):
        assert lock.held(path)
    assert not lock.held(path)
    elsewhere(monkeypatch)
    with lock.hold(path):
        assert path.read_text() == f"process {os.getpid()} on another\n"
    assert capsys.readouterr().err == ""


def test_whoever_only_looks_is_not_in_the_way(tmp_path):
    path = tmp_path / "lock"
    path.touch()
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as `held` does
        gone = threading.Timer(0.2, fcntl.flock, (file, fcntl.LOCK_UN))
        gone.start()
        with lock.hold(path):
            assert lock.held(path)
        gone.join()


def test_many_looks_and_no_holder_is_turned_away(tmp_path):
    path, done = tmp_path / "lock", threading.Event()
    path.touch()

    def look():
        while not done.is_set():
            lock.held(path)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(100):
            with lock.hold(path):
                assert lock.held(path)
    finally:
        done.set()
        looking.join()


def test_one_left_by_the_dead_is_taken_after_a_look(tmp_path, monkeypatch, capsys):
    path = tmp_path / "lock"
    path.write_text("process 1 on machine\n")
    started = time.monotonic()
    with lock.hold(path):
        assert time.monotonic() - started > lock.WATCH
    assert "process 1 on machine has not released the lock" in capsys.readouterr().err


def test_locks_that_do_not_reach_are_found_out(tmp_path, monkeypatch):
    """Each machine obtains the lock; the second sees that the first is alive."""
    path = tmp_path / "lock"
    with lock.hold(path):
        monkeypatch.setattr("fcntl.flock", lambda file, how: None)
        elsewhere(monkeypatch)
        with (
            pytest.raises(ConfigError, match="does not share locks between machines"),
            lock.hold(path),
        ):
            pass
        assert "another" not in path.read_text()


def test_whoever_is_overtaken_stops(tmp_path, capsys):
    """Two processes took the lock simultaneously: the first ends with SIGTERM."""
    path = tmp_path / "lock"
    with StopRequest() as stop, lock.hold(path):
        path.write_text("process 1 on another\n")
        deadline = time.monotonic() + 10
        while not stop.received and time.monotonic() < deadline:
            time.sleep(0.01)
    assert stop.received == signal.SIGTERM
    assert "process 1 on another" in capsys.readouterr().err
    # not 'released', which would take over from the other
    assert path.read_text() == "process 1 on another\n"


@pytest.mark.parametrize(("step", "rows"), [(5, [3]), (6, [3, 6])])
def test_whoever_is_overtaken_writes_nothing_more(program, tmp_path, step, rows):
    """Neither the log row of step 6 nor a checkpoint of the step after the signal."""
    place = RunDirectory(tmp_path / "run")

    def take(now, row):
        if now == step:
            (place.path / "lock").write_text("process 1 on another\n")
            time.sleep(0.5)  # SIGTERM has come

    with (
        StopRequest() as stop,
        pytest.raises(lock.InUse, match="process 1 on another took over"),
    ):
        fit(program, 0, place, take)
    assert stop.received == signal.SIGTERM
    names = [path.name for path in checkpoint.steps(place.checkpoints)]
    assert names == ["step_000000004.ckpt"]
    assert [row["step"] for row in place.rows()] == rows
    assert (place.path / "lock").read_text() == "process 1 on another\n"


@pytest.mark.parametrize("what", ["renamed", "deleted", "replaced", "lock deleted"])
@pytest.mark.parametrize(
    "step", [6, *(pytest.param(step, marks=pytest.mark.slow) for step in (5, 11))]
)
def test_a_directory_that_goes_away_under_a_run(program, tmp_path, what, step):
    """At a log row, a checkpoint or the result: the error and what to do."""
    place = RunDirectory(tmp_path / "run")

    def remove(now, row):
        if now == step:
            if what == "lock deleted":
                (place.path / "lock").unlink()
                return
            if what == "deleted":
                shutil.rmtree(place.path)
            else:
                place.path.rename(tmp_path / "moved")
            if what == "replaced":
                shutil.copytree(tmp_path / "moved", place.path)

    with pytest.raises(ConfigError) as error:
        fit(program, 0, place, remove)
    expected = {
        "lock deleted": "run/lock was deleted",
        "deleted": "run was renamed, deleted or replaced",
    }
    assert expected.get(what, expected["deleted"]) in str(error.value)
    assert place.path.exists() == (what in ("replaced", "lock deleted"))
    if what == "renamed":  # the advice is good
        (tmp_path / "moved").rename(place.path)
        assert fit(program, 0, place)["step"] == 12


def test_a_lock_file_that_is_no_text_is_written_over(tmp_path):
    """The run's own damaged lock; see `test_run_directory` for others' locks."""
    path = tmp_path / "lock"
    path.write_bytes(b"\xff\xfe process\x00")
    with lock.hold(path):
        assert path.read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def none(file, how):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", none)
    with (
        pytest.raises(
            ConfigError, match=r"not support file locks \(Function not implemented\)"
        ),
        lock.hold(tmp_path / "lock"),
    ):
        pass
