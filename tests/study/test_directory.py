"""A study's directory records its config and knows which runs belong to it."""

import fcntl
import json
import shutil
import threading

import pytest

from cnn_jax import study
from cnn_jax.names import ConfigError
from cnn_jax.study import StudyDirectory
from cnn_jax.training.run_directory import RunDirectory
from tests import tiny

FAMILIES = {
    "plain": {"model": {"shortcut": "none"}},
    "residual": {"model": {"shortcut": "A"}},
}
WARMUP = {"warmup": {"rate": 0.01, "until_train_error": 0.5}}


def config(depths=(8, 14), seeds=(0,), families=FAMILIES, overrides=None, **run):
    return {
        "name": "tiny",
        "families": families,
        "depths": depths,
        "seeds": seeds,
        "overrides": overrides or {},
        "run": tiny.config(**run),
    }


def start(runs, directory):
    """Create a directory for each run, as training does first."""
    for run in runs:
        with RunDirectory(directory / "runs" / run.name).open_for_training(run.config):
            pass


@pytest.fixture
def directory(tmp_path):
    start(StudyDirectory(tmp_path).enter(config()), tmp_path)
    return tmp_path


def names(directory):
    return [place.path.name for place, _ in StudyDirectory(directory).runs()]


OWN = ["plain-14-seed0", "plain-8-seed0", "residual-14-seed0", "residual-8-seed0"]


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"steps": 8}, ["run.steps: was 12, is 8"]),
        # the example: another depth, number of steps and batch size
        (
            {"depths": (20,), "steps": 8, "batch_size": 8},
            ["run.batch_size: was 16, is 8", "run.steps: was 12, is 8"],
        ),
        (
            {"families": {"plain": {"model": {"shortcut": "B"}}}},
            ["families.plain.model.shortcut: was 'none', is 'B'"],
        ),
        (
            {"families": {**FAMILIES, "plain": {}}},
            ["families.plain.model.shortcut: was 'none', is '(absent)'"],
        ),
        (
            {"overrides": {"depth14": WARMUP}},
            ["overrides.depth14.warmup.rate: was '(absent)', is 0.01"],
        ),
        ({"model": {"widths": (2, 2, 3)}}, ["run.model.widths: was [2, 2, 2], is [2"]),
    ],
)
def test_what_else_changes_is_refused_with_the_keys(directory, changes, keys):
    before = (directory / "study.json").read_bytes()
    with pytest.raises(ConfigError, match="a study with another config") as error:
        StudyDirectory(directory).enter(config(**changes))
    assert all(key in str(error.value) for key in keys)
    assert "\n" not in str(error.value)
    assert (directory / "study.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({}, []),
        ({"depths": (8,), "seeds": (0,)}, []),
        ({"depths": (8,), "seeds": (3,)}, ["plain-8-seed3", "residual-8-seed3"]),
        (
            {"depths": (20,), "overrides": {"depth20": WARMUP}},
            ["plain-20-seed0", "residual-20-seed0"],
        ),
        (
            {"depths": (8,), "families": {"b": {"model": {"shortcut": "B"}}}},
            ["b-8-seed0"],
        ),
        ({"dataset": {"data_dir": "moved"}}, []),
    ],
)
def test_a_study_grows_by_families_depths_and_seeds(directory, changes, more):
    start(StudyDirectory(directory).enter(config(**changes)), directory)
    assert sorted(names(directory)) == sorted([*OWN, *more])
    # the study still contains all runs requested before
    whole = StudyDirectory(directory).config()
    StudyDirectory(directory).enter(whole)
    StudyDirectory(directory).enter(config())
    assert StudyDirectory(directory).config()["depths"] == whole["depths"]
    with pytest.raises(ConfigError, match=r"run\.steps"):
        StudyDirectory(directory).enter(config(**{**changes, "steps": 8}))


def test_an_override_of_a_depth_that_cannot_be_has_no_effect(tmp_path, capsys):
    """A warning: another depth or block of the same config may use it."""
    changed = config(overrides={"depth20": WARMUP, "depth21": WARMUP})
    StudyDirectory(tmp_path).enter(changed)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: config.overrides.depth21 has no effect: ")


def test_what_was_asked_for_is_no_more_than_that(directory):
    """Not every combination of the families, depths and seeds."""
    more = StudyDirectory(directory).enter(config(depths=(20,), seeds=(1, 2)))
    asked = StudyDirectory(directory).asked()
    assert sorted(asked) == sorted([*OWN, *(run.name for run in more)])
    assert len(set(asked)) == 8  # and not 3 depths x 3 seeds x 2 families
    # 8 layers with seed 1 are possible in the config, but were not requested
    start(study.expand(config(depths=(8,), seeds=(1,))), directory)
    assert sorted(names(directory)) == sorted(OWN)


def test_another_warm_up_of_a_depth_that_was_added_is_refused(directory):
    added = {"depths": (20,), "overrides": {"depth20": WARMUP}}
    StudyDirectory(directory).enter(config(**added))
    StudyDirectory(directory).enter(config())  # depth 20 is not requested
    with pytest.raises(ConfigError, match=r"overrides\.depth20\.warmup\.rate"):
        StudyDirectory(directory).enter(config(depths=(20,)))


