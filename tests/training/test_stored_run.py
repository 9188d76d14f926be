"""A run directory from the previous version can be shown and resumed."""

import json
import pathlib
import shutil

import pytest

from cnn_jax.training import checkpoint
from cnn_jax.training.loop import fit
from cnn_jax.training.program import Program
from cnn_jax.training.run_directory import RunDirectory
from tests import tiny

STORED = pathlib.Path(__file__).with_name("stored_run")


@pytest.fixture
def place(tmp_path):
    shutil.copytree(STORED, tmp_path / "run")
    return RunDirectory(tmp_path / "run")


@pytest.fixture(scope="module")
def program():
    warmup = {"rate": 0.05, "until_train_error": 0.95}
    return Program(tiny.config(warmup=warmup, steps_per_execution=2))


def test_keys_are_read_under_their_old_names(place):
    before = json.loads((STORED / "config.json").read_text())
    assert before["warmup"]["until_error"] == 0.95
    assert before["steps_per_dispatch"] == 2
    config = place.config()
    assert config["warmup"] == {"rate": 0.05, "until_train_error": 0.95}
    assert config["steps_per_execution"] == 2
    assert "steps_per_dispatch" not in config


def test_a_finished_one_is_shown(program, place):
    result = json.loads((STORED / "result.json").read_text())
    assert fit(program, 0, place) == result
    assert [row["step"] for row in place.rows()] == [3, 6, 9, 12]


def test_a_stopped_one_resumes(program, place):
    """From step 8, to the stored result (on another machine: up to rounding)."""
    finished, rows = place.result(), place.rows()
    (place.path / "result.json").unlink()
    checkpoint.steps(place.checkpoints)[-1].unlink()
    begun = []
    result = fit(program, 0, place, lambda step, row: begun.append(step))
    assert begun[0] == 8
    for row, wanted in zip(place.rows(), rows, strict=True):
        assert row == pytest.approx(wanted, rel=1e-3)
    assert result["clean_train_loss"] == pytest.approx(
        finished["clean_train_loss"], rel=1e-3
    )
