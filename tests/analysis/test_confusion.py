"""What is taken for what: counted as the run counts its errors."""

import numpy as np
import pytest

import cnn_jax
from cnn_jax.analysis import confusion
from cnn_jax.names import ConfigError
from cnn_jax.training.run import train
from tests import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("confusion") / "run"
    result = train(tiny.config(), place)
    return cnn_jax.load_run(place), result


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


def test_labels_that_fit_nothing_are_refused(run):
    images = tiny.noise(40).test.images
    with pytest.raises(ConfigError, match=r"classes 0\.\.2"):
        confusion.of_images(run[0], images[:2], [0, 3])
    with pytest.raises(ConfigError, match="2 images with 1 labels"):
        confusion.of_images(run[0], images[:2], [0])
