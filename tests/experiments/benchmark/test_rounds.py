"""Contenders take turns in processes of their own, which may fail or die."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys

import pytest

from cnn_jax import models, names
from experiments.benchmark import __main__ as command
from experiments.benchmark import rounds
from experiments.benchmark.case import parse
from experiments.benchmark.peers import NoPeer

MACHINE = rounds.Machine("cpu", "cpu", 8, 2, "onednn", 0.0)


class Unmeasured:
    """A child that cannot do the requested work."""

    size, loss = 61_706, 1.0

    def ask(self, function, *arguments):
        if function is rounds.start:
            self.name = arguments[0]
        if self.name == "torch":
            raise NoPeer("no torch version of this net")
        if self.name == "flax":
            raise rounds.ChildError("the process ended with status -9")
        return self.answer(function)

    def answer(self, function):
        answers = {
            rounds.start: (self.size, 2.0, 0.5),
            rounds.run: (0.5, self.loss),
        }
        return answers.get(function, 7)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


def test_what_a_peer_cannot_do_is_a_row_of_its_own(monkeypatch, capsys):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(rounds, "Child", Unmeasured)
    monkeypatch.setattr(rounds, "machine", lambda: MACHINE)
    assert command.main(["--nets=lenet5_modern", "--peer=torch,flax"]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]  # after the machine's
    (torch,) = (line for line in lines if " torch " in line)
    assert "not measured" in torch
    assert "no torch version of this net" in torch
    (flax,) = (line for line in lines if " flax " in line)
    assert "status -9" in flax
    (ours,) = (line for line in lines if " cnn_jax " in line and "/" not in line)
    assert "256" in ours  # 128 images in half a second


def test_a_peer_of_other_size_is_not_compared(monkeypatch):
    class Larger(Unmeasured):
        def ask(self, function, *arguments):
            self.size += arguments[:1] == ("flax",)
            return self.answer(function)

    monkeypatch.setattr(rounds, "Child", Larger)
    one = parse("lenet5_modern", 2, "float32", 1, 1, {})
    ours, flax = rounds.measure(one, ["flax"], rounds=2, seconds=1.0)
    assert len(ours.seconds) == 2
    assert "has 61,707 parameters" in flax.reason
    assert flax.seconds == []


def test_a_loss_that_is_not_finite_is_no_measurement(monkeypatch):
    monkeypatch.setattr(rounds, "Child", Unmeasured)
    monkeypatch.setattr(Unmeasured, "loss", math.nan)
    one = parse("lenet5_modern", 2, "float32", 1, 1, {})
    (ours,) = rounds.measure(one, [], rounds=2, seconds=1.0)
    assert "the loss is nan" in ours.reason


@pytest.mark.parametrize("rounds_before", [0, 1])
@pytest.mark.parametrize("failing", ["run", "peak_rate", "memory"])
def test_when_ours_fails_the_peers_stop_and_nothing_is_compared(
    failing, rounds_before, monkeypatch, capsys, tmp_path
):
    if failing == "memory":  # which is measured once
        rounds_before = 0
    asked = []

    class Failing(Unmeasured):
        def ask(self, function, *arguments):
            if function is rounds.start:
                self.name = arguments[0]
            asked.append((self.name, function.__name__))
            this = (rounds.OURS, failing)
            if asked[-1] == this and asked.count(this) > rounds_before:
                raise rounds.ChildError("the process ended with status -9")
            return self.answer(function)

    monkeypatch.setattr(rounds, "Child", Failing)
    monkeypatch.setattr(rounds, "machine", lambda: MACHINE)
    path = tmp_path / "speed.json"
    given = ["--nets=lenet5_modern", "--peer=flax", "--rounds=3", f"--json={path}"]
    assert command.main(given) == 0
    ours, flax = json.loads(path.read_text())["steps"]
    assert "status -9" in ours["reason"]
    taken = {"run": rounds_before, "peak_rate": rounds_before + 1, "memory": 3}[failing]
    assert asked.count(("flax", "run")) == taken
    assert flax["step"] == (0.5 if taken else None)
    assert flax["reason"] == ("" if taken else "cnn_jax could not be measured")
    assert flax["ratio"] is flax["share_of_peak"] is flax["peak_flops"] is None
    lines = capsys.readouterr().out.splitlines()[2:]  # after the machine's
    (line,) = (line for line in lines if " flax " in line)
    assert ("256" if taken else "not measured") in line


def test_a_child_that_dies_is_reported():
    with pytest.raises(rounds.ChildError, match="status 7"):
        rounds.in_child(os._exit, 7)


# A command that prints a line once its child is at work.
AT_WORK = """
import sys
from experiments.benchmark import __main__ as command, rounds
busy = "import time; print('at work', flush=True); time.sleep(600)"
rounds.machine = lambda: rounds.in_child(exec, busy)
sys.exit(command.main(["--nets=lenet5_modern"]))
"""


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (signal.SIGTERM, 143, "stopped by SIGTERM\n"),
        pytest.param(signal.SIGKILL, -9, "", marks=pytest.mark.slow),
    ],
)
def test_children_end_with_the_command(number, status, said):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [sys.executable, "-c", AT_WORK]
    with subprocess.Popen(running, **pipes, start_new_session=True) as parent:
        try:
            assert parent.stdout.readline() == "at work\n"
            parent.send_signal(number)
            # both close when the last process that could write has ended
            assert parent.communicate(timeout=20) == ("", said)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)
        assert parent.returncode == status


def test_an_answer_that_nobody_waits_for_ends_the_child(capfd):
    with rounds.Child() as child:
        child._connection.send((int, ()))  # and the child is closed before it answers
    assert capfd.readouterr().err == ""


def test_a_child_hands_on_errors_by_kind():
    with rounds.Child() as child:
        with pytest.raises(names.ConfigError, match="unknown model"):
            child.ask(models.create, "vgg17", 10)
        with pytest.raises(rounds.ChildError, match="ZeroDivisionError: "):
            child.ask(divmod, 1, 0)
        assert child.ask(divmod, 7, 2) == (3, 1)
