"""What is recorded with a run, and what is said where it changes."""

import pytest

from cnn_jax import kernels
from cnn_jax.training.loop import fit
from cnn_jax.training.run_directory import RunDirectory


def stop(step, row):
    if step == 4:
        raise RuntimeError("stopped")


def test_another_library_of_convolutions_is_said_on_resume(
    program, tmp_path, monkeypatch, capsys
):
    place = RunDirectory(tmp_path / "run")
    with pytest.raises(RuntimeError, match="stopped"):
        fit(program, 0, place, stop)
    began = kernels.library()
    assert place.convolutions() == began
    with pytest.raises(RuntimeError, match="stopped"):
        fit(program, 0, place, stop)
    assert "warning" not in capsys.readouterr().out
    monkeypatch.setattr(kernels, "library", lambda: "another")
    fit(program, 0, place)
    said = capsys.readouterr().out
    assert said.count("warning") == 1
    assert f"{began} computed the convolutions when the run began" in said
    assert "resumes with those of another" in said
    assert place.convolutions() == began
    assert place.result()["convolutions"] == "another"


def test_older_runs_have_not_recorded_it(tmp_path):
    place = RunDirectory(tmp_path)
    assert place.convolutions() is None
    with place.open_for_training({"a": 1}):
        pass
    assert place.convolutions() is None
    place.check_config({"a": 1, "convolutions": "onednn"})
