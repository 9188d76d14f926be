"""A study in several processes: no run is lost, and none runs twice."""

import collections
import fcntl
import multiprocessing
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from cnn_jax import study
from cnn_jax.names import ConfigError
from cnn_jax.study import execution
from cnn_jax.training.run_directory import RunDirectory
from tests import tiny
from tests.needs import needs
from tests.study import attempts
from tests.training.host import Normalised


def small_study(**changes):
    base = {
        "name": "tiny",
        "families": {
            "plain": {"model": {"shortcut": "none"}},
            "residual": {"model": {"shortcut": "A"}},
        },
        "depths": (8,),
        "seeds": (0, 1),
        "overrides": {},
        "run": tiny.config(
            model={"name": f"{__name__}:Wordy"},  # compiles fast
            **{"steps": 4, "eval_every": 0, "log_every": 4, "checkpoint_every": 1},
            log=attempts.WRITERS,
        ),
    }
    return study.expand(study.merge(base, changes))


def diverging_study():
    return small_study(
        seeds=(0,),
        families={
            "plain": {
                "model": {"name": "tests.training.test_loop:Explosive"},
                "schedule": {"rates": (1e30,), "boundaries": ()},
            },
        },
    )


@pytest.mark.slow
def test_a_worker_that_is_killed_leaves_its_run_to_the_others(tmp_path):
    runs = small_study()
    events, killed = [], []

    def report(event):
        events.append(event)
        if not killed and event.step >= 1:
            worker = multiprocessing.active_children()[0]
            worker.kill()
            killed.append(worker)

    assert execution.execute(runs, tmp_path, report, workers=2) == []
    killed[0].join()
    assert killed[0].exitcode == -9
    ended = [e.run.name for e in events if e.status in ("finished", "skipped")]
    assert sorted(ended) == sorted(run.name for run in runs)
    again = attempts.counted(tmp_path) - collections.Counter(run.name for run in runs)
    assert again.total() <= 1  # the killed one, if it was in training
    for run in runs:
        rows = RunDirectory(tmp_path / "runs" / run.name).rows()
        assert [row["step"] for row in rows] == [4]


@pytest.mark.slow
def test_workers_that_are_killed_within_a_word_leave_the_study_going(tmp_path):
    """Their messages exceed a pipe's buffer, and the parent does not read them."""
    model = {"name": "tests.study.test_execution:Wordy", "words": "x" * 200_000}
    runs = small_study(run={"model": model, "log_every": 1}, seeds=(0,))
    killed = []

    def report(event):
        if not killed and event.step >= 1:
            place, deadline = execution.directory_of(event.run, tmp_path), 30
            while len(place.rows()) < 2 and deadline > 0:
                time.sleep(0.1)
                deadline -= 0.1
            time.sleep(0.5)  # it is reporting the second row now
            for worker in multiprocessing.active_children():
                worker.kill()
                killed.append(worker)

    def too_long(number, frame):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(180)
    try:
        assert execution.execute(runs, tmp_path, report, workers=2) == []
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert killed
    assert all(RunDirectory(tmp_path / "runs" / run.name).result() for run in runs)


