"""Run directories: whose they are, who holds them, what they log."""

import fcntl
import json

import pytest

from cnn_jax.names import ConfigError
from cnn_jax.train.run_directory import RunDirectory, flatten


def test_a_directory_with_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    place = RunDirectory(tmp_path)
    with (
        pytest.raises(ConfigError, match=r"not a run directory: it holds thesis\.tex"),
        place.open_for_training({}),
    ):
        pass


def test_a_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    place = RunDirectory(tmp_path / "file" / "run")
    with (
        pytest.raises(ConfigError, match="cannot be written: Not a directory"),
        place.open_for_training({}),
    ):
        pass


def test_a_second_process_is_told_who_holds_it(tmp_path):
    place = RunDirectory(tmp_path / "run")
    with place.open_for_training({"a": 1}):
        other = RunDirectory(tmp_path / "run")
        with (
            pytest.raises(ConfigError, match=r"in use by process \d+ on \S+"),
            other.open_for_training({"a": 1}),
        ):
            pass


def test_a_lock_left_by_a_dead_process_does_not_block(tmp_path):
    place = RunDirectory(tmp_path / "run")
    with place.open_for_training({"a": 1}):
        pass
    assert (tmp_path / "run" / "lock").read_text().startswith("process ")
    with place.open_for_training({"a": 1}):
        assert place.config() == {"a": 1}
        with open(tmp_path / "run" / "lock") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_where_a_run_happens_may_change_and_what_it_computes_not(tmp_path):
    place = RunDirectory(tmp_path / "run")
    config = {
        "steps": 3,
        "dataset": {"data_dir": "here"},
        "parallel": {"mode": "pmap", "devices": 8},
    }
    with place.open_for_training(config):
        pass
    moved = {
        "steps": 3,
        "dataset": {"data_dir": "there"},
        "parallel": {"mode": "shard_map", "devices": 1},
    }
    place.check_config(moved)
    with pytest.raises(ConfigError, match="steps: 3 there, 4 now"):
        place.check_config({**moved, "steps": 4})
    with pytest.raises(ConfigError, match=r"new: '\(absent\)' there, 1 now"):
        place.check_config({**moved, "new": 1})


def test_tuples_of_a_config_equal_the_lists_of_its_json(tmp_path):
    place = RunDirectory(tmp_path / "run")
    with place.open_for_training({"widths": (1, 2)}):
        pass
    place.check_config({"widths": (1, 2)})


def test_rows_leave_out_a_line_still_being_written(tmp_path):
    place = RunDirectory(tmp_path)
    first = place.append_row({"step": 1})
    place.append_row({"step": 2})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 3')
    assert place.rows() == [{"step": 1}, {"step": 2}]
    assert place.restore_log(first)
    assert place.rows() == [{"step": 1}]


def test_a_broken_config_file_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json cannot be read"):
        RunDirectory(tmp_path).config()


def test_finish_marks_the_run(tmp_path):
    place = RunDirectory(tmp_path)
    assert place.result() is None
    place.finish({"status": "finished"})
    assert json.loads((tmp_path / "result.json").read_text()) == place.result()


def test_flatten_joins_keys_with_dots():
    assert flatten({"a": {"b": {"c": 1}}, "d": 2}) == {"a.b.c": 1, "d": 2}
