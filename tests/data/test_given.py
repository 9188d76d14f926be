"""Data sets from user-defined functions."""

from functools import partial

import numpy as np
import pytest

from cnn_jax import data, names
from cnn_jax.data import sources

refused = partial(pytest.raises, names.ConfigError)


def arrays(count=10, seed=0):
    """Uniform images whose grey level is their index, with alternating classes."""
    grey = np.arange(seed, seed + count, dtype=np.uint8)
    images = np.tile(grey[:, None, None, None], (1, 2, 2, 1))
    return images, grey % 3, ("ant", "bee", "cow")


def shapes(split, count=10):
    """A function for two splits."""
    return arrays(count) if split == "train" else arrays(4, 100)


def loose(count=10):
    """A single set of examples, without splits."""
    return arrays(count)


def test_splits_are_asked_for():
    found = data.load(f"{__name__}:shapes", count=6)
    assert (len(found.train), len(found.test)) == (6, 4)
    assert found.class_names == ("ant", "bee", "cow")
    assert (found.num_classes, found.evaluated) == (3, "test")
    np.testing.assert_array_equal(found.test.images[:, 0, 0, 0], [100, 101, 102, 103])
    assert found.train.labels.dtype == np.int32


@pytest.mark.parametrize("function", ["loose", "shapes"])
def test_validation_part_is_held_out(function):
    found = data.load(f"{__name__}:{function}", validation_size=4)
    assert found.evaluated == "validation"
    numbers = [part.images[:, 0, 0, 0].tolist() for part in (found.train, found.test)]
    assert [len(part) for part in numbers] == [6, 4]
    assert sorted(numbers[0] + numbers[1]) == list(range(10))
    again = data.load(f"{__name__}:{function}", validation_size=4)
    assert again.fingerprint == found.fingerprint


def test_one_set_needs_a_validation_part():
    with refused(match="returns a single set of 10 examples.*dataset.validation_size"):
        data.load(f"{__name__}:loose")
    with refused(match=r"validation_size 10 must be between 1 and 9"):
        data.load(f"{__name__}:loose", validation_size=10)
    with refused(match="unknown field of dataset .*'size'; choices: count"):
        data.load(f"{__name__}:loose", size=3)


def test_a_split_that_the_config_sets_is_a_single_set():
    """Its examples are not evaluated as their own test set."""
    fields = {"split": "train", "count": 10}
    with refused(match=r"single set of 10 .* or leave config.dataset.split"):
        data.load(f"{__name__}:shapes", **fields)
    found = data.load(f"{__name__}:shapes", **fields, validation_size=4)
    assert (len(found.train), len(found.test)) == (6, 4)


def own_validation(split, validation_size):
    """A function that holds out images itself."""
    return shapes(split, 10 - validation_size)


def test_a_function_may_hold_out_images_itself():
    found = data.load(f"{__name__}:own_validation", validation_size=4)
    assert found.evaluated == "test"
    assert (len(found.train), len(found.test)) == (6, 4)


def test_field_of_a_function_that_gives_a_data_set():
    with refused(match="unknown field of dataset .* 'validation_size'; choices: size"):
        data.load("tests.tiny:noise", size=10, validation_size=3)


RETURNED = {
    "two": arrays()[:2],
    "floats": (arrays()[0] / 255, *arrays()[1:]),
    "longer": (arrays()[0][1:], *arrays()[1:]),
    "word": (*arrays()[:2], "abc"),
    "number": (*arrays()[:2], 3),
    "twice": (*arrays()[:2], ("ant", "bee", "ant")),
    "few": (*arrays()[:2], ("ant", "bee")),
    "nothing": None,
    "text": "mnist",
}


def bad(kind):
    """Results that are not a data set."""
    return RETURNED[kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("two", r"must return \(images, labels, names\), got tuple of 2"),
        ("floats", r"test_given:bad', train: images must be uint8 .* got float64"),
        ("longer", "test_given:bad', train: got 9 images and 10 labels"),
        ("word", "names must be a list of class names, got 'abc'"),
        ("number", "names must be a list of class names, got 3"),
        ("twice", "names must be one per class, got ant, bee, ant"),
        ("few", r"label 2 of .* example . is outside 0\.\.1"),
        ("nothing", "must return arrays .*, got NoneType"),
        ("text", "must return arrays .*, got str"),
    ],
)
def test_what_is_no_data_set_is_refused(kind, message):
    held = {} if kind in ("nothing", "text") else {"validation_size": 2}
    section = {"name": f"{__name__}:bad", "kind": kind, **held}
    with refused(match=message) as raised:
        sources.open_source(section)
    assert "\n" not in str(raised.value)


def other_classes(split):
    """Classes that depend on the split."""
    images, labels, classes = arrays()
    return images, labels, classes if split == "train" else classes[::-1]


def test_splits_have_the_same_classes():
    with refused(match="train are ant, bee, cow, but those of test cow, bee, ant"):
        data.load(f"{__name__}:other_classes")


def no_source():
    """A function that returns no source."""
    return lambda index, count: 7


def test_function_that_makes_no_source():
    with refused(match=r"must return arrays .*, got int"):
        sources.open_source({"name": f"{__name__}:no_source"})


@pytest.mark.parametrize("size", [0.2, "10", True])
def test_a_validation_size_is_a_number_of_examples(size):
    section = {"name": f"{__name__}:loose", "validation_size": size}
    with refused(match="validation_size must be int, got"):
        data.load(**section)
