"""Class folders of pictures, and what is refused there."""

import numpy as np
import pytest

from cnn_jax import data, names
from tests.data.conftest import encode


@pytest.fixture
def place(tmp_path):
    """Two classes, three pictures each to train and one to test."""
    for split, count in (("train", 3), ("test", 1)):
        for label, name in enumerate(("ant", "bee")):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.full((4, 5, 3), 100 * label + number, np.uint8)
                (folder / f"{number}.png").write_bytes(encode(pixels))
    return tmp_path


def load(place, **fields):
    return data.load("folder", data_dir=str(place), **fields)


def test_pictures_and_classes_in_the_order_of_names(place):
    (place / "train" / "ant" / ".hidden").write_text("not looked at")
    dataset = load(place)
    assert dataset.num_classes == 2
    np.testing.assert_array_equal(dataset.train.labels, [0, 0, 0, 1, 1, 1])
    first = dataset.train.images[:, 0, 0, 0]
    np.testing.assert_array_equal(first, [0, 1, 2, 100, 101, 102])
    assert load(place, channels=1).image_shape == (4, 5, 1)


def test_class_folders_without_splits(place):
    dataset = load(place / "train", train_split="", validation_size=2)
    assert (len(dataset.train), len(dataset.test)) == (4, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: (p / "train" / "cat").mkdir(), "class folder .*cat' is empty"),
        (lambda p: (p / "train" / "bee" / "x.txt").write_text(""), "x.txt' is no pict"),
        (lambda p: (p / "train" / "x.png").write_text(""), "class folders only.*x.png"),
        (lambda p: (p / "test" / "cat").mkdir(), "differ in their classes: cat"),
        (lambda p: (p / "test").rename(p / "val"), "'test'; choices: train, val"),
        (
            lambda p: (p / "train" / "bee" / "0.png").write_bytes(b"\x89PNG"),
            "bee/0.png is no picture: cannot identify",
        ),
    ],
)
def test_refused(place, change, message):
    change(place)
    with pytest.raises(names.ConfigError, match=message):
        load(place)


def test_no_such_folder(tmp_path):
    with pytest.raises(names.ConfigError, match=r"no folder '.*absent'"):
        load(tmp_path / "absent")
    with pytest.raises(names.ConfigError, match="needs data_dir"):
        load("")
