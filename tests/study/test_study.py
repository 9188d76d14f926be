"""A study: expansion, isolation of failures, resuming and results."""

import csv

import flax.linen as nn
import jax.numpy as jnp
import pytest

from cnn_jax import study
from cnn_jax.models.blocks import BasicBlock
from cnn_jax.names import ConfigError
from cnn_jax.study import execution
from cnn_jax.training.run_directory import RunDirectory
from tests import tiny


def config(**changes):
    base = {
        "name": "tiny",
        "families": {
            "plain": {"model": {"shortcut": "none"}},
            "residual": {"model": {"shortcut": "A"}},
        },
        "depths": (8, 14),
        "seeds": (0, 1),
        "overrides": {"depth14": {"warmup": {"rate": 0.01, "until_train_error": 0.5}}},
        "run": tiny.config(steps=4, eval_every=2, log_every=2),
    }
    return study.merge(base, changes)


def test_expand_gives_every_family_depth_and_seed():
    runs = study.expand(config())
    assert [run.name for run in runs] == [
        "plain-8-seed0",
        "plain-8-seed1",
        "residual-8-seed0",
        "residual-8-seed1",
        "plain-14-seed0",
        "plain-14-seed1",
        "residual-14-seed0",
        "residual-14-seed1",
    ]
    deep = runs[-1].config
    assert deep["model"]["depth"] == 14
    assert deep["model"]["shortcut"] == "A"
    assert deep["seed"] == 1
    assert deep["warmup"]["until_train_error"] == 0.5
    assert runs[0].config["warmup"]["until_train_error"] == 0
    # the two arms differ only in the shortcut
    assert study.merge(runs[0].config, {"model": {"shortcut": "A"}}) == runs[2].config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 8}, r"unknown key of a study 'depth' \(did you mean 'depths'"),
        ({"depths": ()}, "depths is empty"),
        ({"depths": (8, 9)}, r"depth 9 is not 6n\+2"),
        ({"depths": (8.0,)}, "depths must be integers"),
        ({"seeds": (1, 1)}, "seeds repeats a value"),
        ({"overrides": {"deep": {}}}, "unknown key of config.overrides 'deep'"),
        ({"run": {"stepz": 1}}, r"unknown key of config 'stepz' \(did you mean 's"),
        ({"run": {"steps": "4"}}, "config.steps must be int, got '4'"),
        ({"run": {"model": {"name": "renset"}}}, "unknown model 'renset'"),
        ({"run": {"schedule": {"rate": 1.0}}}, "unknown field of schedule"),
    ],
)
def test_a_study_that_cannot_be_is_refused_with_one_line(changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        study.expand(config(**changes))
    assert "\n" not in str(error.value)


class Broken(BasicBlock):
    """A block that cannot be built at depth 14."""

    def branch(self, x, train):
        if self.width == 3:
            raise RuntimeError("this block is broken\nwith details")
        return super().branch(x, train)


class Scaled(BasicBlock):
    """A plugin: a residual branch initially scaled to one tenth."""

    def branch(self, x, train):
        gain = self.param("gain", nn.initializers.constant(0.1), (), jnp.float32)
        return gain * super().branch(x, train)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small study with a plugin block as a separate arm, and a broken one."""
    directory = tmp_path_factory.mktemp("study")
    chosen = config(
        families={
            "plain": {"model": {"shortcut": "none"}},
            "scaled": {"model": {"block": "tests.study.test_study:Scaled"}},
            "broken": {
                "model": {"block": "tests.study.test_study:Broken", "widths": (2, 3, 4)}
            },
        },
        depths=(8,),
    )
    chosen["families"].pop("residual")
    events = []
    runs = study.expand(chosen)
    unfinished = execution.execute(runs, directory, events.append)
    return directory, runs, events, unfinished


def test_one_failing_run_does_not_take_the_others_down(finished):
    directory, _, events, unfinished = finished
    ended = {e.run.name: e.status for e in events if e.status != "running"}
    assert ended == {
        "plain-8-seed0": "finished",
        "plain-8-seed1": "finished",
        "scaled-8-seed0": "finished",
        "scaled-8-seed1": "finished",
        "broken-8-seed0": "failed",
        "broken-8-seed1": "failed",
    }
    assert [event.run.name for event in unfinished] == [
        "broken-8-seed0",
        "broken-8-seed1",
    ]
    assert unfinished[0].message == "RuntimeError: this block is broken"
    trace = directory / "failures" / "broken-8-seed0.txt"
    assert "with details" in trace.read_text()


def test_a_plugin_block_trains_through_one_config_line(finished):
    directory, _, _, _ = finished
    place = RunDirectory(directory / "runs" / "scaled-8-seed0")
    assert place.config()["model"]["block"] == "tests.study.test_study:Scaled"
    plain = RunDirectory(directory / "runs" / "plain-8-seed0").result()
    # three blocks, one gain each
    assert place.result()["parameters"] == plain["parameters"] + 3


def test_finished_runs_are_skipped_and_failed_ones_tried_again(finished):
    directory, runs, _, _ = finished
    events = []
    execution.execute(runs, directory, events.append)
    skipped = [event.run.name for event in events if event.status == "skipped"]
    assert skipped == [run.name for run in runs if run.family != "broken"]
    failed = [event.run.name for event in events if event.status == "failed"]
    assert failed == [run.name for run in runs if run.family == "broken"]


def test_a_changed_recipe_on_an_old_directory_is_refused(finished):
    directory, runs, _, _ = finished
    changed = [
        study.Run(r.family, r.depth, r.seed, study.merge(r.config, {"batch_size": 8}))
        for r in runs
    ]
    with pytest.raises(ConfigError, match="batch_size: was 16, is 8"):
        execution.execute(changed, directory, lambda event: None)


def test_results_hold_a_row_a_run(finished, tmp_path):
    directory, _, _, _ = finished
    study.write_results(study.load(directory), tmp_path / "results.csv")
    with open(tmp_path / "results.csv") as file:
        read = list(csv.DictReader(file))
    assert [(r["family"], r["depth"], r["seed"]) for r in read] == [
        ("plain", "8", "0"),
        ("plain", "8", "1"),
        ("scaled", "8", "0"),
        ("scaled", "8", "1"),
    ]
    result = RunDirectory(directory / "runs" / "plain-8-seed1").result()
    for key in ("clean_train_error", "running_train_error", "test_error", "seconds"):
        assert float(read[1][key]) == result[key]
    assert int(read[1]["steps"]) == 4
