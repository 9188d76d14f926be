"""Failed runs of a study: tried once in a command, reported, and left behind."""

import os
import platform
import signal

import pytest

from cnn_jax import study
from cnn_jax.study import execution, failures, processes
from tests.study import attempts
from tests.study.test_execution import small_study
from tests.training.host import Normalised


class Broken(Normalised):
    """A net that cannot be trained."""

    shortcut: str = "A"

    def __call__(self, x, train):
        if train:
            raise RuntimeError("this net is broken")
        return super().__call__(x, train)


class Deadly(Normalised):
    """A net that needs more memory than the machine has."""

    def __call__(self, x, train):
        if train:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(x, train)


def failing_fit(monkeypatch):
    """Let every attempt fail; returns the list of the seeds tried."""
    tried = []

    def fit(program, seed, *rest):
        tried.append(seed)
        raise RuntimeError("it failed\nwith details")

    monkeypatch.setattr(execution, "fit", fit)
    return tried


def test_a_failed_run_is_not_tried_again_in_the_same_command(tmp_path, monkeypatch):
    """Neither by its other workers nor by its other jobs."""
    runs, tried = small_study()[:2], failing_fit(monkeypatch)
    for command, seeds in [("one", [0, 1]), ("one", [0, 1]), ("two", [0, 1] * 2)]:
        unfinished = execution.execute(
            runs, tmp_path, lambda event: None, command=command
        )
        assert {event.message for event in unfinished} == {"RuntimeError: it failed"}
        assert [event.status for event in unfinished] == ["failed"] * 2
        assert tried == seeds
    execution.execute(runs, tmp_path, lambda event: None)  # a command of its own
    assert tried == [0, 1] * 3


def test_a_traceback_is_deleted_once_its_run_has_finished(tmp_path, monkeypatch):
    runs = small_study(seeds=(0,))[:1]
    with monkeypatch.context() as patched:
        failing_fit(patched)
        execution.execute(runs, tmp_path, lambda event: None)
    trace = tmp_path / "failures" / f"{runs[0].name}.txt"
    assert "with details" in trace.read_text()
    monkeypatch.setattr(execution, "fit", lambda *given: {"status": "finished"})
    assert execution.execute(runs, tmp_path, lambda event: None) == []
    assert not trace.exists()


def test_a_run_that_failed_on_another_machine_is_tried_here(tmp_path, monkeypatch):
    failures.record(tmp_path, "plain-8-seed0", "a", "out of memory", "")
    assert failures.message(tmp_path, "plain-8-seed0", "a") == "out of memory"
    assert failures.message(tmp_path, "plain-8-seed0", "b") is None
    monkeypatch.setattr(platform, "node", lambda: "elsewhere")
    assert failures.message(tmp_path, "plain-8-seed0", "a") is None


def test_a_failure_is_recorded_before_another_worker_can_enter(tmp_path, monkeypatch):
    run, held, record = small_study()[0], [], failures.record
    first = failures.Attempt(tmp_path, run.name, "one")

    def observed(*given):
        held.append(first.held())
        record(*given)

    monkeypatch.setattr(failures, "record", observed)
    with pytest.raises(RuntimeError), first.open_for_training(run.config):
        raise RuntimeError("it failed\nwith details")
    assert held == [True]
    again = failures.Attempt(tmp_path, run.name, "one")
    with (
        pytest.raises(failures.Tried, match=r"^RuntimeError: it failed$"),
        again.open_for_training(run.config),
    ):
        pass
    with failures.Attempt(tmp_path, run.name, "two").open_for_training(run.config):
        pass


def test_a_failure_is_recorded_once(tmp_path, monkeypatch):
    [run], recorded, record = small_study(seeds=(0,))[:1], [], failures.record

    def fit(program, seed, attempt, report):
        with attempt.open_for_training(run.config):
            raise RuntimeError("it failed")

    def counted(*given):
        recorded.append(given)
        record(*given)

    monkeypatch.setattr(execution, "fit", fit)
    monkeypatch.setattr(failures, "record", counted)
    [failed] = execution.execute([run], tmp_path, lambda event: None)
    assert (failed.message, len(recorded)) == ("RuntimeError: it failed", 1)


