"""Training from streams: a small ImageNet study, and resuming after a kill."""

import csv
import itertools
import os
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from cnn_jax.training import checkpoint
from cnn_jax.training.loop import fit
from cnn_jax.training.program import Program
from cnn_jax.training.run_directory import RunDirectory
from experiments import degradation
from experiments.benchmark import decode
from tests import tiny
from tests.data.conftest import encode

ROOT = pathlib.Path(__file__).resolve().parents[2]
PHOTO = load_sample_image("flower.jpg")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> pathlib.Path:
    """JPEG class folders: 20 training images and 6 test images."""
    root = tmp_path_factory.mktemp("imagenet")
    places = itertools.count()
    for split, count in (("train", 10), ("val", 3)):
        for name in ("n01440764", "n01443537"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                at = 10 * next(places)
                region = PHOTO[at : at + 40, at : at + 50]
                file = root / split / name / f"{number}.JPEG"
                file.write_bytes(encode(region, "jpeg"))
    return root


@pytest.mark.slow
def test_imagenet_study_on_a_folder(pictures, tmp_path, capsys):
    run = "--config.run"
    arguments = [
        f"--config={ROOT}/configs/degradation_imagenet.py",
        f"--workdir={tmp_path / 'study'}",
        "--config.depths=(10,)",
        f"{run}.model.stage_sizes=(1,1,1,1)",
        f"{run}.model.widths=(2,2,2,2)",
        f"{run}.dataset.name=folder",
        f"{run}.dataset.data_dir={pictures}",
        f"{run}.dataset.test_split=val",
        f"{run}.dataset.stream.train.size=32",
        f"{run}.dataset.stream.train.shorter=(36,44)",
        f"{run}.dataset.stream.test.size=32",
        f"{run}.dataset.stream.test.shorter=36",
        f"{run}.dataset.stream.workers=0",
        f"{run}.steps=3",
        f"{run}.batch_size=8",
        f"{run}.eval_batch_size=4",
        f"{run}.schedule.boundaries=(1,2,3)",
        f"{run}.parallel.devices=1",
        f"{run}.parallel.bn_group_size=4",
    ]
    assert degradation.main(arguments) == 0, capsys.readouterr()
    text = (tmp_path / "study" / "results.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["family"] for row in rows] == ["plain", "residual"]
    for row in rows:
        assert row["status"] == "finished"
        # 6 test and 20 training images: errors are whole images
        assert float(row["test_error"]) * 6 % 1 == pytest.approx(0, abs=1e-6)
        assert float(row["clean_train_error"]) * 20 % 1 == pytest.approx(0, abs=1e-6)


def config(pictures, workers):
    stream = {
        "train": {"name": "inception", "size": 16},
        "test": {"name": "center", "size": 16, "shorter": 18},
        "workers": workers,
    }
    dataset = {
        "name": "folder",
        "data_dir": str(pictures),
        "test_split": "val",
        "stream": stream,
    }
    return {
        **tiny.config(
            model={"depth": 4, "widths": (2,), "stage_sizes": (1,)},  # compiles fast
            **{"batch_size": 6, "eval_batch_size": 6, "steps": 14, "eval_every": 0},
        ),
        "dataset": dataset,
    }


@pytest.fixture(scope="module")
def reference(pictures, tmp_path_factory):
    """The state and the log of the uninterrupted run."""
    place = RunDirectory(tmp_path_factory.mktemp("whole") / "run")
    program = Program(config(pictures, 0))
    fit(program, 0, place)
    return ending(program, place)


def ending(program, place):
    state, _, _ = checkpoint.restore(place.checkpoints, program.initial_state(0))
    return jax.tree.leaves(state), (place.path / "metrics.jsonl").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_in_an_epoch_and_started_again(
    pictures, reference, tmp_path, workers, monkeypatch
):
    """Bit-identical, and no example is seen twice or left out."""
    place = RunDirectory(tmp_path / "run")
    # workers import the script as well, and need none of this
    code = (
        "if __name__ == '__main__':\n"
        "    import jax, time\n"
        "    jax.config.update('jax_numpy_rank_promotion', 'raise')\n"
        "    from tests.experiments import test_streaming as here\n"
        "    from cnn_jax.runtime import compilation_cache\n"
        "    compilation_cache.enable()\n"  # the test session's
        "    def slow(step, row):\n"
        "        time.sleep(0.2 if step >= 5 else 0)\n"
        f"    program = here.Program(here.config({str(pictures)!r}, {workers}))\n"
        f"    here.fit(program, 0, here.RunDirectory({str(place.path)!r}), slow)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    run = subprocess.Popen(
        [sys.executable, str(script)], cwd=ROOT, env=importable_tests()
    )
    deadline = time.monotonic() + 200
    while not any(row["step"] >= 6 for row in place.rows()):
        assert run.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    run.kill()
    run.wait()
    assert place.result() is None
    program = Program(config(pictures, workers))
    started = []
    batches = program.source.train_batches

    def recorded(seed, batch_size, step, state=b""):
        started.append((step, bool(state)))
        return batches(seed, batch_size, step, state)

    monkeypatch.setattr(program.source, "train_batches", recorded)
    fit(program, 0, place)
    # a checkpoint every 4 steps; an epoch is 20 / 6 steps
    assert started[0] in ((4, True), (8, True))
    found, log = ending(program, place)
    assert log == reference[1]
    for leaf, wanted in zip(found, reference[0], strict=True):
        np.testing.assert_array_equal(leaf, wanted)


@pytest.mark.slow
def test_several_steps_a_dispatch_equal_one(pictures, reference, tmp_path):
    """A stream's pixels; the batches of a dispatch are on the device together."""
    place = RunDirectory(tmp_path / "run")
    program = Program({**config(pictures, 0), "steps_per_execution": 3})
    fit(program, 0, place)
    found, log = ending(program, place)
    assert log == reference[1]
    for leaf, wanted in zip(found, reference[0], strict=True):
        np.testing.assert_array_equal(leaf, wanted)


def importable_tests() -> dict[str, str]:
    """The environment of a script that imports from ``tests``."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_decode_benchmark_compares_pipelines(capsys, pictures):
    assert decode.main(["--images=2", "--rounds=1"]) == 0
    out = capsys.readouterr().out
    assert "cnn_jax" in out
    assert "Pillow alone" in out
    assert decode.main([f"--folder={pictures / 'none'}"]) == 2
    assert "no JPEG files" in capsys.readouterr().err


@pytest.mark.slow
def test_decode_benchmark_without_opencv():
    """``--help`` works; a run names the missing extra."""
    script = (
        "import sys; sys.modules['cv2'] = None\n"
        "from experiments.benchmark import decode\n"
        "assert decode.main(['--help']) == 0\n"
        "sys.exit(decode.main(['--images=2']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=importable_tests(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "python -m experiments.benchmark decode" in done.stdout
    assert "needs cv2" in done.stderr
    assert "pip install -e '.[streams]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_pipelines_of_the_benchmark_do_the_same_work():
    """The same draws give the same crop, up to how its pixels are resampled."""
    ours, pillow = decode.of_this_package(), decode.by_pillow
    for number, encoded in enumerate(decode.photographs(6)):
        found, wanted = (
            np.asarray(augment(encoded, np.random.default_rng(number)), float)
            for augment in (ours, pillow)
        )
        assert found.shape == (224, 224, 3)
        assert abs(found - wanted).mean() < 8
        assert abs(found - wanted[:, ::-1]).mean() > 16
