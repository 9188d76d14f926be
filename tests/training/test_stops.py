"""Signals at awkward moments: nothing is lost, and the run ends the same."""

import os
import signal

import pytest

from cnn_jax.study import execution
from cnn_jax.training import checkpoint, hosts, losses
from cnn_jax.training.interrupt import Interrupted, SharedStop, StopRequest
from cnn_jax.training.loop import fit
from cnn_jax.training.parallel import Devices
from cnn_jax.training.program import Program
from cnn_jax.training.run_directory import RunDirectory
from tests import tiny
from tests.study.test_execution import small_study
from tests.tiers import fast

SIGNALS = {
    "SIGTERM": (signal.SIGTERM, 143),
    "Ctrl-C": (signal.SIGINT, 130),
    "SIGHUP": (signal.SIGHUP, 129),
    "SIGUSR1": (signal.SIGUSR1, 138),
    "SIGUSR2": (signal.SIGUSR2, 140),
}


@pytest.fixture
def place(tmp_path):
    return RunDirectory(tmp_path / "run")


@pytest.fixture(autouse=True)
def of_a_terminal():
    """SIGHUP as a terminal leaves it; nohup, which may run the tests, ignores it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def send(number):
    os.kill(os.getpid(), number)


def newest(place):
    return checkpoint.steps(place.checkpoints)[-1].name


@pytest.mark.parametrize("kind", ["SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_every_signal_that_asks_to_stop_leaves_a_checkpoint(
    program, reference, place, kind
):
    number, status = SIGNALS[kind]

    def ask(step, row):
        if step == 5:
            send(number)

    with pytest.raises(Interrupted) as stopped:
        fit(program, 0, place, ask)
    assert stopped.value.exit_status == status
    assert newest(place) == "step_000000006.ckpt"
    fit(program, 0, place)
    reference.assert_equals(place)


def test_a_closed_terminal_takes_no_words_and_costs_no_step(program, reference, place):
    """SIGHUP, after which all printing fails."""

    def gone(step, row):
        if step == 5:
            send(signal.SIGHUP)
        if step > 5:
            raise OSError(5, "Input/output error")

    with pytest.raises(Interrupted, match="SIGHUP"):
        fit(program, 0, place, gone)
    assert newest(place) == "step_000000006.ckpt"
    fit(program, 0, place)
    reference.assert_equals(place)


def test_signals_of_others_are_left_alone():
    """nohup ignores SIGHUP; submitit installs a handler for SIGUSR2."""
    heard = []
    before = {
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        signal.SIGUSR2: signal.signal(signal.SIGUSR2, lambda n, _: heard.append(n)),
    }
    try:
        with StopRequest() as stop:
            send(signal.SIGHUP)
            send(signal.SIGUSR2)
            assert not stop.received
            assert heard == [signal.SIGUSR2]
            with StopRequest() as inner:
                send(signal.SIGUSR1)
                assert inner.received == signal.SIGUSR1
        assert stop.received == signal.SIGUSR1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        *(("SIGTERM", 12), ("Ctrl-C", 6)),
        pytest.param("SIGTERM", 6, marks=pytest.mark.slow),
        pytest.param("Ctrl-C", 12, marks=pytest.mark.slow),
    ],
)
def test_an_evaluation_is_left_and_done_on_resume(
    program, reference, place, monkeypatch, kind, step
):
    number, status = SIGNALS[kind]
    batches = program.source.eval_batches
    evaluations = []

    def eval_batches(split, size):
        evaluations.append(split)
        for item in batches(split, size):
            if len(evaluations) == (2 if step == 6 else 4):  # its second split
                send(number)
            yield item

    monkeypatch.setattr(program.source, "eval_batches", eval_batches)
    with pytest.raises(Interrupted) as stopped:
        fit(program, 0, place)
    monkeypatch.undo()
    assert stopped.value.exit_status == status
    assert newest(place) == f"step_{step:09d}.ckpt"
    assert step not in [row["step"] for row in place.rows()]
    assert place.result() is None
    fit(program, 0, place)
    reference.assert_equals(place)


def test_again_during_the_evaluation_that_was_left(
    program, reference, place, monkeypatch
):
    original = program.source.eval_batches

    def interrupted(split, size):
        send(signal.SIGTERM)
        yield from original(split, size)

    monkeypatch.setattr(program.source, "eval_batches", interrupted)
    for _ in range(3):
        with pytest.raises(Interrupted):
            fit(program, 0, place)
        assert newest(place) == "step_000000006.ckpt"
    monkeypatch.undo()
    fit(program, 0, place)
    reference.assert_equals(place)


def test_compilation_is_finished_then_a_step_and_a_checkpoint(
    reference, place, monkeypatch
):
    loss = losses.LOSSES["softmax_cross_entropy"]
    program = Program(tiny.config())

    def traced(outputs, batch):
        send(signal.SIGTERM)
        return loss(outputs, batch)

    monkeypatch.setitem(losses.LOSSES, "softmax_cross_entropy", traced)
    with pytest.raises(Interrupted):
        fit(program, 0, place)
    monkeypatch.undo()
    assert newest(place) == "step_000000001.ckpt"
    fit(program, 0, place)
    reference.assert_equals(place)


@pytest.mark.parametrize(
    ("times", "sync"),
    [
        *((1, 2), (1, 4), (2, 1), (2, 3)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((1, 1), (1, 3), (2, 2), (2, 4))
        ),
    ],
)
def test_ctrl_c_while_a_checkpoint_is_written(
    program, reference, place, monkeypatch, times, sync
):
    """At each sync to disk around the first checkpoint, at step 4."""
    fsync, calls = os.fsync, []

    def interrupted(handle):
        if checkpoint_directory.exists():
            calls.append(handle)
            if len(calls) == sync:
                for _ in range(times):
                    send(signal.SIGINT)
        return fsync(handle)

    checkpoint_directory = place.checkpoints
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(Interrupted if times == 1 else KeyboardInterrupt):
        fit(program, 0, place)
    monkeypatch.undo()
    assert len(calls) >= sync
    fit(program, 0, place)
    reference.assert_equals(place)


@pytest.mark.parametrize("step", fast([4], [0, 4, 5]))
def test_a_second_ctrl_c_stops_at_once(program, reference, place, step):
    def twice(now, row):
        if now == step:
            send(signal.SIGINT)
            send(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(program, 0, place, twice)
    fit(program, 0, place)
    reference.assert_equals(place)


@pytest.mark.slow
def test_a_signal_at_the_end_of_a_run_ends_the_study(tmp_path):
    runs = small_study(seeds=(0,))
    begun = []

    def report(event):
        begun.append(event.run.name)
        if event.step == 4 and event.row is not None:
            send(signal.SIGTERM)  # all steps are done: this run finishes

    with pytest.raises(Interrupted):
        execution.execute(runs, tmp_path, report)
    assert set(begun) == {runs[0].name}
    assert RunDirectory(tmp_path / "runs" / runs[0].name).result() is not None
    events = []
    assert execution.execute(runs, tmp_path, events.append) == []
    ended = [e.status for e in events if e.status != "running"]
    assert ended == ["skipped", "finished"]


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopRequest() as outer:
        with StopRequest() as inner:
            send(signal.SIGTERM)
            assert inner.received == signal.SIGTERM
            assert not outer.received
        assert outer.received == signal.SIGTERM
        with pytest.raises(Interrupted, match="SIGTERM"):
            outer.check()
    after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert after == before


def test_two_hosts_obey_the_highest_of_their_signals_two_calls_later(monkeypatch):
    devices = Devices("pmap", 1)
    other = iter([0, signal.SIGTERM, 0, 0, 0])
    monkeypatch.setattr(devices, "highest", lambda own: max(own, next(other)))
    monkeypatch.setattr(hosts, "count", lambda: 2)
    own = StopRequest()
    shared = SharedStop(own, devices)
    assert [shared.received() for _ in range(2)] == [0, 0]
    own.received = signal.SIGHUP
    shared.check()
    with pytest.raises(Interrupted, match="SIGTERM"):
        shared.check()
    assert shared.received() == signal.SIGHUP


def test_the_log_is_whole_after_a_stop_in_the_last_evaluation(
    program, reference, place, monkeypatch
):
    """The last checkpoint is saved again, with the row of that evaluation."""
    original, calls = program.source.eval_batches, []

    def interrupted(split, size):
        calls.append(split)
        if len(calls) == 4:  # the test set, after the last step
            send(signal.SIGTERM)
        yield from original(split, size)

    monkeypatch.setattr(program.source, "eval_batches", interrupted)
    with pytest.raises(Interrupted):
        fit(program, 0, place)
    assert newest(place) == "step_000000012.ckpt"
    fit(program, 0, place)
    reference.assert_equals(place)
    (place.path / "metrics.jsonl").unlink()
    fit(program, 0, place)
    reference.assert_equals(place)
