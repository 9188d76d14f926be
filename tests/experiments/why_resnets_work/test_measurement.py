"""Rows are stored, and reused only if everything they depend on is unchanged."""

import dataclasses
import json
import pathlib

import pytest

from cnn_jax.analysis import trained
from cnn_jax.training.run_directory import RunDirectory
from configs import why_resnets_work_digits
from experiments.why_resnets_work import measurement
from experiments.why_resnets_work.analysis import Group
from experiments.why_resnets_work.measurement import (
    NO_NETS,
    Measurement,
    measurements,
)
from experiments.why_resnets_work.registry import ANALYSES

OTHER = ANALYSES["grid"]  # as an analysis of a user's module
GRID = {"depths": (2,), "width": 3, "points": 4, "beta": 0.1, "seeds": 1, "lags": 2}


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A stand-in with the parts of a net that a measurement uses."""

    family: str
    depth: int
    label = {}  # noqa: RUF012


def test_rows_of_other_runs_settings_or_data_are_not_taken(tmp_path, monkeypatch):
    prints = {"a": "1", "b": "2"}
    data = {"a": "same", "b": "same"}
    for name, of in (("fingerprint", prints), ("data_fingerprint", data)):
        monkeypatch.setattr(
            trained, name, lambda run, of=of: of.get(pathlib.Path(run).name)
        )
    one, two = [{"a": 1}], [{"a": 1}, {"a": 1}]  # rows of a net, and of both
    analysis = dataclasses.replace(ANALYSES["responses"], measure=lambda net, **_: one)
    monkeypatch.setitem(ANALYSES, "responses", analysis)
    monkeypatch.setattr(measurement, "program_of", lambda *_: None)
    monkeypatch.setattr(trained, "load", lambda *_: Loaded("", 0))
    group = Group("plain", 8, ("a", "b"))
    task = Measurement("responses", group, {"images": 0}, tmp_path)
    assert task.cached() is None
    assert task.compute() == task.cached() == two
    for changes in (
        {"group": Group("plain", 8, ("a",))},
        {"group": Group("plain", 20, ("a", "b"))},
        {"section": {"images": 3}},
    ):
        assert dataclasses.replace(task, **changes).cached() is None
    moved = dataclasses.replace(task, data_dir="elsewhere")
    assert moved.cached() == two  # the same data in another directory
    for place in ("./", f"{pathlib.Path.cwd()}/", "elsewhere/runs/"):
        elsewhere = Group("plain", 8, (f"{place}a", f"{place}b"))
        assert dataclasses.replace(task, group=elsewhere).cached() == two
    earlier = json.loads(task.path.read_text())  # stored with the runs' paths
    for key in ("runs", "data"):
        named = earlier["made_of"][key].items()
        earlier["made_of"][key] = {f"some/runs/{run}": value for run, value in named}
    task.path.write_text(json.dumps(earlier))
    assert task.cached() == two
    for changed in (prints, data):
        before = changed.copy()
        changed["b"] = "other"
        assert task.cached() is None
        changed.update(before)
    assert task.cached() == two


def test_rows_of_earlier_code_or_of_another_program_are_not_taken(
    tmp_path, monkeypatch
):
    task = Measurement("grid", NO_NETS, GRID, tmp_path)
    rows = task.compute()
    assert task.cached() == rows
    text = task.path.read_text()
    for foreign in ("[]", "{}", '{"rows": []}', '"rows"', "3", "nothing"):
        task.path.write_text(foreign)
        assert task.cached() is None
    task.path.write_text(text)
    other = dataclasses.replace(task, section={**GRID, "name": f"{__name__}:OTHER"})
    assert other.cached() is None
    changed = dataclasses.replace(ANALYSES["grid"], version=99)
    monkeypatch.setitem(ANALYSES, "grid", changed)
    assert task.cached() is None


def test_what_an_analysis_raises_is_told_and_not_kept(tmp_path, monkeypatch, capsys):
    def measure(**settings):
        return 1 / 0

    analysis = dataclasses.replace(ANALYSES["grid"], measure=measure)
    monkeypatch.setitem(ANALYSES, "grid", analysis)
    task = Measurement("grid", NO_NETS, GRID, tmp_path)
    assert task.compute() == "grid: ZeroDivisionError: division by zero"
    assert "return 1 / 0" in capsys.readouterr().err
    assert task.cached() is None


def test_long_ones_begin_first_and_those_of_a_group_stay_together():
    config = why_resnets_work_digits.get_config().to_dict()
    groups = {(f, d): ["x"] for f in ("plain", "residual") for d in (20, 56)}
    chosen = ["insertion", "grid", "responses", "paths", "linearity"]
    found = measurements(config, chosen, groups, pathlib.Path())
    assert [task.name for task in found] == [
        "paths-residual-56",
        "insertion-plain-20",
        "responses-plain-56",
        "linearity-plain-56",
        "responses-residual-56",
        "linearity-residual-56",
        "responses-plain-20",
        "linearity-plain-20",
        "responses-residual-20",
        "linearity-residual-20",
        "grid",
    ]


@pytest.mark.parametrize("name", ["paths", "stochastic_depth", "insertion"])
def test_an_analysis_may_want_none_of_the_nets(name):
    config = why_resnets_work_digits.get_config().to_dict()
    groups = {("plain", 110): ["x"]}
    assert measurements(config, [name], groups, pathlib.Path()) == []


def test_layers_are_inserted_only_into_nets_with_batch_norm(monkeypatch):
    config = why_resnets_work_digits.get_config().to_dict()

    def tasks(model):
        monkeypatch.setattr(RunDirectory, "config", lambda run: {"model": model})
        groups = {("plain", 20): ["x"]}
        return measurements(config, ["insertion"], groups, pathlib.Path())

    for norm in ("batch", {"name": "batch", "epsilon": 1e-3}, "package:Norm"):
        assert len(tasks({"norm": norm})) == 1
    assert len(tasks({})) == 1
    for norm in ("group", {"name": "group", "groups": 4}):
        assert not tasks({"norm": norm})