def test_a_study_none_of_whose_runs_has_started_keeps_what_was_asked(tmp_path):
    """The command that asked may be waiting, and trains its runs later."""
    first = StudyDirectory(tmp_path).enter(config())
    second = StudyDirectory(tmp_path).enter(config(depths=(20,), seeds=(3,)))
    asked = [run.name for run in (*first, *second)]
    assert StudyDirectory(tmp_path).asked() == asked
    with pytest.raises(ConfigError, match=r"run\.steps: was 12, is 8") as error:
        StudyDirectory(tmp_path).enter(config(steps=8))
    assert "nothing has been trained there" in str(error.value)
    assert "delete" in str(error.value)
    assert "\n" not in str(error.value)
    start(first, tmp_path)
    assert sorted(names(tmp_path)) == OWN


def test_a_record_is_read_again_once_its_lock_is_free(tmp_path):
    """The lock of a regular file: those of directories are local on NFS."""
    StudyDirectory(tmp_path / "other").enter(config(depths=(20,)))
    place = StudyDirectory(tmp_path / "study")
    place.path.mkdir()
    second = threading.Thread(target=place.enter, args=(config(),))
    with open(place.path / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second.start()
        second.join(0.5)
        assert second.is_alive()
        shutil.copy(tmp_path / "other" / "study.json", place.path)
    second.join()
    asked = ["plain-20-seed0", "residual-20-seed0", *sorted(OWN)]
    assert sorted(place.asked()) == sorted(asked)


def test_a_directory_of_the_version_before_is_checked_by_its_runs(directory):
    (directory / "study.json").unlink()
    assert sorted(names(directory)) == OWN
    with pytest.raises(ConfigError, match="steps: was 12, is 8"):
        StudyDirectory(directory).enter(config(depths=(20,), steps=8))
    StudyDirectory(directory).enter(config(depths=(20,)))
    assert sorted(names(directory)) == OWN


def test_the_directory_of_a_run_is_no_place_for_a_study(directory):
    place = directory / "runs" / OWN[0]
    before = sorted(path.name for path in place.iterdir())
    with pytest.raises(ConfigError, match="contains a run"):
        StudyDirectory(place).enter(config())
    assert sorted(path.name for path in place.iterdir()) == before


def add_foreign(runs):
    """Add foreign entries that users leave among runs; return their names."""
    shutil.copytree(runs / OWN[1], runs / f"{OWN[1]}.bak")
    shutil.copytree(runs / OWN[1], runs / f"{OWN[1]} (copy)")
    shutil.copytree(runs / OWN[1], runs / "plain-8-seed1")  # its config has seed 0
    shutil.copytree(runs / OWN[1], runs / "plain-20-seed0")  # its config has depth 8
    (runs / "old").mkdir()
    (runs / "a-8-seedx").mkdir()
    (runs / "notes-8-seed0").write_text("a file")
    return [
        *(f"{OWN[1]}.bak", f"{OWN[1]} (copy)", "plain-8-seed1", "plain-20-seed0"),
        *("old", "a-8-seedx", "notes-8-seed0"),
    ]


@pytest.mark.parametrize("recorded", [True, False])
def test_what_is_no_run_of_the_study_is_left_out_and_named(directory, recorded, capsys):
    foreign = add_foreign(directory / "runs")
    (directory / "runs" / ".DS_Store").write_text("of the system")
    if recorded:  # then a run of an unrequested family is recognised, too
        shutil.copytree(directory / "runs" / OWN[1], directory / "runs" / "x-8-seed0")
        foreign.append("x-8-seed0")
        # and one of another recipe
        other = study.expand(config(seeds=(5,), steps=8))
        StudyDirectory(directory).enter(config(seeds=(5,)))
        start(other[:1], directory)
        foreign.append(other[0].name)
    else:
        (directory / "study.json").unlink()
    assert study.load(directory).index.tolist() == [
        *("plain-8-seed0", "plain-14-seed0", "residual-8-seed0", "residual-14-seed0")
    ]
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ")
    assert all(repr(name) in line for name in foreign)
    assert "DS_Store" not in line
    assert study.logs(directory).empty
    assert study.held_out_of(directory) == "test"


@pytest.mark.parametrize("family", ["a-b", "0.1", "$x$", "_", "seed0", "é", "a b"])
def test_a_run_is_known_by_its_name_again(family, tmp_path):
    families = {"arm": {"name": family, "model": {"shortcut": "B"}}}
    runs = StudyDirectory(tmp_path).enter(config(families=families, seeds=(0, 12)))
    start(runs, tmp_path)
    table = study.load(tmp_path)
    assert set(table["family"]) == {family}
    assert set(table.index) == {run.name for run in runs}
    assert "model.shortcut" not in table


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"null", b"[1]", b"\xff", b"[" * 100_000),
        *(b'{"format": 1}', b'{"format": 1, "run": 5, "runs": []}'),
        b'{"format": 2, "runs": []}',
    ],
)
def test_a_damaged_record_is_one_line(directory, content):
    (directory / "study.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"study\.json") as error:
        study.load(directory)
    assert "\n" not in str(error.value)


def test_the_record_is_read_under_the_old_names_of_keys(directory):
    record = json.loads((directory / "study.json").read_text())
    record["run"]["steps_per_dispatch"] = record["run"].pop("steps_per_execution")
    (directory / "study.json").write_text(json.dumps(record))
    assert len(names(directory)) == 4
    StudyDirectory(directory).enter(config())
