"""Networks loaded from run directories reproduce the run's own numbers."""

import contextlib
import dataclasses
import functools
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.analysis import gradients, trained
from cnn_jax.names import ConfigError
from cnn_jax.training import checkpoint
from cnn_jax.training.checkpoint import CheckpointError
from cnn_jax.training.loop import fit
from cnn_jax.training.program import Program
from cnn_jax.training.run_directory import RunDirectory
from tests import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on two devices, its directory and result."""
    place = RunDirectory(tmp_path_factory.mktemp("trained") / "run")
    config = tiny.config(parallel={"devices": 2}, augment={"name": "none"})
    del config["augment"]["pad"], config["augment"]["flip"]
    return place, fit(Program(config), 3, place)


@pytest.fixture(scope="module")
def net(run):
    return trained.load(run[0].path)


def test_the_final_network_makes_the_errors_of_the_result(run, net):
    _, result = run
    apply = jax.jit(functools.partial(net.model.apply, train=False))
    for split, key in (("train", "clean_train_error"), ("test", "test_error")):
        wrong, count = 0.0, 0.0
        for batch in net.batches(split):
            outputs = apply(net.variables, batch["image"])
            wrong += float((net.program.errors(outputs, batch) * batch["mask"]).sum())
            count += float(batch["mask"].sum())
        assert wrong / count == pytest.approx(result[key])
    assert (net.family, net.depth, net.seed, net.step) == ("residual", 8, 3, 12)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("runs/preactivation-8-seed3", "preactivation"),
        ("runs/rate 0.1-8-seed3", "rate 0.1"),
        ("runs/plain-8-seed0-8-seed3", "plain-8-seed0"),
        ("runs/other-14-seed3", "residual"),  # of another depth than its name
        ("runs/first", "residual"),
        ("other-8-seed3", "residual"),
    ],
)
def test_a_net_of_a_study_is_of_the_family_that_its_run_is_named_after(
    name, family, net, tmp_path
):
    assert trained.family_and_depth(net.program, tmp_path / name) == (family, 8)


def test_the_family_is_known_at_every_step_of_a_net_of_a_study(run, net, tmp_path):
    copy = tmp_path / "runs" / "arm-8-seed3"
    shutil.copytree(run[0].path, copy)
    loaded = trained.load(copy, net.program)
    assert (loaded.family, loaded.seed) == ("arm", 3)
    assert loaded.at_initialisation().family == "arm"
    states = gradients.repeat_training(loaded, (0, 4))
    assert [state.label["family"] for state in states] == ["arm"] * 3


def test_batch_norm_groups_are_those_of_the_run(run, net):
    assert net.program.bn_images == 8  # 16 images on two devices
    assert net.program.devices.count == 1


def test_batches_stop_at_the_images_asked_for(net):
    counts = [float(batch["mask"].sum()) for batch in net.batches("train", 30)]
    assert counts == [24, 6]
    assert sum(float(b["mask"].sum()) for b in net.batches("train")) == 40


def test_a_repeated_training_goes_through_the_states_of_the_run(run, net):
    place, _ = run
    states = list(gradients.snapshots(net.program, net.seed, (0, 8, 12)))
    assert [state.step for state in states] == [0, 8, 12]
    kept, _ = checkpoint.read(
        checkpoint.steps(place.checkpoints)[0], net.program.initial_state(0)
    )
    assert int(kept.step) == 8
    for one, other in ((states[1].variables["params"], kept.params),):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4), one, other)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6),
        states[2].variables,
        net.variables,
    )


@pytest.mark.slow
def test_a_repetition_that_ends_elsewhere_is_refused(run, net, tmp_path):
    """Augmentation is drawn per device, so a single device trains a different run."""
    states = list(gradients.repeat_training(net, (0, 8)))
    assert [state.step for state in states] == [0, 8, 12]
    place = RunDirectory(tmp_path / "run")
    small = {"depth": 4, "widths": (2,), "stage_sizes": (1,)}  # compiles fast
    config = tiny.config(model=small, parallel={"devices": 2}, steps=4)
    fit(Program(config), 3, place)
    drawn = trained.load(place.path)
    states = gradients.repeat_training(drawn, (0, 2))
    assert [next(states).step, next(states).step] == [0, 2]
    message = r"residual-4 with seed 3 .* at step 4"
    with pytest.raises(ValueError, match=message) as error:
        next(states)
    assert error.type is ValueError  # a ConfigError would stop the other analyses


def test_a_damaged_checkpoint_is_passed_over_and_left_in_place(
    run, net, tmp_path, capsys
):
    place, _ = run
    copy = tmp_path / "run"
    (copy / "checkpoints").mkdir(parents=True)
    for path in (place.path / "config.json", *checkpoint.steps(place.checkpoints)):
        (copy / path.relative_to(place.path)).write_bytes(path.read_bytes())
    older, newer = checkpoint.steps(copy / "checkpoints")
    assert trained.fingerprint(copy) == trained.fingerprint(place.path)
    newer.write_bytes(newer.read_bytes()[:-5])
    assert trained.load(copy, net.program).step == 8
    assert newer.exists()
    older.unlink()
    with pytest.raises(CheckpointError, match="checksum"):
        trained.load(copy, net.program)
    newer.unlink()
    with pytest.raises(CheckpointError, match="it contains none"):
        trained.load(copy, net.program)
    assert trained.fingerprint(copy) == ""


def test_a_fingerprint_covers_step_state_and_notes(tmp_path):
    found = set()
    for name, step, state, notes in (
        *(("a", 3, 1.0, 5), ("b", 3, 1.0, 5), ("c", 4, 1.0, 5)),
        *(("d", 3, 2.0, 5), ("e", 3, 1.0, 6)),
    ):
        directory = tmp_path / name
        directory.mkdir()
        state = {"w": np.float32(state)}
        checkpoint.save(directory / "checkpoints", step, state, {"seconds": notes})
        found.add(trained.fingerprint(directory))
    assert len(found) == 4


def test_a_net_loads_without_the_log_writers_of_its_run():
    config = tiny.config(log={"writers": ("not_here.logs:Writer",)})
    program = trained.program_from(config, None, "run")
    assert program.image_shape == (6, 6, 1)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="contains no run"):
        trained.load(tmp_path)


def stored(data_dir: str, size: int = 40):
    """The images of `tiny.noise`, brightened by a number in a data file."""
    found = tiny.noise(size)
    brighter = int((pathlib.Path(data_dir) / "brighter").read_text())
    images = found.train.images // 2 + brighter
    train = dataclasses.replace(found.train, images=images)
    return dataclasses.replace(found, train=train)


def test_other_data_than_the_runs_is_refused_and_moved_data_is_found(tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    (before / "brighter").write_text("1")
    name = f"{__name__}:stored"
    config = tiny.config(steps=1, dataset={"name": name, "data_dir": f"{before}"})
    place = RunDirectory(tmp_path / "run")
    fit(Program(config), 3, place)
    before.rename(after)
    assert trained.dataset_of(place.path, after)["data_dir"] == f"{after}"
    program = trained.program_of(place.path, after)
    net = trained.load(place.path, program)
    assert net.step == 1
    assert sum(float(batch["mask"].sum()) for batch in net.batches("test")) == 10
    assert trained.data_fingerprint(place.path) == program.source.fingerprint
    (after / "brighter").write_text("2")
    changed = trained.load(place.path, trained.program_of(place.path, after))
    with pytest.raises(ConfigError, match=r"was trained on other data.*--data_dir"):
        next(iter(changed.batches("train")))
    # for runs without recorded facts the data is opened at once
    (place.path / "data.npz").write_bytes(b"damaged")
    changed = trained.program_of(place.path, after)
    with pytest.raises(ConfigError, match=r"was trained on other data.*--data_dir"):
        trained.load(place.path, changed)


def test_the_digits_of_a_reader_of_strings_may_have_moved(tmp_path):
    place = RunDirectory(tmp_path / "run")
    digits = {"name": "mnist", "data_dir": "here"}
    dataset = {"name": "digit_strings", "digits": digits, "num_lines": 5}
    with place.open_for_training({"dataset": dataset}):
        pass
    expected = {**dataset, "digits": {"name": "mnist", "data_dir": "there"}}
    assert trained.dataset_of(place.path, "there") == expected
    assert trained.dataset_of(place.path) == dataset


@contextlib.contextmanager
def no_compilation():
    """Fails if anything is compiled in the block."""
    compiled = []

    def listen(event, *_, **__):
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not compiled


def test_predictions_need_no_data_and_one_program_serves_any_number(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "brighter").write_text("1")
    name = f"{__name__}:stored"
    config = tiny.config(steps=1, dataset={"name": name, "data_dir": f"{data}"})
    place = RunDirectory(tmp_path / "run")
    fit(Program(config), 3, place)
    shutil.rmtree(data)
    net = trained.load(place.path)
    assert net.config["model"]["depth"] == 8
    assert net.class_names == ("0", "1", "2")
    images = tiny.noise(140).train.images
    shown = net.preprocess(jnp.asarray(images))
    expected = jax.jit(functools.partial(net.model.apply, train=False))(
        net.variables, shown
    )
    found = net.predict(images)
    assert found.shape == (140, 3)
    np.testing.assert_allclose(found, expected, 1e-4, 1e-5)
    with no_compilation():
        for count in (0, 1, 128):
            some = net.predict(images[:count])
            np.testing.assert_array_equal(some, found[:count])
    for wrong, got in (
        (images / 255, r"float64 \(140, 6, 6, 1\)"),
        (images[0], r"uint8 \(6, 6, 1\)"),
        (images[:, :5], r"uint8 \(140, 5, 6, 1\)"),
    ):
        with pytest.raises(ConfigError, match=rf"uint8 \(n, 6, 6, 1\).*got {got}"):
            net.predict(wrong)
    with pytest.raises(FileNotFoundError):
        next(iter(net.batches("test")))
