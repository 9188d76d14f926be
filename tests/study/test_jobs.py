"""A study in cluster jobs: killed workers, failing jobs, requested resources."""

import collections
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from cnn_jax import study
from cnn_jax.names import ConfigError
from cnn_jax.runtime import compilation_cache
from cnn_jax.study import execution, jobs
from cnn_jax.training.interrupt import Interrupted, StopRequest
from cnn_jax.training.loop import fit
from cnn_jax.training.program import Program
from cnn_jax.training.run_directory import RunDirectory
from tests import tiny
from tests.study import attempts

ROOT = pathlib.Path(__file__).resolve().parents[2]
LONG = {
    **{"steps": 300, "log_every": 100, "eval_every": 0, "checkpoint_every": 20},
    "log": attempts.WRITERS,
}
HOUR = {"timeout_min": 60}
JAX_CACHE = ("JAX_COMPILATION", "JAX_PERSISTENT", "JAX_ENABLE_COMPILATION")


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)  # where jobs find the tests' modules
    monkeypatch.setattr(jobs, "LOOK_EVERY", {"local": 0.05, "slurm": 0.2})


def small_study(**changes):
    """Runs of two shapes that compile fast and train for a few seconds."""
    base = {
        "name": "tiny",
        "families": {"plain": {}, "residual": {"optimizer": {"momentum": 0.8}}},
        "depths": (8,),
        "seeds": (0, 1),
        "overrides": {},
        "run": tiny.config(model={"name": "tests.training.host:Normalised"}, **LONG),
    }
    return study.expand(study.merge(base, changes))


class Killer:
    """A report that kills, once, the worker of a run with a checkpoint."""

    def __init__(self, directory, number=signal.SIGKILL):
        self.directory, self.number = directory, number
        self.events, self.killed = [], None

    def __call__(self, event):
        self.events.append(event)
        if self.killed is None and event.status == "running":
            lock = execution.directory_of(event.run, self.directory).path / "lock"
            pid = re.fullmatch(r"process (\d+) on \S+\n", lock.read_text())
            if pid:
                os.kill(int(pid[1]), self.number)
                self.killed = event.run


def assert_each_ran_once(runs, directory, events, killed):
    """Except the killed one, which needed a second attempt."""
    names = [run.name for run in (*runs, killed)]
    assert attempts.counted(directory) == collections.Counter(names)
    ended = collections.Counter(e.run for e in events if e.status == "finished")
    assert ended == collections.Counter(runs)
    for run in runs:
        place = execution.directory_of(run, directory)
        steps = [row["step"] for row in place.rows()]
        assert steps == list(range(100, 400, 100))
        assert place.result()["status"] == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_is_killed_leaves_its_run_to_another(tmp_path, workers):
    runs = small_study(seeds=(0,) if workers == 1 else (0, 1))
    killer = Killer(tmp_path)
    assert jobs.execute(runs, tmp_path, killer, workers, "local", HOUR) == []
    assert killer.killed
    assert_each_ran_once(runs, tmp_path, killer.events, killer.killed)
    # the killed run equals an uninterrupted one
    whole = RunDirectory(tmp_path / "other" / "runs" / "whole")
    fit(Program(killer.killed.config), killer.killed.seed, whole)
    found = execution.directory_of(killer.killed, tmp_path)
    assert found.log() == whole.log()
    if workers == 1:  # finished runs are skipped, without a job
        events = []
        assert jobs.execute(runs, tmp_path, events.append, 1, "local", HOUR) == []
        assert [event.status for event in events] == ["skipped"] * 2


