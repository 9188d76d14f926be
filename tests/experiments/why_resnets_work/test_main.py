"""The command on nets of eight layers writes all results and repeats no work.

One file, beyond 350 lines, because most tests look at the same results.
"""

import argparse
import csv
import dataclasses
import itertools
import json
import shutil

import numpy as np
import pandas as pd
import pytest

from cnn_jax import study
from cnn_jax.analysis import landscape_file, trained
from cnn_jax.names import ConfigError
from configs import why_resnets_work_digits
from experiments.why_resnets_work import __main__ as command
from experiments.why_resnets_work.measurement import Measurement, MeasurementFailed
from experiments.why_resnets_work.registry import ANALYSES
from tests import browser, tiny
from tests.needs import needs
from tests.study.directories import RESULT, write_run


def get_config():
    config = why_resnets_work_digits.get_config()
    config.name = "tiny"
    config.study.families = {
        "plain": {"model": {"shortcut": "none"}},
        "residual": {"model": {"shortcut": "A"}},
    }
    config.study.depths, config.study.seeds = (8,), (0, 1)
    config.study.run = tiny.config(steps=4, checkpoint_every=0, eval_every=0)
    config.insertion.update(depth=8, site="stage2_block1", blocks=(1,), steps=(0, 2))
    config.insertion.rates = (0.1,)
    config.gradients.update(batches=1, along_training=(8,), snapshots=(0, 2))
    config.shattered.update(images=8, distances=(0.1,))
    config.grid.update(depths=(2,), width=5, points=16, seeds=2, lags=3)
    config.lesions.update(removed=(1, 2), swaps=(1,), draws=2)
    config.paths.update(depths=(8,), images=8, draws=1)
    config.stochastic_depth.update(depth=8, removed=(1,), draws=1)
    config.landscape.update(depths=(8,), points=3, images=8)
    for name in list(config):
        if name not in ("name", "study", *COUNTS):
            del config[name]
    return config


