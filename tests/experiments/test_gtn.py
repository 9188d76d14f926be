"""The experiment end to end, on three glyphs and with a small recogniser."""

import csv
import json
import sys
import types

import flax.linen as nn
import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas
import pytest

import cnn_jax
from cnn_jax import names
from cnn_jax.data import Arrays, Dataset
from cnn_jax.plots import reading as figures
from cnn_jax.study import execution, plan
from cnn_jax.training.loop import Diverged
from configs import gtn_digits
from experiments import evaluate, gtn
from experiments.benchmark import reading


class Small(nn.Module):
    """A fast-compiling recogniser of squares, or of each position of a line."""

    num_classes: int = 3
    line: bool = False

    @nn.compact
    def __call__(self, x, train):
        x = nn.avg_pool(x, (4, 2), strides=(4, 2))
        x = nn.Conv(8, (8, 16), strides=(1, 2), padding="VALID")(x)
        x = nn.Dense(self.num_classes)(nn.relu(x))
        return x[:, 0] if self.line else x[:, 0, 0]


def glyphs() -> Dataset:
    """A stroke, two strokes joined by a thin one (to be cut in two), and a block."""
    images = np.zeros((3, 20, 20, 1), np.uint8)
    images[0, :, 8:12] = 255
    images[1, :, 4:8] = images[1, :, 12:16] = 255
    images[1, 8:10, 8:12] = 255
    images[2, 8:, 4:16] = 255
    part = Arrays(images, np.arange(3, dtype=np.int32))
    return Dataset("glyphs", 3, part, part)


