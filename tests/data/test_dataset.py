"""Requirements on the arrays of a data set."""

from functools import partial

import jaxtyping
import numpy as np
import pytest

from cnn_jax import names
from cnn_jax.data import Arrays, Dataset

refused = partial(pytest.raises, names.ConfigError)

IMAGES = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4, 1)
LABELS = np.array([0, 1], np.int32)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, list])
def test_labels_of_any_integers_are_taken(kind):
    labels = [0, 1] if kind is list else LABELS.astype(kind)
    arrays = Arrays(IMAGES, labels)
    assert arrays.labels.dtype == np.int32
    assert arrays.digest == Arrays(IMAGES, LABELS).digest


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            IMAGES / 255,
            LABELS,
            r"uint8.*0\.\.255, got float64.*to 0\.12.*255 \*",
        ),
        (IMAGES * 1.0, LABELS, r"got float64.*from 0 to 31; images\.astype\(np\.uint8"),
        (IMAGES / 32 - 0.5, LABELS, r"got float64 .* from -0\.5 to 0\.46875$"),
        (IMAGES.astype(int), LABELS, r"got int64.*to 31; images\.astype\(np\.uint8\)"),
        (IMAGES > 9, LABELS, "must be uint8.*got bool"),
        (IMAGES.astype(str), LABELS, "must be uint8.*got <U"),
        ([IMAGES[0], IMAGES[1, 1:]], LABELS, "images must be a NumPy array, got list"),
        (
            IMAGES[..., 0],
            LABELS,
            r"1 channel if .* grey, got uint8 \(2, 4, 4\)",
        ),
        (IMAGES[:, :0], LABELS, r"got uint8 \(2, 0, 4, 1\)"),
        (None, LABELS, "must be uint8.*got object"),
        (IMAGES, np.eye(2), r"got float64 \(2, 2\); labels\.argmax"),
        (
            IMAGES,
            LABELS[:, None],
            r"one integer .*, from 0, got int32 \(2, 1\)",
        ),
        (IMAGES, LABELS * 1.0, r"one integer per example, from 0, got float64 \(2,\)"),
        (IMAGES, ["cat", "dog"], r"got <U3 \(2,\); np\.unique"),
        (IMAGES, [[0], [1, 2]], "labels must be a NumPy array, got list: "),
        (IMAGES, [0, 2**31], "class indices, got 0 to 2147483648"),
        (IMAGES, [0, -(2**31) - 1], "class indices, got -2147483649 to 0"),
        (IMAGES, [0, 1, 1], "2 images and 3 labels"),
    ],
)
def test_arrays_are_checked(images, labels, message):
    with refused(match=message) as raised:
        Arrays(images, labels)
    assert "\n" not in str(raised.value)


GOOD = Arrays(IMAGES, LABELS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((1, GOOD, GOOD), r"'x': label 1 of train example 1 is outside 0\.\.0"),
        ((2, GOOD, Arrays(IMAGES, [0, -1])), r"label -1 of test example 1 is outside"),
        (
            (2, GOOD, Arrays(IMAGES[:, 1:], LABELS)),
            r"train images have shape \(4, 4, 1\), but test images \(3, 4, 1\)",
        ),
        ((2, GOOD.part(LABELS[:0]), GOOD), "'x': train is empty"),
        ((2, (IMAGES, LABELS), GOOD), r"train must be Arrays\(.*\), got tuple"),
        ((2, GOOD, IMAGES), r"test must be Arrays\(.*\), got ndarray"),
        (
            (2, Arrays(IMAGES // 31, LABELS), GOOD),
            r"pixels of train are all 0 or 1; .* over 0\.\.255",
        ),
        ((2, GOOD, Arrays(IMAGES * 0, LABELS)), "pixels of test are all 0 or 1"),
        (("2", GOOD, GOOD), "num_classes must be int, got '2'"),
        ((2, GOOD, GOOD, "val"), "evaluated must be one of 'test', 'validation'"),
        ((2, GOOD, GOOD, "test", "", ("cat",)), "2 classes and 1 names"),
        ((-1, GOOD, GOOD), "num_classes -1 is not positive"),
    ],
)
def test_data_sets_are_checked(fields, message, monkeypatch):
    # the tests' type checker would fail first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with refused(match=message):
        Dataset("x", *fields)


def test_number_of_classes_counted_by_numpy(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    assert type(Dataset("x", LABELS.max() + 1, GOOD, GOOD).num_classes) is int