@pytest.mark.slow
def test_a_run_in_other_hands_is_left_to_them(tmp_path):
    runs = small_study()
    place = RunDirectory(tmp_path / "runs" / runs[0].name)
    place.path.mkdir(parents=True)
    (place.path / "lock").write_text("process 1 on elsewhere\n")
    events = []
    with open(place.path / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert place.held()
        unfinished = execution.execute(runs, tmp_path, events.append)
    assert [event.run for event in unfinished] == [runs[0]]
    assert unfinished[0].status == "elsewhere"
    assert "process 1 on elsewhere" in unfinished[0].message
    # the shape that another worker is training came last
    order = [event.run.name for event in events if event.status == "finished"]
    assert order == ["residual-8-seed0", "residual-8-seed1", "plain-8-seed1"]
    assert not place.held()


@pytest.mark.slow
def test_a_diverged_run_is_marked_and_the_others_go_on(tmp_path):
    runs = diverging_study()
    for _ in range(2):  # the second time from its marker file, without training
        events = []
        unfinished = execution.execute(runs, tmp_path, events.append)
        assert [e.status for e in unfinished] == ["diverged"]
        assert "at step" in unfinished[0].message
        ended = {e.run.family: e.status for e in events if e.status != "running"}
        assert ended["residual"] in ("finished", "skipped")
    table = study.load(tmp_path)
    assert dict(zip(table["family"], table["status"], strict=True)) == {
        "plain": "diverged",
        "residual": "finished",
    }


def test_a_mark_that_cannot_be_written_fails_its_run_alone(tmp_path, monkeypatch):
    runs, finish, held = diverging_study(), RunDirectory.finish, []

    def full(place, result):
        held.append(place.held())
        if result["status"] == "diverged":
            raise OSError(28, "No space left on device")
        finish(place, result)

    monkeypatch.setattr(RunDirectory, "finish", full)
    events = []
    unfinished = execution.execute(runs, tmp_path, events.append)
    assert [(e.run.family, e.status) for e in unfinished] == [("plain", "failed")]
    assert "No space left" in unfinished[0].message
    assert [e.run.family for e in events if e.status == "finished"] == ["residual"]
    assert held == [True, True], "written without the run's lock"


def test_a_run_that_another_finished_is_not_marked(tmp_path, monkeypatch):
    """Between the end of the diverged attempt and the writing of its marker."""
    (run,) = [run for run in diverging_study() if run.family == "plain"]
    place = execution.directory_of(run, tmp_path)
    fit = execution.fit

    def taken_over(*arguments):
        try:
            return fit(*arguments)
        finally:
            place.finish({"status": "finished"})

    monkeypatch.setattr(execution, "fit", taken_over)
    events = []
    assert execution.execute([run], tmp_path, events.append) == []
    assert events[-1].status == "finished"
    assert place.result() == {"status": "finished"}


def test_an_error_of_a_worker_reaches_the_caller(tmp_path):
    runs = small_study(run={"parallel": {"devices": 9}}, seeds=(0,))
    with pytest.raises(ConfigError, match="devices 9"):
        execution.execute(runs, tmp_path, lambda event: None, workers=2)


def test_a_worker_that_cannot_be_started_is_one_line(tmp_path, monkeypatch):
    """And the one that was started is told to end."""
    start, started = multiprocessing.process.BaseProcess.start, []

    def second_fails(process):
        if started:
            raise OSError(11, "Resource temporarily unavailable")
        start(process)
        started.append(process)

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", second_fails)
    with pytest.raises(ConfigError, match="worker 2 of 2: Resource temp") as error:
        execution.execute(small_study(), tmp_path, print, workers=2)
    assert "\n" not in str(error.value)
    assert started[0].exitcode is not None


# A separate process, whose first worker is its first child.
STARTS = """
import multiprocessing, pathlib, re, sys
from cnn_jax.study import execution
from cnn_jax.names import ConfigError
from tests.study.test_execution import small_study

def started(process):
    start(process)
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    print(int(re.findall("SigBlk:(.*)", status)[0], 16))

if __name__ == "__main__":
    start = multiprocessing.process.BaseProcess.start
    multiprocessing.process.BaseProcess.start = started
    runs = small_study(run={"parallel": {"devices": 9}}, seeds=(0,))
    try:
        execution.execute(runs, pathlib.Path(sys.argv[1]), print, workers=2)
    except ConfigError as error:
        assert "devices 9" in str(error)
"""


@pytest.mark.slow
@needs("glibc")
def test_workers_start_with_signals_blocked(tmp_path):
    """Otherwise Ctrl-C during their imports prints a traceback from each."""
    done = subprocess.run(
        [sys.executable, "-c", STARTS, str(tmp_path)],
        cwd=pathlib.Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    masks = [int(line) for line in done.stdout.splitlines()]
    assert [mask >> (signal.SIGINT - 1) & 1 for mask in masks] == [1, 1], done.stderr


def test_a_worker_that_is_done_is_not_interrupted_in_its_end():
    code = """
import atexit, multiprocessing, os, pathlib, signal, time
from cnn_jax.study import processes

def at_the_end():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)
    print("ended")

atexit.register(at_the_end)
work = lambda *given: None
processes._worker(work, [], pathlib.Path(), multiprocessing.Pipe()[1], (), False)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


def test_workers_are_one_a_core_and_no_more_than_shapes(monkeypatch):
    runs, capacity = small_study(), "cnn_jax.runtime.backend.capacity"
    monkeypatch.setattr(capacity, lambda: 64)
    assert execution.default_workers(runs) == 2
    monkeypatch.setattr(capacity, lambda: 1)
    assert execution.default_workers(runs) == 1
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    monkeypatch.setattr(capacity, lambda: 64)
    assert execution.default_workers(runs) == 1


class Wordy(Normalised):
    """A small net with a long config, which makes each report long."""

    shortcut: str = "A"
    words: str = ""


def test_edited_code_of_a_plugin_is_said(tmp_path, capsys):
    runs = small_study(seeds=(0,))[:1]
    place = execution.directory_of(runs[0], tmp_path)
    recorded = {**runs[0].config, "plugins": {"tests.tiny": "of other code"}}
    with place.open_for_training(recorded):
        place.finish({"status": "finished"})
    execution.execute(runs, tmp_path, lambda event: None)
    assert "the code of tests.tiny has changed since" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "value"), [("data_fingerprint", "of other data"), ("bn_images", 4)]
)
def test_runs_on_other_data_do_not_join_a_study(key, value, tmp_path):
    """Finished runs count too, although their data are not opened again."""
    old, new = small_study(seeds=(0, 1))[:2]
    place = execution.directory_of(old, tmp_path)
    with place.open_for_training({**old.config, key: value}):
        place.finish({"status": "finished"})
    with pytest.raises(ConfigError, match=rf"{key} \(was .*, is .*not comparable"):
        execution.execute([old, new], tmp_path, lambda event: None)


def test_strangers_in_a_studys_directory_are_not_compared(tmp_path):
    """Such as a copy of a run that was trained on other data."""
    (new,) = small_study(seeds=(0,))[:1]
    other = RunDirectory(tmp_path / "runs" / "old copy")
    with other.open_for_training({**new.config, "data_fingerprint": "of other data"}):
        other.finish({"status": "finished"})
    assert execution.execute([new], tmp_path, lambda event: None) == []
