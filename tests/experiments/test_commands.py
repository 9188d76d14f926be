"""The commands as a user calls them: exit statuses, one-line errors, files."""

import argparse
import json
import pathlib
import re

import pytest

from cnn_jax.names import ConfigError
from cnn_jax.training import hosts
from cnn_jax.training.interrupt import Interrupted
from cnn_jax.training.run_directory import RunDirectory
from experiments import degradation, train
from tests.study.directories import RESULT

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHORT = (
    f"--config={ROOT}/configs/resnet_digits.py",
    "--config.model.widths=(2,2,2)",
    "--config.model.depth=8",
    "--config.steps=2",
    "--config.batch_size=32",
    "--config.parallel.devices=1",
)
STUDY = (  # of the least nets, which compile fast
    "--config.depths=(4,)",
    "--config.seeds=(0,)",
    "--config.run.model.stage_sizes=(1,)",
    "--config.run.model.widths=(2,)",
    "--config.run.steps=2",
    "--config.run.batch_size=32",
    "--config.run.schedule.boundaries=(1,)",
    "--config.run.parallel.devices=1",
)


def test_train_prints_the_result_and_does_not_run_twice(tmp_path, capsys):
    arguments = [*SHORT, f"--workdir={tmp_path / 'run'}"]
    assert train.main(arguments) == 0
    out = capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert f"test_error: {100 * result['test_error']:.2f} %" in out
    assert "step 2 of 2" in out
    assert "nothing to do" not in out
    assert train.main(arguments) == 0
    again = capsys.readouterr().out
    assert "step 2 of 2" not in again
    assert f"{tmp_path / 'run'} is finished; nothing to do\n" in again


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.model.depth=21"], "depth 21 is not 6n+2"),
        (["--config.model.dept=20"], "did you mean 'depth'?"),
        (["--config.modle.depth=20"], "unknown config key 'modle'"),
        (["--config.batch_size=many"], "config.batch_size=many"),
        (["--config.model.name=vgg17"], "unknown model 'vgg17'"),
        (["--config.model.block=nowhere:Block"], "cannot import module 'nowhere'"),
        (["--config.model.block=json:dumps"], "json:dumps"),
        (["--config.dataset.name=cifar11"], "cifar11"),
        (["--config.dataset.data_dir=/dev/null"], "/dev/null"),
        (
            ["--config.batch_size=33", "--config.parallel.devices=8"],
            "33 is not divisible",
        ),
        (["--config.parallel.mode=tmap"], "pmap, shard_map"),
        (["--config.parallel.bn_group_size=7"], "bn_group_size 7"),
        (["--config.warmup.until_train_error=80.0"], "until_train_error must be a fr"),
        (["--config.steps=0"], "config.steps must be positive"),
        (["--config.optimizer.momentum=1.5"], "momentum 1.5"),
        (["--config.seed=-1"], "config.seed must not be negative"),
        (["--nonsense=1"], "nonsense"),
        (["--steps=33"], "did you mean --config.steps?"),
        (["--workdir="], "--workdir=DIR is needed"),
        (["stray"], "unexpected argument 'stray'"),
        (["--config=missing.py"], "config file 'missing.py' does not exist"),
        (["--workdir=/proc/nowhere/run"], "cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message, tmp_path, capsys):
    workdir = f"--workdir={tmp_path / 'run'}"
    assert train.main([*SHORT, workdir, *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


def test_a_config_is_needed_and_the_known_ones_are_listed(tmp_path, capsys):
    assert train.main([f"--workdir={tmp_path}"]) == 2
    assert "resnet_digits.py" in capsys.readouterr().err
    assert train.main([f"--workdir={tmp_path}", "--confg=a.py"]) == 2
    error = capsys.readouterr().err
    assert "unknown flag '--confg' (did you mean '--config'?)" in error
    assert "--config=FILE is needed" in error


def test_the_config_of_a_study_names_its_command(tmp_path, capsys):
    config = f"--config={ROOT}/configs/degradation_digits.py"
    assert train.main([f"--workdir={tmp_path}", config]) == 2
    error = capsys.readouterr().err
    assert "use `python -m experiments.degradation`" in error


@pytest.mark.parametrize("flags", [[], ["--plot_only"]])
def test_the_config_of_a_run_is_no_study(flags, capsys):
    config = f"--config={ROOT}/configs/resnet_digits.py"
    assert degradation.main([config, *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: unknown key of a study")
    assert error.count("\n") == 1


@pytest.mark.parametrize("flag", ["--config.steps=20", "--steps=20"])
def test_a_key_of_the_runs_is_named_in_a_study(flag, tmp_path, capsys):
    assert degradation.main([f"--workdir={tmp_path}", flag]) == 2
    assert "did you mean --config.run.steps?" in capsys.readouterr().err


def test_a_backend_that_is_not_installed_is_one_line(tmp_path, capsys, monkeypatch):
    def devices():
        raise AssertionError

    monkeypatch.setattr("jax.devices", devices)
    monkeypatch.setattr("cnn_jax.runtime.selfcheck.check_backend", devices)
    assert degradation.main([f"--workdir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert "pip install -e '.[cuda]'" in error
    assert error.count("\n") == 1


def test_help_shows_the_command_and_its_flags(capsys):
    assert degradation.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "python -m experiments.degradation" in out
    assert "degradation_digits.py] \\\n" in out
    assert "--config FILE" in out
    assert "--config.KEY VALUE" in out
    assert "--plot_only" in out


@pytest.mark.slow
def test_the_study_from_its_command(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    arguments = [*STUDY, f"--workdir={tmp_path / 'study'}"]
    assert degradation.main(arguments) == 0
    out = capsys.readouterr().out
    # two workers: either run may end first
    ended = re.findall(r"^\[(.)/2\] (\S+) finished", out, re.MULTILINE)
    assert [place for place, _ in ended] == ["1", "2"]
    assert {name for _, name in ended} == {"plain-4-seed0", "residual-4-seed0"}
    assert "1 seed, error in percent" in out
    assert "±" not in out
    # this process compiled nothing: the workers cache their own programs
    assert list((tmp_path / "cache").rglob("*-cache"))
    made = {path.name for path in (tmp_path / "study").iterdir()}
    figures = {
        f"{name}.{suffix}"
        for name in ("depth_vs_error", "training_curves")
        for suffix in ("pdf", "png", "svg")
    }
    assert made == {".lock", "study.json", "runs", "results.csv", *figures}

    for name in ("results.csv", *figures):
        (tmp_path / "study" / name).unlink()
    assert degradation.main([*arguments, "--plot_only"]) == 0
    assert made == {path.name for path in (tmp_path / "study").iterdir()}


@pytest.mark.parametrize(
    ("stop", "status"), [(Interrupted(15), 143), (KeyboardInterrupt(), 130)]
)
def test_a_study_that_is_stopped_before_its_first_run(
    tmp_path, monkeypatch, stop, status
):
    def execute(*arguments):
        raise stop

    monkeypatch.setattr("cnn_jax.study.execution.execute", execute)
    arguments = [*STUDY, f"--workdir={tmp_path / 'study'}"]
    assert degradation.main(arguments) == status
    made = {path.name for path in (tmp_path / "study").iterdir()}
    assert made == {".lock", "study.json"}


def test_a_figure_that_fails_does_not_hide_that_the_study_was_stopped(
    tmp_path, monkeypatch, capsys
):
    def execute(*arguments):
        raise Interrupted(15)

    def write(*arguments):
        raise ValueError("cannot draw")

    monkeypatch.setattr("cnn_jax.study.execution.execute", execute)
    monkeypatch.setattr(degradation, "write", write)
    assert degradation.main([*STUDY, f"--workdir={tmp_path}"]) == 143
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "warning: cannot draw figures: ValueError: cannot draw"
    assert lines[1].endswith("run the same command again to resume")


def test_plot_only_without_runs_says_so(tmp_path, capsys):
    assert degradation.main([f"--workdir={tmp_path}", "--plot_only"]) == 2
    assert "contains no runs" in capsys.readouterr().err


@pytest.mark.slow
def test_a_failing_run_is_reported_with_a_status(tmp_path, capsys):
    arguments = [
        *(flag for flag in STUDY if "widths" not in flag),
        f"--workdir={tmp_path / 'study'}",
        "--config.families.plain.model.block=tests.study.test_study:Broken",
        "--config.run.model.widths=(3,)",
    ]
    assert degradation.main(arguments) == 1
    captured = capsys.readouterr()
    assert "plain-4-seed0 failed: RuntimeError: this block is broken" in captured.err
    assert "residual-4-seed0 finished" in captured.out


@pytest.mark.parametrize("lost", ["runs", "all"])
def test_a_study_with_fewer_rows_than_runs_never_ends_well(
    lost, tmp_path, monkeypatch, capsys
):
    """Regardless of their outcome, and although nothing was reported."""

    def execute(runs, directory, *rest):
        for run in runs[: 1 if lost == "runs" else 0]:
            place = RunDirectory(directory / "runs" / run.name)
            with place.open_for_training(run.config):
                row = {"step": 4, "running_train_error": 0.5, "test_error": 0.5}
                place.append_row(row)
                place.finish({**RESULT, **row})
        return []

    monkeypatch.setattr("cnn_jax.study.execution.execute", execute)
    assert degradation.main([*STUDY, f"--workdir={tmp_path / 'study'}"]) == 1
    error = capsys.readouterr().err.splitlines()
    assert error[-1] == "residual-4-seed0 is not finished"
    assert len(error) == (1 if lost == "runs" else 2)


def test_a_name_that_cannot_be_a_folders_is_refused_before_training(tmp_path, capsys):
    arguments = [*STUDY, f"--workdir={tmp_path}", "--config.name=a/b"]
    assert degradation.main(arguments) == 2
    assert "without a slash" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_training_joins_the_hosts_of_its_config(tmp_path, monkeypatch, capsys):
    def join(text, timeout):
        raise ConfigError(f"joined {text} within {timeout} s")

    monkeypatch.setattr(hosts, "join", join)
    # It joins too, but then all hosts would think that they are the first.
    monkeypatch.setattr(train.run, "train", lambda *_: {})
    given = ["--config=configs/resnet_digits.py", f"--workdir={tmp_path / 'run'}"]
    assert train.main([*given, "--config.parallel.hosts=0/2@node1:1234"]) == 2
    assert "error: joined 0/2@node1:1234 within 100 s" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--job=mem_gb=16", "--job_minutes=9"])
def test_a_job_needs_a_launcher(flag, tmp_path, capsys):
    assert degradation.main([*STUDY, f"--workdir={tmp_path}", flag]) == 2
    error = capsys.readouterr().err
    assert error == "error: --job and --job_minutes need --launcher\n"
    assert not list(tmp_path.iterdir())


def test_a_job_may_last_a_minute():
    parser = argparse.ArgumentParser()
    degradation.define(parser)
    assert parser.parse_args(["--job_minutes=1"]).job_minutes == 1
