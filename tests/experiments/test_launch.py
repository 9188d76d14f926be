"""Start-up of the commands: their arguments, and how errors are reported."""

import io
import os
import pathlib
import subprocess
import sys

import pytest

from cnn_jax.names import ConfigError
from cnn_jax.training import hosts
from experiments import degradation, launch
from experiments.why_resnets_work import __main__ as why_resnets_work


def run(words, define=lambda parser: None, body=lambda values: 0, config=None):
    return launch.command("What it does.", define, config)(body)(words)


def flags(parser):
    parser.add_argument("--workers", type=launch.at_least(0), default=0)
    parser.add_argument("--share", type=launch.at_least(0, float), default=0.5)
    parser.add_argument("--depths", type=launch.listed(int), default=[])
    parser.add_argument("--plot_only", action="store_true")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--worker=2"], "unknown flag '--worker' (did you mean '--workers'?)"),
        (["--workers=many"], "argument --workers: 'many' is not a whole number"),
        (["--workers=-1"], "argument --workers: -1 is less than 0"),
        (["--share=nan"], "argument --share: nan is less than 0"),
        (["--share=half"], "argument --share: 'half' is not a number"),
        (["--workers"], "argument --workers: expected one argument"),
        (["stray"], "unexpected argument 'stray'"),
        (["--config.depth=3"], "unknown flag '--config.depth'"),
    ],
)
def test_a_slip_is_one_line_and_status_2(words, message, capsys):
    assert run(words, flags) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_flags_read_with_an_equals_sign_or_a_space():
    seen = []
    words = ["--workers", "2", "--depths=8,14", "--plot_only", "--workers=3"]
    assert run(words, flags, lambda values: seen.append(vars(values)) or 0) == 0
    assert seen == [
        {"workers": 3, "share": 0.5, "depths": [8, 14], "plot_only": True},
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["--config", "resnet_digits", "--config.model.depth", "8"],
        ["--config=resnet_digits.py", "--config.model.depth=8"],
    ],
)
def test_configs_read_with_an_equals_sign_or_a_space(words):
    seen = []
    run(words, body=lambda values: seen.append(values.config) or 0, config="")
    assert (seen[0].model.depth, seen[0].model.block) == (8, "basic")


def test_the_default_config_is_replaced():
    seen = []

    def body(values):
        seen.append(values.config.name)
        return 0

    run([], body=body, config="degradation_digits.py")
    run(["--config", "degradation_mnist"], body=body, config="degradation_digits.py")
    assert seen == ["degradation_digits", "degradation_mnist"]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ConfigError("two\n  lines"), 2, "error: two lines\n"),
        (OSError(28, "No space left"), 2, "error: [Errno 28] No space left\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_become_a_line(error, status, said, capsys):
    def body(values):
        raise error

    assert run([], body=body) == status
    assert capsys.readouterr().err == said


class Left(Exception):
    """This process has ended."""


def test_a_second_interrupt_does_not_wait_for_other_hosts(monkeypatch):
    def left(status):
        raise Left(status)

    def interrupted(values):
        raise KeyboardInterrupt

    monkeypatch.setattr(hosts, "joined", lambda: True)
    monkeypatch.setattr(hosts, "is_first", lambda: False)
    monkeypatch.setattr("jax.distributed.shutdown", lambda: pytest.fail("waits"))
    monkeypatch.setattr(os, "_exit", left)
    with pytest.raises(Left, match="130"):
        launch.command("", lambda parser: None)(interrupted)([])


def test_a_terminal_that_lacks_a_sign_gets_another(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert run([], body=lambda values: print("2.1 ± 0.2 %, é") or 0) == 0
    terminal.flush()
    assert terminal.buffer.getvalue() == b"2.1 +- 0.2 %, ?\n"


@pytest.mark.parametrize(
    ("command", "workers", "own", "reserves"),
    [
        (degradation, 1, None, None),
        (degradation, 0, None, None),
        (degradation, 4, None, "false"),
        (degradation, 4, "true", "true"),
        (why_resnets_work, 4, None, "false"),
    ],
)
def test_processes_that_share_a_gpu_do_not_reserve_it(
    command, workers, own, reserves, monkeypatch, tmp_path
):
    variable = "XLA_PYTHON_CLIENT_PREALLOCATE"
    monkeypatch.setenv(variable, own or "")
    if own is None:
        monkeypatch.delenv(variable)
    seen = []

    def check_backend():
        seen.append(os.environ.get(variable))
        raise ConfigError("enough")

    monkeypatch.setattr(launch.selfcheck, "check_backend", check_backend)
    words = [f"--workers={workers}", f"--workdir={tmp_path / 'study'}"]
    assert command.main(words) == 2
    assert seen == [reserves]


def test_results_are_shown_in_percent_as_progress_is(capsys):
    launch.show({"test_error": 0.0168, "test_loss": 0.5, "parameters": 61706})
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["test_error: 1.68 %", "test_loss: 0.5", "parameters: 61,706"]


ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "script", ["train.py", "degradation.py", "benchmark/__main__.py", "gtn.py"]
)
def test_a_command_can_be_run_by_its_path(script, tmp_path):
    """As by an editor's run button, from any directory, with the project installed."""
    done = subprocess.run(
        [sys.executable, ROOT / "experiments" / script, "--help"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "python -m experiments." in done.stdout


def test_an_error_of_the_code_itself_keeps_its_trace():
    def broken(values):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        run([], body=broken)