@pytest.mark.slow
def test_a_job_keeps_what_it_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr(compilation_cache, "enabled", lambda: True)
    for name in [name for name in os.environ if name.startswith(JAX_CACHE)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    runs = small_study(seeds=(0,), run={"steps": 100})[:1]
    study_directory = tmp_path / "study"
    assert jobs.execute(runs, study_directory, print, 1, "local", HOUR) == []
    assert len([*(tmp_path / "home").rglob("*-cache")]) > 10


@pytest.mark.slow
def test_a_signal_stops_the_jobs_with_checkpoints(tmp_path):
    runs = small_study(seeds=(0,), run={"steps": 10**6, "checkpoint_every": 10**6})

    def interrupt(event):
        if event.status == "running":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as stopped:
        jobs.execute(runs, tmp_path, interrupt, 1, "local", HOUR)
    assert stopped.value.exit_status == 143
    place = execution.directory_of(runs[0], tmp_path)
    assert len(list(place.checkpoints.iterdir())) == 1
    assert not place.held()


@pytest.mark.slow
def test_a_job_at_its_time_limit_saves_a_checkpoint_and_is_queued_again(tmp_path):
    runs = small_study(seeds=(0,), run={"steps": 3000, "checkpoint_every": 10**6})[:1]
    killer = Killer(tmp_path, signal.SIGUSR2)
    assert jobs.execute(runs, tmp_path, killer, 1, "local", HOUR) == []
    assert attempts.counted(tmp_path) == {runs[0].name: 2}
    place = execution.directory_of(runs[0], tmp_path)
    # one of the end, and one of the signal
    assert len(list(place.checkpoints.iterdir())) == 2


@pytest.mark.parametrize(
    ("timeouts_left", "cluster", "then", "wanted"),
    [
        (1, "works", None, ["saved", "queued again"]),
        (1, "works", signal.SIGTERM, ["saved", "queued again"]),
        (1, "works", signal.SIGINT, ["queued again"]),  # stops the run at once
        (1, "fails", None, ["saved"]),
        (0, "works", None, ["saved"]),
    ],
)
def test_a_job_is_queued_again_after_its_run_has_stopped(
    timeouts_left, cluster, then, wanted, tmp_path, monkeypatch
):
    """By submitit's own handler; if it cannot, the job ends without an error."""
    from submitit.core import job_environment, utils

    done = []

    class Environment:
        global_rank = 0

        def _requeue(self, countdown):
            if cluster == "fails":
                raise subprocess.CalledProcessError(1, "scontrol")
            done.append("queued again")

    def execute(*given, **more):
        with StopRequest() as stop:  # as in `fit`
            os.kill(os.getpid(), signal.SIGUSR2)
            if then:
                os.kill(os.getpid(), then)
            done.append("saved")
            stop.check()

    monkeypatch.setattr(execution, "execute", execute)
    monkeypatch.setattr(jobs.selfcheck, "check_backend", lambda: None)
    worker = jobs.Worker(small_study(), tmp_path)
    submission = utils.DelayedSubmission(worker)
    submission.set_timeout(60, timeouts_left)
    paths = utils.JobPaths(tmp_path, "1")
    handler = job_environment.SignalHandler(Environment(), paths, submission)
    handler._start_time -= 3600
    own = handler.checkpoint_and_try_requeue
    before = signal.signal(signal.SIGUSR2, own)
    try:
        if "queued again" in wanted:
            with pytest.raises(SystemExit):
                worker()
            again = utils.DelayedSubmission.load(paths.submitted_pickle)
            assert again.function.runs == worker.runs
        else:
            assert worker() == []
        assert done == wanted
        assert signal.getsignal(signal.SIGUSR2) == own
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.mark.slow
def test_what_failed_is_told_and_not_tried_again(tmp_path):
    runs = small_study(
        seeds=(0,),
        families={"plain": {"model": {"name": "tests.study.test_jobs:Broken"}}},
        run={"steps": 100},
    )
    events = []
    unfinished = jobs.execute(runs, tmp_path, events.append, 2, "local", HOUR)
    assert attempts.counted(tmp_path) == {run.name: 1 for run in runs}
    assert [(e.run.family, e.status) for e in unfinished] == [("plain", "failed")]
    assert unfinished[0].message == "RuntimeError: this net is broken"
    assert [e.run.family for e in events if e.status == "finished"] == ["residual"]


def test_a_job_takes_its_cores_and_the_cache(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(jobs.worker, "prepare", lambda *given: taken.append(given))
    assert jobs.Worker([], tmp_path, (1,), True)() == []
    assert taken == [((1,), True)]


def test_a_job_that_finds_a_mistake_ends_the_study_with_it(tmp_path):
    runs = small_study(run={"parallel": {"devices": 9}}, seeds=(0,))
    with pytest.raises(ConfigError, match="devices 9"):
        jobs.execute(runs, tmp_path, lambda event: None, 1, "local", HOUR)


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"gpu": 1}, "--launcher=local: Parameter 'gpu' need to be prefixed"),
        ({"timeout_min": "soon"}, 'local: Parameter "timeout_min" expected type'),
    ],
)
def test_resources_that_no_cluster_knows(tmp_path, resources, message):
    with pytest.raises(ConfigError, match=message):
        jobs.execute(small_study(), tmp_path, print, 1, "local", resources)


def test_without_slurm_or_submitit_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="--launcher=slurm: Could not detect"):
        jobs.execute(small_study(), tmp_path, print, 1, "slurm", HOUR)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[launcher\]'"):
        jobs.execute(small_study(), tmp_path, print, 1, "local", HOUR)


def test_what_a_job_asks_for():
    texts = ["mem_gb=0.5", "slurm_partition=gpu", "gpus_per_node=2"]
    assert jobs.parse_resources(texts) == {
        "mem_gb": 0.5,
        "slurm_partition": "gpu",
        "gpus_per_node": 2,
    }
    with pytest.raises(ConfigError, match="--job: expected KEY=VALUE, got 'gpu'"):
        jobs.parse_resources(["gpu"])


from tests.training.host import Normalised  # noqa: E402


class Broken(Normalised):
    """A net with parameters that computes nothing."""

    def __call__(self, x, train):
        if train:
            raise RuntimeError("this net is broken")
        return super().__call__(x, train)