def test_what_killed_one_process_and_is_in_other_hands_is_left(tmp_path, monkeypatch):
    runs, tried, rounds = small_study(seeds=(0,)), failing_fit(monkeypatch), []

    def share_work(work, left, directory, report, lost, workers):
        rounds.append(left)
        if len(rounds) == 1:
            lost(runs[0].name, "by SIGKILL")
        report(execution.Event(runs[1], 4, {}, "finished"))

    monkeypatch.setattr(processes, "share_work", share_work)
    [held] = execution.execute(runs, tmp_path, lambda event: None, workers=2)
    assert (held.run, held.status) == (runs[0], "elsewhere")
    assert (tried, len(rounds)) == ([], 2)


def test_a_run_whose_checkpoints_are_damaged_fails_alone(tmp_path):
    model = {"name": "tests.study.test_execution:Wordy"}
    runs = small_study(seeds=(0,), run={"model": model})
    place = execution.directory_of(runs[0], tmp_path)
    with place.open_for_training(runs[0].config):
        place.save(1, {}, {})
    for path in place.checkpoints.iterdir():
        path.write_bytes(b"damaged")
    events = []
    [failed] = execution.execute(runs, tmp_path, events.append)
    assert (failed.run, failed.status) == (runs[0], "failed")
    assert failed.message.startswith("no usable checkpoint in ")
    assert "\n" not in failed.message
    assert [e.run for e in events if e.status == "finished"] == runs[1:]


def test_a_run_that_failed_and_then_finished_is_finished(tmp_path, monkeypatch):
    """Two workers report on it, and another command may have trained it."""
    runs = small_study(seeds=(0,))
    told = [
        execution.Event(runs[0], 0, None, "failed", "it failed"),
        execution.Event(runs[0], 0, None, "failed", "it failed"),
        execution.Event(runs[0], 4, {}, "skipped"),
        execution.Event(runs[0], 0, None, "failed", "it failed"),
        execution.Event(runs[1], 4, {}, "finished"),
        execution.Event(runs[1], 4, {}, "skipped"),
    ]

    def share_work(work, runs, directory, report, *rest):
        for event in told:
            report(event)

    monkeypatch.setattr(processes, "share_work", share_work)
    events = []
    assert execution.execute(runs, tmp_path, events.append, workers=2) == []
    assert events == [told[0], told[2], told[4]]


@pytest.mark.slow
def test_a_run_that_kills_its_process_fails_alone(tmp_path):
    """It ends neither all workers nor this process."""
    deadly = {"model": {"name": "tests.study.test_failures:Deadly"}}
    simple = {"model": {"name": "tests.training.host:Normalised"}}
    base = small_study(seeds=(0,))[0].config
    runs = [
        study.Run(family, 8, seed, {**study.merge(base, changes), "seed": seed})
        for family, changes in (("deadly", deadly), ("simple", simple))
        for seed in (0, 1)
    ]
    for run in runs:
        del run.config["model"]["shortcut"]
    events = []
    unfinished = execution.execute(runs, tmp_path, events.append, workers=2)
    assert {e.run: e.status for e in unfinished} == dict.fromkeys(runs[:2], "failed")
    for event in unfinished:
        assert "2 times" in event.message
        assert "by SIGKILL" in event.message
        assert "memory" in event.message
        trace = tmp_path / "failures" / f"{event.run.name}.txt"
        assert event.message in trace.read_text()
    ended = [e.run for e in events if e.status == "finished"]
    assert sorted(ended, key=str) == sorted(runs[2:], key=str)
    assert attempts.counted(tmp_path)[runs[0].name] == 2


def test_what_killed_two_processes_is_not_trained_in_this_one(tmp_path, monkeypatch):
    runs, tried, rounds = small_study(seeds=(0,)), failing_fit(monkeypatch), []

    def share_work(work, runs, directory, report, lost, workers):
        rounds.append((runs, workers))
        lost(runs[0].name, "with status 3")
        for run in runs[1:]:
            report(execution.Event(run, 4, {}, "finished"))

    monkeypatch.setattr(processes, "share_work", share_work)
    events = []
    [failed] = execution.execute(runs, tmp_path, events.append, workers=2)
    assert (failed.run, failed.status) == (runs[0], "failed")
    assert "ended 2 times during the run, at last with status 3" in failed.message
    assert rounds == [(runs, 2), (runs[:1], 1)]
    assert tried == []


@pytest.mark.slow
def test_workers_try_a_broken_run_once_between_them(tmp_path):
    runs = small_study(run={"model": {"name": "tests.study.test_failures:Broken"}})
    unfinished = execution.execute(runs, tmp_path, lambda event: None, workers=2)
    assert [event.status for event in unfinished] == ["failed"] * 4
    assert attempts.counted(tmp_path) == {run.name: 1 for run in runs}
