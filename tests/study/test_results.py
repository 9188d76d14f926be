"""Tables of a study, from its run directories alone."""

import csv
import subprocess
import sys

import pandas as pd
import pytest

from cnn_jax import study
from tests.study.directories import RESULT, write_run

LOG = [
    {"step": 2, "running_train_error": 0.5},
    {"step": 4, "running_train_error": 0.3, "test_error": 0.4},
]


@pytest.fixture
def directory(tmp_path):
    """A study of two families, one with other rates; one run is unfinished."""
    for seed, error in ((0, 0.1), (1, 0.3)):
        result = {**RESULT, "test_error": error, "parameters": 120}
        write_run(tmp_path, "a-b", 14, seed, LOG, result)
    other = {"optimizer": {"momentum": 0.5}}
    write_run(tmp_path, "c", 8, 10, LOG[:1], {"status": "diverged", "message": "x"})
    write_run(tmp_path, "c", 8, 9, LOG, RESULT, **other)
    write_run(tmp_path, "c", 8, 2, LOG[:1], **other)
    return tmp_path


def test_a_study_is_a_table_of_its_runs(directory):
    table = study.load(directory)
    assert table.index.tolist() == [
        "a-b-14-seed0",
        "a-b-14-seed1",
        "c-8-seed2",
        "c-8-seed9",
        "c-8-seed10",
    ]
    assert table["family"].tolist() == ["a-b"] * 2 + ["c"] * 3
    assert table["depth"].tolist() == [14, 14, 8, 8, 8]
    assert table["seed"].tolist() == [0, 1, 2, 9, 10]
    states = ["finished", "finished", "not finished", "finished", "diverged"]
    assert table["status"].tolist() == states
    assert table["test_error"][:2].tolist() == [0.1, 0.3]
    assert table["parameters"].tolist() == [120, 120, pd.NA, 100, pd.NA]
    for column, value in RESULT.items():
        column = {"step": "steps"}.get(column, column)
        assert table.loc["c-8-seed9", column] == value
        if column != "status":
            assert pd.isna(table.loc["c-8-seed2", column])


def test_keys_of_the_config_that_vary_are_columns(directory):
    table = study.load(directory)
    momentum = {"c-8-seed2": 0.5, "c-8-seed9": 0.5}
    assert dict(table["optimizer.momentum"]) == {
        name: momentum.get(name, 0.9) for name in table.index
    }
    # depth and seed have separate columns; constant values have none
    assert set(table.columns) == {*study.COLUMNS, "optimizer.momentum"}


def test_a_key_with_the_name_of_a_column_has_one_of_its_own(tmp_path):
    """Here: the steps done of a run, and those that its config asks for."""
    write_run(tmp_path, "plain", 8, 0, LOG, RESULT, steps=4)
    write_run(tmp_path, "plain", 14, 0, LOG[:1], steps=8)
    table = study.load(tmp_path)
    assert table["steps"].tolist() == [4, pd.NA]
    assert table["config.steps"].tolist() == [4, 8]


def test_logs_are_a_table_of_every_logged_step(directory):
    logs = study.logs(directory)
    first = {"run": "a-b-14-seed0", "family": "a-b", "depth": 14, "seed": 0}
    own = logs[logs["run"] == "a-b-14-seed0"]
    assert own.dropna().to_dict("records") == [{**first, **LOG[1]}]
    assert own["step"].tolist() == [2, 4]
    assert own["running_train_error"].tolist() == [0.5, 0.3]
    assert len(logs) == 2 + 2 + 1 + 2 + 1


def test_a_directory_without_runs_gives_empty_tables(tmp_path):
    assert study.load(tmp_path).columns.tolist() == list(study.COLUMNS)
    assert study.load(tmp_path).empty
    assert study.logs(tmp_path).empty
    assert study.over_seeds(study.load(tmp_path), "test_error").empty


def test_results_are_a_row_a_run_that_has_ended(directory):
    path = directory / "results.csv"
    study.write_results(study.load(directory), path)
    with open(path, newline="") as file:
        read = list(csv.DictReader(file))
    assert tuple(read[0]) == study.COLUMNS
    assert [(r["family"], r["depth"], r["seed"]) for r in read] == [
        ("a-b", "14", "0"),
        ("a-b", "14", "1"),
        ("c", "8", "9"),
        ("c", "8", "10"),
    ]
    assert read[0] == {
        **{"family": "a-b", "depth": "14", "seed": "0", "status": "finished"},
        **{"parameters": "120", "steps": "4", "running_train_error": "0.3"},
        **{"clean_train_error": "0.2", "clean_train_loss": "1.5"},
        **{"test_error": "0.1", "test_loss": "2.5", "seconds": "7.0"},
    }
    assert set(list(read[-1].values())[4:]) == {""}


def test_finished_runs_are_grouped_by_family_and_depth(directory):
    table = study.load(directory)
    assert study.groups(table, directory) == {
        ("a-b", 14): [f"{directory}/runs/a-b-14-seed{seed}" for seed in (0, 1)],
        ("c", 8): [f"{directory}/runs/c-8-seed9"],
    }
    assert study.unfinished(table, directory) == {
        "c-8-seed2": "not finished",
        "c-8-seed10": "diverged",
    }


def test_summaries_are_mean_and_sample_std_of_finished_runs():
    rows = [
        ("plain", 8, 0, "finished", 0.1),
        ("plain", 8, 1, "finished", 0.3),
        ("plain", 8, 2, "diverged", 9.0),
        ("residual", 8, 0, "finished", 0.2),
    ]
    columns = ["family", "depth", "seed", "status", "test_error"]
    found = study.over_seeds(pd.DataFrame(rows, columns=columns), "test_error")
    plain, residual = found.to_dict("records")
    assert plain["mean"] == pytest.approx(0.2)
    assert plain["std"] == pytest.approx(0.2 / 2**0.5)
    assert (plain["family"], plain["depth"], plain["count"]) == ("plain", 8, 2)
    assert (residual["mean"], residual["count"]) == (0.2, 1)
    assert pd.isna(residual["std"])


@pytest.mark.parametrize(("size", "word"), [(0, "test"), (100, "validation")])
def test_what_is_held_out_is_known_from_the_runs(size, word, tmp_path):
    changed = {"validation_size": size}
    write_run(tmp_path, "plain", 8, 0, dataset=changed)
    assert study.held_out_of(tmp_path) == word


def test_training_does_not_import_pandas():
    code = "import sys, cnn_jax.study.execution; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_held_out_of_the_digits_of_strings_is_known_too(tmp_path):
    write_run(tmp_path, "plain", 8, 0, dataset={"digits": {"validation_size": 9}})
    assert study.held_out_of(tmp_path) == "validation"