def get_config():
    config = gtn_digits.get_config()
    config.seeds = (0,)
    small = f"{__name__}:Small"
    config.isolated.model = {"name": small}
    config.system.model.recognizer = small
    config.displacement.model.recognizer = small
    for stage, steps in (("isolated", 2), ("system", 60), ("displacement", 2)):
        run = config[stage]
        run.dataset.digits = {"name": f"{__name__}:glyphs"}
        run.dataset.num_lines = 24
        run.dataset.min_length = 2
        run.dataset.max_length = 3
        run.dataset.touching = 0.0
        run.dataset.spacing = (2, 4)
        run.steps = steps
        run.schedule = {"name": "piecewise", "rates": (5e-3,), "boundaries": ()}
        run.batch_size = run.eval_batch_size = 16
        run.parallel.devices = 2
    return config


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The directory of an experiment that has run once."""
    directory = tmp_path_factory.mktemp("gtn")
    path = directory / "config.py"
    path.write_text(f"from {__name__} import get_config  # noqa: F401\n")
    arguments = [f"--config={path}", f"--workdir={directory / 'study'}"]
    assert gtn.main(arguments) == 0
    return directory / "study", arguments


def results(directory):
    with open(directory / "results.csv") as file:
        return {row["system"]: row for row in csv.DictReader(file)}


@pytest.mark.slow
def test_training_through_the_graph_lowers_the_string_error(study):
    directory, _ = study
    rows = results(directory)
    assert list(rows) == list(gtn.SYSTEMS)
    before, after = (
        float(rows[name]["string_error"]) for name in ("isolated", "system")
    )
    assert before > 0.4
    assert after < before / 4
    assert float(rows["system"]["loss"]) < float(rows["isolated"]["loss"]) / 2
    assert float(rows["system"]["unspellable"]) == 0.0
    for name in ("reading_errors", "segmentation"):
        for suffix in ("png", "svg"):
            assert (directory / f"{name}.{suffix}").stat().st_size > 5000


@pytest.mark.slow
def test_the_trainer_and_the_reader_count_the_same_errors(study):
    directory, _ = study
    result = json.loads((directory / "runs/system-seed0/result.json").read_text())
    row = results(directory)["system"]
    assert result["test_error"] == pytest.approx(float(row["string_error"]))
    assert result["test_loss"] == pytest.approx(float(row["loss"]), rel=1e-4)


@pytest.mark.slow
def test_a_finished_experiment_is_rebuilt_without_training(study, monkeypatch):
    directory, arguments = study
    wanted = (directory / "results.csv").read_text()
    (directory / "results.csv").unlink()
    (directory / "segmentation.png").unlink()

    def refuse(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(execution, "fit", refuse)
    monkeypatch.setattr(gtn.Reader, "__call__", refuse)
    assert gtn.main([*arguments, "--plot_only"]) == 0
    assert (directory / "results.csv").read_text() == wanted
    assert (directory / "segmentation.png").exists()
    assert gtn.main(arguments) == 0


@pytest.mark.slow
def test_another_config_is_refused_and_other_lines_are_measured(study, capsys):
    directory, arguments = study
    loss = "--config.system.loss.criterion=viterbi"
    for more in ([], ["--plot_only"]):
        assert gtn.main([*arguments, loss, *more]) == 2
        message = capsys.readouterr().err
        assert "system-seed0" in message
        assert "loss.criterion: was" in message
    stored = directory / "runs/isolated-seed0/reading_isolated.json"
    wanted = json.loads(stored.read_text())
    old = {**wanted, "reader": {**wanted["reader"], "steps": 3}, "errors": {}}
    stored.write_text(json.dumps(old))
    assert gtn.main([*arguments, "--plot_only"]) == 0
    assert json.loads(stored.read_text()) == wanted


@pytest.mark.slow
def test_other_digits_are_refused(study, monkeypatch, capsys):
    _, arguments = study
    part = Arrays(255 - glyphs().train.images, np.arange(3, dtype=np.int32))

    def others() -> Dataset:
        return Dataset("glyphs", 3, part, part)

    monkeypatch.setattr(sys.modules[__name__], "glyphs", others)
    assert gtn.main([*arguments, "--plot_only"]) == 2
    assert "was trained on other data" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["system", "displacement"])
def test_a_reader_of_strings_has_an_error_and_no_classes(study, stage, capsys):
    """As `experiments.evaluate` prints it; `displacement` is hardly trained."""
    run = study[0] / f"runs/{stage}-seed0"
    result = json.loads((run / "result.json").read_text())
    assert (result["test_error"] > 0) == (stage == "displacement")
    assert evaluate.main([str(run)]) == 0
    assert f"error: {100 * result['test_error']:.2f} %" in capsys.readouterr().out
    net = cnn_jax.load_run(run)
    with pytest.raises(names.ConfigError, match="reads strings of digits"):
        net.predict(np.zeros((1, *net.program.facts.image_shape), np.uint8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"system": 3}, "config.system must be a section, got 3"),
        ({"isolated": {"model": {"name": "lenet5"}}}, "isolated.model.name"),
        ({"system": {"model": {"recognizer": "lenet5"}}}, "isolated.model.name"),
    ],
)
def test_a_wrong_config_is_refused_before_training(change, message):
    config = get_config().to_dict()
    gtn.check(config)
    config = plan.merge(config, change)
    with pytest.raises(names.ConfigError, match=message):
        gtn.check(config)


def test_an_invalid_network_is_refused_before_others_are_trained(
    tmp_path, monkeypatch, capsys
):
    tried = []
    monkeypatch.setattr(execution, "fit", lambda *_: tried.append(1))
    monkeypatch.setattr(gtn.launch, "check_machine", lambda: None)
    (tmp_path / "config.py").write_text(f"from {__name__} import get_config\n")
    words = [f"--config={tmp_path}/config.py", f"--workdir={tmp_path}/study"]
    assert gtn.main([*words, "--config.system.model.cuts=1"]) == 2
    assert "cuts" in capsys.readouterr().err
    assert not tried


def table(seeds):
    rows = [
        {"system": system, "seed": seed, "string_error": error, "digit_error": 0.1}
        for system in gtn.SYSTEMS
        for seed, error in enumerate((0.25, 0.75)[:seeds])
    ]
    return pandas.DataFrame(rows)


def test_one_seed_has_no_deviation():
    lines = gtn.summary(table(2)).splitlines()
    assert lines[0].split() == ["string_error", "digit_error"]
    assert lines[3].startswith("trained through the graph")
    assert lines[3].split()[4:] == [*("50.00", "±", "35.36"), *("10.00", "±", "0.00")]
    assert gtn.summary(table(1)).splitlines()[3].split()[4:] == ["25.00", "10.00"]


@pytest.mark.parametrize("seeds", [1, 2])
def test_no_point_is_under_the_legend(seeds, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, *_: drawn.append(figure))
    figures.reading_errors(table(seeds), gtn.SYSTEMS, tmp_path, "title")
    (figure,) = drawn
    (panel,) = figure.axes
    figure.canvas.draw()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "string error",
        "digit error",
    ]
    assert not legend.get_window_extent().overlaps(panel.get_tightbbox())
    means = [line.get_xdata() for line in panel.get_lines() if len(line.get_xdata())]
    assert means[0].tolist() == [25.0 if seeds == 1 else 50.0] * 4
    assert panel.get_xlim()[1] > 25 * seeds
    plt.close(figure)


@pytest.mark.slow
def test_the_system_starts_from_the_isolated_recogniser(study):
    directory, _ = study
    config = gtn.check(get_config())
    experiment = gtn.Study(config, directory)
    program = gtn.Pretrained(config["system"])
    program.start = experiment.params("isolated", 0)
    state = program.initial_state(0)
    jax.tree.map(
        np.testing.assert_array_equal, state.params["recognizer"], program.start
    )


@pytest.mark.slow
def test_speed_is_measured_over_length(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LENGTHS", (2,))
    monkeypatch.setattr(reading, "DIGITS", 4)
    config = get_config().system.to_dict()
    rows = reading.measure(config, rounds=1)
    assert rows["length"].tolist() == [2]
    [row] = rows.to_dict("records")
    assert min(row["ms_per_string"], row["alignment_ms"], row["ctc_ms"]) > 0
    figures.speed(rows, tmp_path)
    assert (tmp_path / "speed.png").stat().st_size > 5000


def test_times_are_medians_per_string_without_the_first_round(monkeypatch):
    now = [0.0]

    def run(*seconds):
        left = iter(seconds)
        return lambda: now.__setitem__(0, now[0] + next(left))

    clock = types.SimpleNamespace(perf_counter=lambda: now[0])
    losses = run(9.0, 0.006, 0.004, 0.002), run(9.0, 0.002, 0.003, 0.001)
    monkeypatch.setattr(reading, "time", clock)
    monkeypatch.setattr(reading, "LENGTHS", (2,))
    monkeypatch.setattr(reading, "DIGITS", 4)
    monkeypatch.setattr(reading, "alignment_and_ctc", lambda *_: losses)
    step = run(9.0, 0.032, 0.016, 0.024)  # of two strings per device
    monkeypatch.setattr(reading, "training", lambda *_: (8, step))
    [row] = reading.measure({}, rounds=3).to_dict("records")
    devices = jax.local_device_count()
    assert row == pytest.approx(
        {
            **{"length": 2, "strings_per_second": devices * 2 / 0.024},
            **{"ms_per_string": 12 / devices, "alignment_ms": 2, "ctc_ms": 1},
        }
    )


def test_the_losses_that_the_benchmark_compares_are_equal():
    ours, theirs = (run() for run in reading.alignment_and_ctc(5, 14))
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-4)


def changed(**changes):
    config = get_config()
    with config.unlocked():
        for key, value in changes.items():
            config[key] = value
    return config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": ()}, r"config.seeds must be integers, got \(\)"),
        ({"seeds": (0, 0)}, r"config.seeds repeats a value: \(0, 0\)"),
        ({"seeds": (0, -1)}, "config.seed must not be negative, got -1"),
        ({"seed": 0}, "did you mean 'seeds'"),
        ({"system": get_config().isolated}, "config.system.loss.name"),
        ({"isolated": {"model": {"name": "lenet5"}}}, "lacks"),
    ],
)
def test_a_config_that_cannot_run_is_refused(changes, message):
    with pytest.raises(names.ConfigError, match=message):
        gtn.check(changed(**changes))


def test_a_run_that_diverges_prevents_no_other(tmp_path, monkeypatch, capsys):
    tried, written = [], []

    def fit(program, seed, place, report):
        name = place.path.name
        tried.append(name)
        if name in ("isolated-seed0", "system-seed1"):
            raise Diverged("the loss is nan")
        return {"status": "finished"}

    monkeypatch.setattr(execution, "fit", fit)
    monkeypatch.setattr(gtn.Study, "params", lambda *_: None)
    monkeypatch.setattr(gtn.Study, "write", lambda runs: written.append(runs.seeds))
    monkeypatch.setattr(gtn.launch, "check_machine", lambda: None)
    (tmp_path / "config.py").write_text(f"from {__name__} import get_config\n")
    words = [f"--config={tmp_path}/config.py", f"--workdir={tmp_path}/study"]
    assert gtn.main([*words, "--config.seeds=(0,1,2)"]) == 1
    assert tried == [
        *(f"isolated-seed{seed}" for seed in (0, 1, 2)),
        *(f"system-seed{seed}" for seed in (1, 2)),
        *(f"displacement-seed{seed}" for seed in (0, 1, 2)),
    ]
    assert written == [(2,)]
    error = capsys.readouterr().err
    for run in ("isolated, seed 0", "system, seed 1"):
        assert f"error: {run} diverged: the loss is nan\n" in error
    assert gtn.main([*words, "--config.seeds=(0,)"]) == 1
    assert written == [(2,)]
    assert gtn.main([*words, "--config.seeds=(0,1,2)", "--plot_only"]) == 1
    assert written == [(2,)] * 2
    assert len(tried) == 8


def test_figures_of_nothing_are_refused_in_one_line(tmp_path, capsys):
    assert gtn.main([f"--workdir={tmp_path}/none", "--plot_only"]) == 2
    assert "contains no finished run" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["isolated", "system", "displacement", "seeds"])
def test_a_config_that_lacks_a_key_is_refused(key):
    config = gtn_digits.get_config().to_dict()
    del config[key]
    with pytest.raises(names.ConfigError, match=f"the config lacks {key}"):
        gtn.check(config)
