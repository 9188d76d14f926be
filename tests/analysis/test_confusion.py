"""Confusion matrices agree with the error that the run reports."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax
from cnn_jax.analysis import confusion
from cnn_jax.data.sources import InMemory
from cnn_jax.names import ConfigError
from cnn_jax.training.program import Program
from cnn_jax.training.run import train
from tests import tiny


@pytest.fixture(scope="module")
def run(reference):
    return cnn_jax.load_run(reference.place.path), reference.result


def test_a_split_has_the_error_and_loss_of_the_result(run):
    net, result = run
    for split, name, data in (
        ("train", "clean_train", tiny.noise(40).train),
        ("test", "test", tiny.noise(40).test),
    ):
        found = confusion.of_split(net, split)
        assert found.error == pytest.approx(result[f"{name}_error"])
        assert found.loss == pytest.approx(result[f"{name}_loss"], rel=1e-5)
        np.testing.assert_array_equal(
            found.matrix.sum(1), np.bincount(data.labels, minlength=3)
        )
        taken = net.predict(data.images).argmax(1)
        np.testing.assert_array_equal(
            found.matrix.sum(0), np.bincount(taken, minlength=3)
        )
        # the same images, given
        given = confusion.of_images(net, data.images, data.labels)
        np.testing.assert_array_equal(given.matrix, found.matrix)
        assert given.loss == pytest.approx(found.loss, rel=1e-5)


def test_rows_are_the_true_classes():
    found = confusion.Confusion(np.array([[3, 1, 0], [0, 0, 0], [2, 0, 2]]), 0.5)
    assert found.error == pytest.approx(3 / 8)
    np.testing.assert_array_equal(found.class_errors, [0.25, np.nan, 0.5])
    by_class = found.by_class(["ant", "bee", "cat"])
    assert by_class.to_dict("index") == {
        "ant": {"examples": 4, "error": 0.25},
        "cat": {"examples": 4, "error": 0.5},
    }
    confusions = found.confusions(["crane", "bee", "crane"])  # two of one name
    assert confusions.to_numpy().tolist() == [
        ["crane", "crane", 2],
        ["crane", "bee", 1],
    ]
    assert list(confusions.columns) == ["true", "predicted", "times"]


def test_labels_that_fit_nothing_are_refused(run):
    images = tiny.noise(40).test.images
    with pytest.raises(ConfigError, match=r"classes 0\.\.2"):
        confusion.of_images(run[0], images[:2], [0, 3])
    with pytest.raises(ConfigError, match="2 images and 1 labels"):
        confusion.of_images(run[0], images[:2], [0])


class TwoViews(InMemory):
    """Each image and its negative, like the ten views of ten-crop evaluation."""

    def take(self, resident, item):
        batch = super().take(resident, item)
        image = batch["image"]
        both = jnp.stack([image, 255 - image], 1)
        return {**batch, "image": both.reshape(-1, *image.shape[1:])}


def two_views(index, count):
    return TwoViews(tiny.noise(40), index, count)


def open_two_views():
    return two_views


def test_an_example_seen_in_several_views_counts_once(tmp_path):
    dataset = {"name": f"{__name__}:open_two_views"}
    place = tmp_path / "run"
    config = {**tiny.config(), "dataset": {"name": "tests.tiny:noise", "size": 40}}
    train({**config, "steps": 1}, place)
    once = cnn_jax.load_run(place)
    changed = {**once.config, "dataset": dataset}
    program = Program(changed)
    views = dataclasses.replace(once, program=program)
    found = confusion.of_split(views, "test")
    state = program.initial_state(0).replace(**once.variables)
    expected = program.evaluate(program.place(state), "test")
    assert found.matrix.sum() == 10
    assert found.error == pytest.approx(expected["error"])
    assert found.loss == pytest.approx(expected["loss"], rel=1e-5)


class TenViews(InMemory):
    """Each image in the middle of ten views."""

    def take(self, resident, item):
        batch = super().take(resident, item)
        views = [batch["image"] + view for view in range(-4, 6)]
        image = jnp.stack(views, 1).reshape(-1, *batch["image"].shape[1:])
        return {**batch, "image": image}


def ten_views(index, count):
    return TenViews(tiny.noise(40), index, count)


def open_ten_views():
    return ten_views


def test_analyses_see_the_central_crop_of_ten(run):
    once, _ = run
    dataset = {"name": f"{__name__}:open_ten_views"}
    program = Program({**once.config, "dataset": dataset})
    views = dataclasses.replace(once, program=program)
    for split in ("train", "test"):
        for found, expected in zip(
            views.batches(split), once.batches(split), strict=True
        ):
            for key in ("image", "label", "mask"):
                np.testing.assert_array_equal(found[key], expected[key])
