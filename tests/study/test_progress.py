"""Progress reports: lines where nobody looks at a terminal, else a table and a bar."""

import io
import re

import pytest
from rich.console import Console

from cnn_jax import study
from cnn_jax.study import progress
from cnn_jax.study.execution import Event
from tests import tiny

ROW = {"running_train_error": 0.5, "clean_train_error": 0.25, "test_error": 0.125}


@pytest.fixture
def runs():
    config = {
        "name": "study",
        "run": tiny.config(),
        "families": {"plain": {"model": {"shortcut": "none"}}, "residual": {}},
        "depths": (8, 14),
        "seeds": (0, 1),
        "overrides": {},
    }
    return study.expand(config)


def chosen(runs, family, depth, seed):
    [run] = [r for r in runs if (r.family, r.depth, r.seed) == (family, depth, seed)]
    return run


def timeless(text):
    """The lines of a text, without the seconds that have passed."""
    return re.sub(r"after \d+ s", "after", text).splitlines()


def test_a_study_is_a_line_for_each_run_that_ends(runs, capsys):
    first, second, *_ = runs
    with progress.StudyProgress(runs) as report:
        report(Event(first, 3, ROW))
        report(Event(second, 0, None, "failed", "no space left"))
        report(Event(first, first.config["steps"], ROW, "finished"))
    lines = timeless(capsys.readouterr().out)
    errors = "training (running) 50.00 %, training (clean) 25.00 %, test 12.50 %"
    assert lines == [
        f"[1/8] {second.name} failed after  no space left",
        f"[2/8] {first.name} finished after  error: {errors}",
    ]


def test_a_terminal_shows_the_state_of_every_run(runs, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(
        progress, "Console", lambda: Console(file=screen, force_terminal=True, width=90)
    )
    steps = runs[0].config["steps"]
    with progress.StudyProgress(runs) as report:
        report(Event(chosen(runs, "plain", 8, 0), steps // 2))
        report(Event(chosen(runs, "plain", 8, 1), steps, ROW, "finished"))
        report(Event(chosen(runs, "residual", 14, 0), 1, None, "diverged", "NaN"))
    shown = screen.getvalue().splitlines()
    [eight] = [line for line in shown[-8:] if " 8 " in line]
    [fourteen] = [line for line in shown[-8:] if " 14 " in line]
    assert eight.split("│")[2].split() == ["50%", "25.0/12.5"]
    assert eight.split("│")[3].split() == ["·", "·"]
    assert fourteen.split("│")[3].split() == ["diverged", "·"]


def test_a_late_report_of_steps_keeps_the_errors_shown(runs):
    report = progress.StudyProgress(runs)
    report(Event(runs[0], 4, ROW))
    report(Event(runs[0], 5))
    assert report.events[runs[0]] == Event(runs[0], 5, ROW)


def test_what_is_held_out_is_called_validation():
    row = {"test_error": 0.25}
    config = {"dataset": {"name": "digits"}}
    assert progress.describe(row, config) == "error: test 25.00 %"
    config["dataset"]["validation_size"] = 100
    assert progress.describe(row, config) == "error: validation 25.00 %"


def test_tasks_are_counted(capsys):
    with progress.counted("analysis", 12) as report:
        report("lesions")
        report("gradients")
    lines = timeless(capsys.readouterr().out)
    assert lines == ["[ 1/12] lesions after", "[ 2/12] gradients after"]
