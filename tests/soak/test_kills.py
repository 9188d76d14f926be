"""A run killed at any moment ends like an uninterrupted run."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from cnn_jax import study
from cnn_jax.training.loop import fit
from cnn_jax.training.run_directory import RunDirectory
from tests.training.uninterrupted import without_time

ROOT = pathlib.Path(__file__).resolve().parents[2]
MOMENTS = 24
KILLS_OF_A_STUDY = 10


def moments():
    """Seeded moments, most of them during the writing of a file."""
    rng = random.Random(0)
    drawn = []
    for number in range(MOMENTS):
        # 12 steps: 4 log rows, 3 checkpoints, config.json and result.json
        what, most = (
            ("write", 9),
            ("step", 13),
            ("write", 9),
            ("sync", 14),
            ("replace", 5),
            ("replaced", 5),
        )[number % 6]
        drawn.append(f"{what}:{rng.randint(1, most)}:{rng.randint(0, 20_000)}")
    return [*drawn, "unlink:1:0"]


def killed(directory, moment):
    return subprocess.run(
        [sys.executable, "-m", "tests.soak.killed", str(directory), moment],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.soak
@pytest.mark.parametrize("moment", moments())
def test_a_run_killed_once(program, reference, tmp_path, moment):
    place = RunDirectory(tmp_path / "run")
    done = killed(place.path, moment)
    assert done.returncode == -signal.SIGKILL, done.stderr
    fit(program, 0, place)
    reference.assert_equals(place)
    assert not [*place.path.rglob("*.tmp")]


@pytest.mark.soak
def test_a_run_killed_over_and_over(reference, tmp_path):
    """Each attempt dies at another moment, until one of them finishes."""
    place, attempts = RunDirectory(tmp_path / "run"), []
    # each gets a little further than the previous one
    early = ("write:2:500", "step:5", "sync:3", "write:2:9000", "step:4", "replace:2")
    for moment in (*early, "step:99"):
        attempts.append(killed(place.path, moment).returncode)
        if attempts[-1] == 0:
            break
    assert attempts.count(-signal.SIGKILL) >= 4
    assert attempts[-1] == 0
    reference.assert_equals(place)


STUDY = (
    "--config.depths=(8,)",
    "--config.seeds=(0,1,2)",
    "--config.run.model.widths=(2,2,2)",
    "--config.run.steps=200",
    "--config.run.log_every=4",
    "--config.run.eval_every=20",
    "--config.run.checkpoint_every=4",
    "--config.run.batch_size=32",
    "--config.run.schedule.boundaries=(150,)",
    "--workers=2",
)


def start(directory):
    """Start the study's command in a separate process group."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "experiments.degradation"),
            *(*STUDY, f"--workdir={directory}"),
        ],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": ""},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(directory):
    """The contents of each finished run's result file, as bytes."""
    found = (directory / "runs").glob("*/result.json")
    return {path.parent.name: path.read_bytes() for path in found}


def steps_reached(directory):
    found = {}
    for path in (directory / "runs").glob("*"):
        rows = RunDirectory(path).rows()
        found[path.name] = rows[-1]["step"] if rows else 0
    return found


@pytest.fixture(scope="module")
def whole_study(tmp_path_factory):
    directory = tmp_path_factory.mktemp("study") / "whole"
    process = start(directory)
    process.communicate()
    assert process.returncode == 0
    assert len(finished(directory)) == 6
    return directory


def assert_same_study(directory, whole):
    for path in sorted((whole / "runs").iterdir()):
        expected, found = (
            RunDirectory(path),
            RunDirectory(directory / "runs" / path.name),
        )
        assert found.log() == expected.log()
        assert without_time(found.result()) == without_time(expected.result())
    assert len(study.load(directory)) == 6


@pytest.mark.soak
def test_a_study_killed_at_ten_moments(whole_study, tmp_path):
    """The whole process group is killed; no run is lost, and none runs twice."""
    directory, rng = tmp_path / "study", random.Random(1)
    ended, progress = {}, []
    # Some work is left after the last kill, even on a fast machine.
    most = sum(steps_reached(whole_study).values()) // (2 * KILLS_OF_A_STUDY)
    for _ in range(KILLS_OF_A_STUDY):
        before = sum(steps_reached(directory).values())
        process = start(directory)
        # Kill after a number of log rows and a short delay: anywhere in a step.
        deadline = time.monotonic() + 300
        target = before + rng.randint(1, most)
        while sum(steps_reached(directory).values()) < target:
            assert time.monotonic() < deadline
            if process.poll() is not None:
                break
            time.sleep(0.02)
        time.sleep(rng.random() * 0.2)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
        now = finished(directory)
        # A finished run stays unchanged, byte for byte.
        assert ended.items() <= now.items()
        ended = now
        progress.append(sum(steps_reached(directory).values()))
    assert len(ended) < 6
    process = start(directory)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert out.count(" skipped ") == len(ended)
    assert ended.items() <= finished(directory).items()
    assert_same_study(directory, whole_study)


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_study_told_to_stop_at_moments(whole_study, tmp_path, number):
    """At any stage: importing, compiling, training, evaluating."""
    directory = tmp_path / "study"
    for delay in (2, 5, 8, 12):
        before = sum(steps_reached(directory).values())
        process = start(directory)
        time.sleep(delay)
        trains = sum(steps_reached(directory).values()) > before
        trains = trains and len(finished(directory)) < 6  # else it draws, and ends
        ended = process.poll()
        if ended is None:
            # Ctrl-C reaches the group, as from a terminal; SIGTERM the command.
            send = os.killpg if number == signal.SIGINT else os.kill
            send(process.pid, number)
        _, errors = process.communicate(timeout=300)
        # Python's default handling of the signal, before the command has begun
        answers = [128 + number] if trains else [128 + number, -number]
        assert process.returncode in (answers if ended is None else [0]), errors
        if process.returncode == 128 + number:
            assert "Traceback" not in errors
            assert "interrupted" in errors or "again to resume" in errors
    process = start(directory)
    process.communicate()
    assert process.returncode == 0
    assert_same_study(directory, whole_study)
