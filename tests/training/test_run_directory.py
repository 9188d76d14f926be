"""Run directories: ownership, locking and logs."""

import fcntl
import json
import os
import pathlib
import socket

import jax
import pytest

from cnn_jax.names import ConfigError
from cnn_jax.training import files, provenance
from cnn_jax.training.config_keys import flatten
from cnn_jax.training.loop import fit
from cnn_jax.training.run_directory import RunDirectory


def test_a_directory_with_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    place = RunDirectory(tmp_path)
    with (
        pytest.raises(
            ConfigError, match=r"not a run directory: it contains thesis\.tex"
        ),
        place.open_for_training({}),
    ):
        pass


def snapshot(directory):
    return {
        path.relative_to(directory): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


FOREIGN = {
    "a lock of others": {"lock": "important\n"},
    "a lock that is no text": {"lock": b"\xff\xfe"},
    "a config of others": {"config.json": '{"port": 8080}', "lock": "42"},
    "half-written files": {".a.tmp": "x", "notes.md": "x"},
    "a log without a config": {"metrics.jsonl": "{}\n"},
    "a folder called like output": {"a.log/a": "x"},
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_nothing_of_a_directory_that_is_not_ours_is_touched(tmp_path, kind):
    for name, content in FOREIGN[kind].items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    before = snapshot(tmp_path)
    with (
        pytest.raises(ConfigError, match="is not a run directory: "),
        RunDirectory(tmp_path).open_for_training({"a": 1}),
    ):
        pass
    assert snapshot(tmp_path) == before


def test_a_run_that_another_process_starts_at_this_moment_is_no_stranger(
    tmp_path, monkeypatch
):
    list_strangers = files.strangers

    def after_the_other(directory, ours):
        """The other process starts the run while this one looks for its config."""
        owner = f"process 1 on {socket.gethostname()}\n"
        (directory / "lock").write_text(owner)
        config = {"format": 3, "steps": 4}
        files.write_json(directory / "config.json", config)
        return list_strangers(directory, ours)

    monkeypatch.setattr(files, "strangers", after_the_other)
    with RunDirectory(tmp_path).open_for_training({"steps": 4}):
        pass
    assert RunDirectory(tmp_path).config() == {"steps": 4}


def test_what_systems_and_redirected_output_leave_is_no_hindrance(tmp_path, capfd):
    for name in (".DS_Store", "Thumbs.db", "slurm-12.out", "train.log", "nohup.out"):
        (tmp_path / name).write_text("x")
    (tmp_path / "lost+found").mkdir()
    place = RunDirectory(tmp_path)
    with place.open_for_training({"a": 1}):
        assert place.config() == {"a": 1}
    assert (tmp_path / "train.log").read_text() == "x"


def test_this_process_may_write_its_output_into_the_workdir(tmp_path, monkeypatch):
    """As after `> runs/x/anything`, for any file name."""
    with open(tmp_path / "anything", "w") as output:
        fstat = os.fstat
        monkeypatch.setattr(
            os, "fstat", lambda fd: fstat(output.fileno() if fd == 1 else fd)
        )
        with RunDirectory(tmp_path).open_for_training({"a": 1}):
            pass
    assert (tmp_path / "config.json").exists()


def test_home_is_expanded_and_addresses_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with RunDirectory("~/x").open_for_training({"a": 1}):
        pass
    assert (tmp_path / "x" / "config.json").exists()
    for address in ("gs://bucket/x", "s3://a", pathlib.Path("gs://bucket/x")):
        with pytest.raises(ConfigError, match="is not a directory: runs need"):
            RunDirectory(address)
    with pytest.raises(ConfigError, match="the home directory is unknown"):
        RunDirectory("~nobody-of-this-name/x")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert RunDirectory("a:b/c").path == pathlib.Path("a:b/c")


def test_a_log_row_is_durable_before_it_counts(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size)
    )
    line = RunDirectory(tmp_path).append_row({"step": 1})
    assert synced == [len(line)]


def test_jax_settings_that_change_a_run_are_recorded(tmp_path, monkeypatch):
    """Another PRNG draws other numbers, so a run does not resume with one."""
    place = RunDirectory(tmp_path / "run")
    with place.open_for_training({"a": 1, **provenance.settings()}):
        pass
    with (
        jax.default_prng_impl("rbg"),
        pytest.raises(ConfigError) as error,
    ):
        place.check_config({"a": 1, **provenance.settings()})
    assert "JAX_DEFAULT_PRNG_IMPL: was 'threefry2x32', is 'rbg'" in str(error.value)
    with (
        jax.enable_x64(True),
        pytest.raises(ConfigError, match="JAX_ENABLE_X64: was False, is True"),
    ):
        place.check_config({"a": 1, **provenance.settings()})
    place.check_config({"a": 1})


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


@pytest.mark.parametrize("section", [lambda at: at, lambda at: {"digits": at}])
def test_where_a_run_happens_may_change_and_what_it_computes_not(section, tmp_path):
    place = RunDirectory(tmp_path / "run")
    config = {
        "steps": 3,
        "dataset": section({"data_dir": "here"}),
        "parallel": {"mode": "pmap", "devices": 8},
    }
    with place.open_for_training(config):
        pass
    moved = {
        "steps": 3,
        "dataset": section({"data_dir": "there"}),
        "parallel": {"mode": "shard_map", "devices": 1},
    }
    place.check_config(moved)
    with pytest.raises(ConfigError, match="steps: was 3, is 4"):
        place.check_config({**moved, "steps": 4})
    with pytest.raises(ConfigError, match=r"new: was '\(absent\)', is 1"):
        place.check_config({**moved, "new": 1})


def test_batch_norm_groups_count_and_not_how_they_are_asked_for(tmp_path):
    """128 images on two devices have the groups of 64 that one device can be given."""
    place = RunDirectory(tmp_path)
    old = {"parallel": {"devices": 2, "bn_group_size": 0}, "bn_images": 64}
    new = {"parallel": {"devices": 1, "bn_group_size": 64}, "bn_images": 64}
    with place.open_for_training(old):
        place.check_config(new)
        with pytest.raises(ConfigError, match="bn_images: was 64, is 128"):
            place.check_config({**new, "bn_images": 128})
        with pytest.raises(ConfigError, match="bn_group_size: was 0, is 64"):
            place.check_config({"parallel": new["parallel"]})


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
    written = json.loads((tmp_path / "result.json").read_text())
    assert written.items() > {"status": "finished"}.items()
    assert place.result() == {"status": "finished"}


def test_flatten_joins_keys_with_dots():
    assert flatten({"a": {"b": {"c": 1}}, "d": 2}) == {"a.b.c": 1, "d": 2}


def test_a_result_without_its_config_is_no_result(program, tmp_path):
    place = RunDirectory(tmp_path / "run")
    fit(program, 0, place)
    (place.path / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"a result but no config\.json; restore it"):
        fit(program, 1, place)
