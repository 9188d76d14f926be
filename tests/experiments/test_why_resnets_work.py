"""The command on nets of eight layers: everything is written, nothing done twice."""

import csv
import dataclasses
import itertools
import json
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
from absl import flags
from experiments.analyses import ANALYSES, Piece, Shape

from cnn_jax.analysis import landscape, trained
from cnn_jax.names import ConfigError
from configs import why_resnets_work_digits
from experiments import analyses, pool, why_resnets_work
from tests import browser, tiny


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
    config.grid.update(depths=(2, 4), width=5, points=16, seeds=2, lags=3)
    config.lesions.update(removed=(1, 2), swaps=(1,), draws=2)
    config.paths.update(depths=(8,), images=8, draws=1)
    config.stochastic_depth.update(depth=8, removed=(1,), draws=1)
    config.landscape.update(depths=(8,), points=3, images=8)
    for name in list(config):
        if name not in ("name", "study", *PIECES):
            del config[name]
    return config


# Pieces of each analysis on one depth, two families.
PIECES = {
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
    *(name for name in PIECES if name != "landscape"),
    *("gradients_along_training", "landscape_surface", "landscape_contours"),
    *("landscape_sections", "depth_vs_error"),
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A directory in which the command has run once."""
    directory = tmp_path_factory.mktemp("why")
    path = directory / "config.py"
    path.write_text(f"from {__name__} import get_config  # noqa: F401\n")
    arguments = [f"--config={path}", f"--workdir={directory / 'out'}", "--workers=1"]
    assert why_resnets_work.main(arguments) == 0
    return directory / "out", arguments


def table(directory, name):
    with open(directory / f"{name}.csv") as file:
        return list(csv.DictReader(file))


def test_every_analysis_has_its_table_and_figures(done):
    directory, _ = done
    kept = [path.stem for path in (directory / "analyses").glob("*.json")]
    for name, count in PIECES.items():
        assert sum(stem.split("-")[0] == name for stem in kept) == count
        rows = table(directory, name)
        assert {row["seed"] for row in rows} == {"0", "1"}
    summary = table(directory, "summary")
    assert {row["analysis"] for row in summary} == set(PIECES)
    for name in FIGURES:
        for suffix in ("png", "svg"):
            assert (directory / f"{name}.{suffix}").stat().st_size > 5000


def test_landscapes_are_kept_with_their_directions(done):
    directory, _ = done
    for family, seed in itertools.product(("plain", "residual"), (0, 1)):
        path = directory / "analyses" / f"landscape-{family}-8-seed{seed}.npz"
        kept = landscape.load(path)
        run = trained.load(directory / f"study/runs/{family}-8-seed{seed}")
        assert kept.centre == landscape.digest(run.variables["params"])
        assert len(kept.directions) == 2
        found = [
            float(row["loss"])
            for row in table(directory, "landscape")
            if (row["family"], row["seed"]) == (family, str(seed))
        ]
        np.testing.assert_allclose(sorted(found), sorted(kept.values["loss"].ravel()))


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


@pytest.mark.skipif(browser.FOUND is None, reason=browser.REASON)
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


def test_what_is_kept_is_not_measured_again(done, monkeypatch):
    directory, arguments = done
    tables = [directory / f"{name}.csv" for name in ("lesions", "summary")]
    wanted = [sorted(path.read_text().splitlines()) for path in tables]
    tables[0].unlink()

    def refuse(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr(Piece, "make", refuse)
    assert why_resnets_work.main([*arguments, "--only=lesions"]) == 0
    assert [sorted(path.read_text().splitlines()) for path in tables] == wanted
    with pytest.raises(AssertionError, match="measured again"):
        why_resnets_work.main(
            [*arguments, "--only=lesions", "--config.lesions.draws=1"]
        )


def test_a_single_run_in_a_process_of_its_own(done, tmp_path, capsys):
    directory, arguments = done
    run = directory / "study/runs/residual-8-seed1"
    words = [arguments[0], f"--workdir={tmp_path}", f"--run={run}", "--workers=2"]
    assert why_resnets_work.main([*words, "--only=responses,linearity"]) == 0
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
    values = flags.FlagValues()
    why_resnets_work.define(values)
    values(["", *arguments])
    assert str(why_resnets_work.place(values, "tiny")) == expected


def test_rows_of_other_runs_or_settings_are_not_taken(done):
    directory, _ = done
    runs = tuple(str(directory / f"study/runs/plain-8-seed{n}") for n in (0, 1))
    settings = {"images": 0}
    kept = directory / "analyses"
    piece = Piece("responses", Shape("plain", 8, runs), settings, kept)
    assert piece.kept() == json.loads((kept / f"{piece.name}.json").read_text())["rows"]
    for other in (
        Piece("responses", Shape("plain", 8, runs[:1]), settings, kept),
        Piece("responses", Shape("plain", 8, runs), {"images": 3}, kept),
        Piece("responses", Shape("plain", 20, runs), settings, kept),
    ):
        assert other.kept() is None


def test_rows_of_earlier_code_or_of_another_program_are_not_taken(
    tmp_path, monkeypatch
):
    settings = {"depths": (2,), "width": 3, "points": 4, "beta": 0.1}
    settings |= {"seeds": 1, "lags": 2}
    piece = Piece("grid", Shape("", 0, ()), settings, tmp_path)
    rows = piece.make()
    assert piece.kept() == rows
    kept = tmp_path / "grid.json"
    text = kept.read_text()
    for foreign in ("[]", "{}", '{"rows": []}', '"rows"', "3", "nothing"):
        kept.write_text(foreign)
        assert piece.kept() is None
    kept.write_text(text)
    changed = dataclasses.replace(ANALYSES["grid"], version=99)
    monkeypatch.setitem(ANALYSES, "grid", changed)
    assert piece.kept() is None


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
    assert why_resnets_work.left_out(tmp_path) == [
        "plain-8-seed1 (diverged)",
        "plain-20-seed1 (not finished)",
        "residual-20-seed0 (not finished)",
        "residual-20-seed1 (not finished)",
    ]
    [*_, shape] = why_resnets_work.shapes_of(tmp_path)
    assert [path.split("/")[-1] for path in shape.runs] == [
        "residual-8-seed0",
        "residual-8-seed1",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only=lesion"], "unknown analysis 'lesion' (did you mean 'lesions'?)"),
        (["--run=a", "--study=b"], "exclude each other"),
        (["--study=nowhere"], "nowhere holds no finished runs"),
        (["--run=nowhere"], "nowhere holds no run"),
        (["--config.lesions.drawz=1"], "'drawz'"),
        (["--config.insertion.steps=(1,2)"], "must ascend from 0"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, arguments, message):
    words = [f"--workdir={tmp_path}/out", *arguments]
    assert why_resnets_work.main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_section_of_another_analysis_is_refused():
    config = {"name": "x", "study": {}, "response": {"images": 0}}
    with pytest.raises(ConfigError, match="unknown key of the config 'response'"):
        analyses.check(config, [])
    with pytest.raises(ConfigError, match="no section 'responses'"):
        analyses.check({"name": "x", "study": {}}, ["responses"])


def test_long_pieces_begin_first_and_those_of_a_shape_stay_together(tmp_path):
    config = why_resnets_work_digits.get_config().to_dict()
    shapes = [Shape(f, d, ("x",)) for f in ("plain", "residual") for d in (20, 56)]
    chosen = ["insertion", "grid", "responses", "paths", "linearity"]
    found = analyses.pieces(config, chosen, shapes, tmp_path)
    assert [piece.name for piece in found] == [
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
    assert set(chosen) <= set(ANALYSES)


class Failing:
    """A piece that cannot be made."""

    name = "failing"

    def kept(self):
        return None

    def make(self):
        raise ConfigError("it cannot be made")


def test_what_a_piece_raises_in_a_process_comes_out(tmp_path):
    with pytest.raises(ConfigError, match="it cannot be made"):
        pool.make_all([Failing(), Failing()], 2, print)


class Endless(Failing):
    """A piece that is never done."""

    name = "endless"

    def make(self):
        time.sleep(600)


class Killed(Failing):
    """A piece that takes more memory than there is."""

    name = "killed"

    def make(self):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("pieces", [(Killed(), Endless()), (Endless(), Killed())])
def test_a_process_that_is_killed_is_told_at_once_and_in_a_line(pieces):
    begun = time.monotonic()
    names = " or ".join(piece.name for piece in pieces)
    with pytest.raises(ChildProcessError, match=f"at {names}; what was done"):
        pool.make_all(pieces, 2, print)
    assert time.monotonic() - begun < 300  # the other one would take 600


def test_processes_of_others_go_on_where_a_piece_fails():
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    other.start()
    try:
        with pytest.raises(ConfigError, match="it cannot be made"):
            pool.make_all([Failing(), Endless()], 2, print)
        time.sleep(0.2)
        assert other.is_alive()
        assert multiprocessing.active_children() == [other]
    finally:
        other.terminate()
        other.join()