# Number of measurements of each analysis for one depth and two families.
COUNTS = {
    "insertion": 1,
    "gradients": 2,
    "shattered": 2,
    "grid": 1,
    "responses": 2,
    "lesions": 2,
    "paths": 1,
    "linearity": 2,
    "stochastic_depth": 1,
    "landscape": 2,
}
FIGURES = (
    *(name for name in COUNTS if name != "landscape"),
    *("gradients_along_training", "landscape_surface", "landscape_contours"),
    *("landscape_sections", "depth_vs_error"),
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The directory of a command that has run once."""
    directory = tmp_path_factory.mktemp("why")
    path = directory / "config.py"
    path.write_text(f"from {__name__} import get_config  # noqa: F401\n")
    arguments = [f"--config={path}", f"--workdir={directory / 'out'}", "--workers=1"]
    assert command.main(arguments) == 0
    return directory / "out", arguments


def table(directory, name):
    with open(directory / f"{name}.csv") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_analysis_has_its_table_and_figures(done):
    directory, _ = done
    kept = [path.stem for path in (directory / "analyses").glob("*.json")]
    for name, count in COUNTS.items():
        assert sum(stem.split("-")[0] == name for stem in kept) == count
        rows = table(directory, name)
        assert {row["seed"] for row in rows} == {"0", "1"}
    summary = table(directory, "summary")
    assert {row["analysis"] for row in summary} == set(COUNTS)
    for name in FIGURES:
        for suffix in ("png", "svg"):
            assert (directory / f"{name}.{suffix}").stat().st_size > 5000


def test_an_analysis_without_rows_says_so(tmp_path):
    show = command.Show("title", tmp_path, {})
    with pytest.raises(MeasurementFailed, match="nothing to measure"):
        show.section("linearity", ANALYSES["linearity"], {}, [[], []])


@pytest.mark.slow
def test_landscapes_are_kept_with_their_directions(done):
    directory, _ = done
    for family, seed in itertools.product(("plain", "residual"), (0, 1)):
        path = directory / "analyses" / f"landscape-{family}-8-seed{seed}.npz"
        kept = landscape_file.load(path)
        run = trained.load(directory / f"study/runs/{family}-8-seed{seed}")
        assert kept.centre == landscape_file.digest(run.variables["params"])
        assert len(kept.directions) == 2
        found = [
            float(row["loss"])
            for row in table(directory, "landscape")
            if (row["family"], row["seed"]) == (family, str(seed))
        ]
        np.testing.assert_allclose(sorted(found), sorted(kept.values["loss"].ravel()))


@pytest.mark.slow
def test_stochastic_depth_trains_another_net_on_the_same_data(done):
    directory, _ = done
    rows = table(directory, "stochastic_depth")
    assert [(r["death_rate"], r["removed"]) for r in rows if r["seed"] == "0"] == [
        ("0.0", "0"),
        ("0.0", "1"),
        ("0.5", "0"),
        ("0.5", "1"),
    ]
    intact = {
        row["seed"]: row["error"]
        for row in table(directory, "lesions")
        if (row["kind"], row["family"]) == ("intact", "residual")
    }
    for row in rows:
        if (row["death_rate"], row["removed"]) == ("0.0", "0"):
            assert row["error"] == intact[row["seed"]]


@pytest.mark.slow
@needs("a browser")
@pytest.mark.parametrize("width", [390, 1280])
def test_the_report_in_a_real_browser(done, width, tmp_path):
    directory, _ = done
    page = (directory / "report.html").read_text()
    assert len(page) < 6e6
    found = browser.measure(page, width, tmp_path)
    assert found["needed"] <= width == found["width"]
    assert not found["sticking_out"]
    assert not found["requests"]
    assert not found["dangling"]
    titles = " ".join(found["headings"])
    for title in ("The effect", "The identity is easy", "Loss landscape", "Configs"):
        assert title in titles
    # every figure, and the headline of the study
    assert len(found["images"]) == len(FIGURES)
    for image in found["images"]:
        assert min(image["natural"], image["width"], image["height"]) > 100
        assert len(image["alt"]) > 40


@pytest.mark.slow
def test_rows_say_what_was_done(done):
    directory, _ = done
    steps = {row["step"] for row in table(directory, "gradients")}
    assert steps == {"0", "2", "4"}
    inserted = table(directory, "insertion")
    assert {row["family"] for row in inserted} == {"plain"}
    for row in inserted:
        if row["how"] in ("none", "residual"):
            assert row["changed_logits"] == "0"
        if row["how"] == "plain_he":
            assert int(row["changed_logits"]) > 0
    lesions = [row for row in table(directory, "lesions") if row["seed"] == "0"]
    one = [row for row in lesions if row["kind"] == "one"]
    assert [(row["family"], row["block"]) for row in one] == [
        ("plain", "1"),
        *(("residual", number) for number in "123"),
    ]
    assert "exchanged" not in {row["kind"] for row in lesions}  # none are alike
    paths = [row for row in table(directory, "paths") if row["seed"] == "0"]
    assert [float(row["share"]) for row in paths] == [1 / 8, 3 / 8, 3 / 8, 1 / 8]


@pytest.mark.slow
def test_what_is_kept_is_not_measured_again(done, monkeypatch):
    directory, arguments = done
    wanted, summary = table(directory, "lesions"), table(directory, "summary")
    (directory / "lesions.csv").unlink()

    without_measuring(monkeypatch)
    assert command.main([*arguments, "--only=lesions"]) == 0
    assert table(directory, "lesions") == wanted
    own = [row for row in summary if row["analysis"] == "lesions"]
    assert table(directory, "summary") == own
    with pytest.raises(AssertionError, match="measured again"):
        command.main([*arguments, "--only=lesions", "--config.lesions.draws=1"])


@pytest.mark.slow
def test_a_single_run_in_a_process_of_its_own(done, tmp_path, capsys):
    directory, arguments = done
    run = directory / "study/runs/residual-8-seed1"
    words = [arguments[0], f"--workdir={tmp_path}", f"--run={run}", "--workers=2"]
    assert command.main([*words, "--only=responses,linearity"]) == 0
    found = table(tmp_path, "responses")
    expected = [
        row
        for row in table(directory, "responses")
        if (row["family"], row["seed"]) == ("residual", "1")
    ]
    assert [row["name"] for row in found] == [row["name"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert float(one["std"]) == pytest.approx(float(other["std"]), rel=1e-4)
    assert "[2/2]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "runs/tiny"),
        (["--run=a/b"], "a/b/why_resnets_work"),
        (["--study=a"], "a/why_resnets_work"),
        (["--study=a", "--workdir=mine"], "mine"),
    ],
)
def test_results_of_other_nets_go_to_other_places(arguments, expected):
    parser = argparse.ArgumentParser()
    command.define(parser)
    values = parser.parse_args(arguments)
    assert str(command.results_directory(values, "tiny")) == expected


def test_runs_of_a_study_that_are_left_out_are_named(tmp_path):
    for family, depth, seed in (
        *(("plain", 8, 0), ("plain", 8, 1), ("plain", 20, 0)),
        *(("residual", 8, 0), ("residual", 8, 1), ("residual", 20, 0)),
    ):
        run = tmp_path / f"runs/{family}-{depth}-seed{seed}"
        run.mkdir(parents=True)
        result = {
            "status": "diverged" if (family, seed) == ("plain", 1) else "finished"
        }
        if (family, depth) != ("residual", 20):
            (run / "result.json").write_text(json.dumps(result))
    table = study.load(tmp_path)
    assert study.unfinished(table, tmp_path) == {
        "plain-8-seed1": "diverged",
        "residual-20-seed0": "not finished",  # and not plain-20-seed1: not requested
    }
    [*_, runs] = study.groups(table, tmp_path).values()
    assert [path.split("/")[-1] for path in runs] == [
        "residual-8-seed0",
        "residual-8-seed1",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only=lesion"], "unknown analysis 'lesion' (did you mean 'lesions'?)"),
        (["--run=a", "--study=b"], "exclude each other"),
        (["--study=nowhere"], "nowhere contains no finished runs"),
        (["--run=nowhere"], "nowhere contains no run"),
        (["--config.lesions.drawz=1"], "'drawz'"),
        (["--config.insertion.steps=(1,2)"], "must increase from 0"),
        (["--config.shattered.images=129"], "must be at most 128"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, arguments, message):
    words = [f"--workdir={tmp_path}/out", *arguments]
    assert command.main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_summary_has_the_numbers_of_its_own_command_alone(tmp_path):
    for name in ("lesions", "responses"):  # perhaps of another study
        numbers = pd.DataFrame([dict.fromkeys(command.COLUMNS, name)])
        command.write_summary([numbers], tmp_path)
        assert [row["analysis"] for row in table(tmp_path, "summary")] == [name]
    command.write_summary([], tmp_path)
    assert table(tmp_path, "summary") == []


def test_what_is_no_run_of_the_study_is_named_once(tmp_path, capsys):
    write_run(tmp_path, "plain", 8, 0, result=RESULT)
    (tmp_path / "runs" / "notes").mkdir()
    assert command.main([f"--study={tmp_path}", "--only=paths"]) == 2
    error = capsys.readouterr().err
    assert error.count("ignored, not runs of this study: 'notes'") == 1
    assert "no net to analyse among plain-8" in error


def without_measuring(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr(Measurement, "compute", refuse)


@pytest.mark.slow
def test_sections_that_fail_leave_the_others_and_the_status_says_so(
    done, tmp_path, monkeypatch, capsys
):
    """Each in another part of its analysis."""
    directory, arguments = done
    copy = shutil.copytree(directory, tmp_path / "out", symlinks=True)

    def fail(rows, *_):
        return 1 / 0

    parts = {"insertion": "section", "stochastic_depth": "draw", "paths": "summary"}
    for name, part in parts.items():
        broken = dataclasses.replace(ANALYSES[name], **{part: fail})
        monkeypatch.setitem(ANALYSES, name, broken)
    monkeypatch.setattr(Measurement, "cached", lambda task: kept(directory, task))
    without_measuring(monkeypatch)
    only = f"--only={','.join(parts)},linearity"
    assert command.main([arguments[0], f"--workdir={copy}", only]) == 1
    error = capsys.readouterr().err
    for name in parts:
        assert f"error: {name} failed: ZeroDivisionError: division by zero" in error
    page = (copy / "report.html").read_text()
    assert page.count("This section failed.") == len(parts)
    assert "How much does a block change" in page
    assert "The effect: more layers" in page


def kept(directory, task):
    """The rows of a task from another directory."""
    return json.loads((directory / "analyses" / task.path.name).read_text())["rows"]


@pytest.mark.slow
def test_titles_are_those_of_the_study_that_is_looked_at(done, tmp_path, monkeypatch):
    directory, arguments = done
    titles = []
    save = command.plots.save

    def watched(figure, *rest):
        titles.append(figure.get_suptitle())
        save(figure, *rest)

    monkeypatch.setattr(command.plots, "save", watched)
    study = shutil.copytree(directory / "study", tmp_path / "my_$study")
    words = [arguments[0], f"--study={study}", "--only=linearity", "--workers=1"]
    assert command.main(words) == 0
    assert titles.pop().startswith("degradation_digits: distance of blocks")
    (study / "study.json").unlink()  # as in a study of an earlier version
    assert command.main(words) == 0
    assert titles.pop().startswith("my_$study: distance of blocks")
    page = (study / "why_resnets_work/report.html").read_text()
    assert "Why residual networks work: my_$study" in page
    assert "Runs of plain-8" in page


@pytest.mark.slow
@pytest.mark.parametrize("only", ["landscape", "paths", "insertion"])
def test_where_no_net_is_looked_at_it_says_so(done, capsys, only):
    directory, arguments = done
    run = directory / "study/runs/residual-8-seed1"
    depth = {"landscape": "depths=(20,)", "paths": "depths=(20,)"}
    setting = f"--config.{only}.{depth.get(only, 'depth=8')}"
    words = [arguments[0], f"--run={run}", f"--only={only}", setting]
    assert command.main(words) == 2
    error = capsys.readouterr().err
    assert error == f"error: {only}: no net to analyse among residual-8\n"
    assert not (run / "why_resnets_work").exists()


@pytest.mark.slow
def test_rows_that_are_kept_are_not_taken_for_other_data(done, monkeypatch, capsys):
    directory, arguments = done
    words = [*arguments, f"--study={directory / 'study'}", "--only=linearity"]
    without_measuring(monkeypatch)
    assert command.main(words) == 0
    noise = tiny.noise
    monkeypatch.setattr(tiny, "noise", lambda size: noise(size - 1))
    assert command.main(words) == 2
    error = capsys.readouterr().err
    assert "plain-8-seed0 was trained on other data" in error

    def gone(size):
        raise ConfigError("no data here")

    # Rows suffice if the data is missing.
    monkeypatch.setattr(tiny, "noise", gone)
    assert command.main(words) == 0
    error = capsys.readouterr().err
    assert "cannot verify the data" in error
    assert "no data here" in error
