"""Class folders of images, and the errors for invalid ones."""

import os

import numpy as np
import pytest

from cnn_jax import data, names
from tests.data.conftest import encode


@pytest.fixture
def place(tmp_path):
    """Two classes, each with three training images and one test image."""
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


def write(path, content=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["Thumbs.db", "desktop.ini", ".DS_Store", "@eaDir/x"])
@pytest.mark.parametrize("where", ["", "train", "train/ant", "test/bee"])
def test_what_systems_leave_is_not_looked_at(place, where, name):
    before = load(place).fingerprint
    write(place / where / name)
    assert load(place).fingerprint == before


@pytest.mark.parametrize("where", ["", "train", "test"])
def test_files_beside_folders_are_not_looked_at(place, where):
    before = load(place).fingerprint
    for name in ("LICENSE", "README.md", "classes.txt"):
        write(place / where / name)
    assert load(place).fingerprint == before


def test_folders_of_a_class(place):
    """With a list next to them, as in Tiny ImageNet."""
    before = load(place)
    for name in ("ant", "bee"):
        inside = place / "train" / name / "images"
        inside.mkdir()
        for picture in (place / "train" / name).glob("*.png"):
            picture.rename(inside / picture.name)
        write(place / "train" / name / f"{name}_boxes.txt")
    assert load(place).fingerprint == before.fingerprint
    (inside / "again").symlink_to(place / "train")
    with pytest.raises(names.ConfigError, match=r"again.* links to a parent folder"):
        load(place)


def test_pictures_of_all_formats(place):
    pixels = np.full((4, 5, 3), 200, np.uint8)
    for form in ("WEBP", "bmp", "gif", "TIFF", "tif", "ppm"):
        content = encode(pixels, "tiff" if form == "tif" else form)
        write(place / "train" / "cow" / f"x.{form}", content)
    dataset = load(place)
    assert dataset.class_names == ("ant", "bee", "cow")
    cows = dataset.train.images[dataset.train.labels == 2]
    assert len(cows) == 6
    assert abs(cows.astype(int) - 200).max() <= 1


@pytest.mark.parametrize("left", ["folder", "nothing"])
def test_class_without_test_pictures(place, left, caplog):
    (place / "test" / "ant" / "0.png").unlink()
    if left == "nothing":
        (place / "test" / "ant").rmdir()
    dataset = load(place)
    assert dataset.num_classes == 2
    np.testing.assert_array_equal(dataset.test.labels, [1])
    assert "test has no images of ant" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: (p / "train" / "cat").mkdir(), "class folder .*cat' contains no im"),
        (
            lambda p: write(p / "train" / "bee" / "x.txt"),
            "x.txt' is not an image.*move",
        ),
        (lambda p: write(p / "train" / "bee" / "x.heic"), "x.heic' is not an image"),
        (lambda p: write(p / "train" / "x.png"), "one folder of images.*x.png"),
        (lambda p: (p / "test" / "cat").mkdir(), "training split lacks: cat;"),
        (lambda p: (p / "test").rename(p / "val"), "'test'; choices: train, val"),
        (
            lambda p: (p / "train" / "bee" / "0.png").write_bytes(b"\x89PNG"),
            "bee/0.png is not a readable image: cannot identify",
        ),
    ],
)
def test_refused(place, change, message):
    change(place)
    with pytest.raises(names.ConfigError, match=message):
        load(place)


def test_no_such_folder(tmp_path):
    with pytest.raises(names.ConfigError, match=r"folder '.*absent' does not exist"):
        load(tmp_path / "absent")
    with pytest.raises(names.ConfigError, match="needs data_dir"):
        load("")


def test_a_class_that_links_to_nothing_is_not_dropped(place):
    (place / "train" / "owl").symlink_to(place / "unmounted" / "owl")
    with pytest.raises(names.ConfigError, match="owl' links to nothing"):
        load(place)


def test_a_class_needs_a_name_that_can_be_written(place):
    os.mkdir(os.fsencode(place / "train") + b"/b\xff")
    with pytest.raises(names.ConfigError, match="name is not UTF-8"):
        load(place)
