"""Prepared TFDS directories in memory, and the errors for invalid ones."""

import functools
import json
import operator
import os
import pathlib
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cnn_jax import data, names
from cnn_jax.data import Arrays, Dataset
from tests.data.conftest import encode, write_set

refused = partial(pytest.raises, names.ConfigError)


def test_reads_pixels_labels_and_the_newest_version(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (7, 6, 5, 3)).astype(np.uint8)
    examples = [(encode(image), index % 3) for index, image in enumerate(images)]
    for version, count in (("9.0.0", 3), ("10.0.0", 4)):
        splits = {"train": examples[:count], "test": examples[count:]}
        write_set(tmp_path, "toy", splits, version=version)
    dataset = data.load("toy", data_dir=str(tmp_path))
    np.testing.assert_array_equal(dataset.train.images, images[:4])
    np.testing.assert_array_equal(dataset.test.images, images[4:])
    np.testing.assert_array_equal(dataset.train.labels, [0, 1, 2, 0])
    assert dataset.num_classes == 3
    older = data.load("toy/9.0.0", data_dir=str(tmp_path))
    np.testing.assert_array_equal(older.train.images, images[:3])
    sliced = data.load("toy", data_dir=str(tmp_path), train_split="train[1:3]")
    np.testing.assert_array_equal(sliced.train.images, images[1:3])
    assert sliced.fingerprint != dataset.fingerprint


def test_grey_pictures_have_one_channel(tmp_path, pictures):
    examples = pictures(4, shape=(6, 6, 1))
    write_set(tmp_path, "grey", {"train": examples, "test": examples}, (6, 6, 1))
    assert data.load("grey", data_dir=str(tmp_path)).image_shape == (6, 6, 1)


def test_validation_part_replaces_the_test_set(digits_dir):
    whole = data.load("digits", data_dir=digits_dir)
    # An unknown test split shows that the test set is not touched.
    held = data.load(
        "digits", data_dir=digits_dir, validation_size=200, test_split="absent"
    )
    assert held.evaluated == "validation"
    assert (len(held.train), len(held.test)) == (1300, 200)
    both = np.concatenate([held.train.images, held.test.images])
    order = np.lexsort(both.reshape(1500, -1).T)
    all_of_it = whole.train.images[np.lexsort(whole.train.images.reshape(1500, -1).T)]
    np.testing.assert_array_equal(both[order], all_of_it)
    again = data.load("digits", data_dir=digits_dir, validation_size=200)
    assert again.fingerprint == held.fingerprint


@pytest.mark.parametrize("size", [-1, 1500])
def test_validation_part_must_leave_something(digits_dir, size):
    with refused(match=f"validation_size {size} must be between 1 and 1499"):
        data.load("digits", data_dir=digits_dir, validation_size=size)


def test_reading_never_imports_tensorflow(digits_dir, tmp_path):
    marker = tmp_path / "imported"
    package = tmp_path / "tensorflow"
    package.mkdir()
    (package / "__init__.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    code = f"from cnn_jax import data; data.load('digits', data_dir={digits_dir!r})"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert not marker.exists()
    assert done.stdout + done.stderr == ""  # and no warning about OpenCV


def plugin(rows: int) -> Dataset:
    """A data set from outside the package."""
    arrays = Arrays(np.full((rows, 2, 2, 1), 9, np.uint8), np.zeros(rows, np.int32))
    return Dataset("mine", 2, arrays, arrays)


def test_plugin_is_named_by_module_and_function():
    dataset = data.load(f"{__name__}:plugin", rows=5)
    assert len(dataset.train) == 5
    with refused(match="rows must be int, got 'x'"):
        data.load(f"{__name__}:plugin", rows="x")


def test_unknown_name_lists_what_is_there(tmp_path, pictures):
    write_set(tmp_path, "toy", {"train": pictures(1)})
    command = f"experiments.prepare mnist --data_dir={tmp_path}`"
    with refused(
        match=rf"unknown dataset 'mnist'; choices: digits.*\(toy\).*{command}"
    ):
        data.load("mnist", data_dir=str(tmp_path))
    with refused(match="unknown field of dataset 'digits' 'split'"):
        data.load("digits", split="train")


def test_missing_split_lists_the_splits(tmp_path, pictures):
    write_set(tmp_path, "toy", {"train": pictures(1)})
    with refused(match="unknown split of dataset 'toy' 'test'.*choices: train"):
        data.load("toy", data_dir=str(tmp_path))


def test_directory_of_something_else(tmp_path, pictures):
    place = {"data_dir": str(tmp_path)}
    (tmp_path / "notes" / "1.0.0").mkdir(parents=True)
    with refused(match=r"not a prepared dataset: it has no dataset_info.json"):
        data.load("notes", **place)
    features = {"text": tfds.features.Text(), "n": tfds.features.Scalar(np.int64)}
    write_set(tmp_path, "texts", {"train": [("a", 1)]}, features=features)
    with refused(match=r"not an image classification.*n \(Scalar\), text \(Text\)"):
        data.load("texts", **place)
    folder = write_set(tmp_path, "toy", {"train": pictures(1)})
    info = pathlib.Path(folder, "dataset_info.json")
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with refused(
        match=rf"tfrecord files.*experiments.prepare toy --data_dir={tmp_path}`"
    ):
        data.load("toy", **place)
    pathlib.Path(folder, "features.json").write_text("{")
    with refused(match="toy.*cannot be opened"):
        data.load("toy", **place)


def test_images_of_several_sizes(tmp_path, pictures):
    examples = pictures(2) + pictures(1, shape=(6, 7, 3))
    write_set(tmp_path, "toy", {"train": examples, "test": examples})
    with refused(
        match=r"toy-train.*, record 2 has shape \(6, 7, 3\), but others \(6, 5, 3\)"
    ):
        data.load("toy", data_dir=str(tmp_path))


def test_images_of_another_size_than_the_set_says(tmp_path, pictures):
    splits = {"train": pictures(2), "test": pictures(1)}
    info = pathlib.Path(write_set(tmp_path, "toy", splits, (6, 5, 3)))
    assert data.load("toy", data_dir=str(tmp_path)).image_shape == (6, 5, 3)
    features = info / "features.json"
    text = features.read_text()
    features.write_text(text.replace('"6"', '"8"'))
    assert features.read_text() != text
    with refused(match=r"record 0 has \(6, 5\) .* declares \(8, 5\)"):
        data.load("toy", data_dir=str(tmp_path))


def test_picture_that_cannot_be_decoded(tmp_path, pictures):
    whole = pictures(2)
    cut = [(whole[0][0][:-30], 0)]
    write_set(tmp_path, "toy", {"train": whole + cut, "test": whole})
    with refused(match="toy-train.*, record 2 is not a readable image"):
        data.load("toy", data_dir=str(tmp_path))


@pytest.fixture
def toy(tmp_path, pictures):
    """The directory of a set of 6 + 3 images."""
    splits = {"train": pictures(6), "test": pictures(3, seed=1)}
    return pathlib.Path(write_set(tmp_path, "toy", splits))


def try_to_read(toy) -> str:
    """Read everything that a run reads; return the error message or 'read'."""
    try:
        data.load("toy", data_dir=str(toy.parent.parent))
        data.open_set("toy", data_dir=str(toy.parent.parent)).train.key(True)
    except names.ConfigError as error:
        return str(error)
    return "read"


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"{}", b"null", b"[" * 100_000, b"\xff\xfe", b'{"name": 1}']
)
@pytest.mark.parametrize("shard", ["there", "missing"])
def test_damaged_description_is_a_line(toy, file, content, shard):
    if shard == "missing":
        next(toy.glob("toy-train*")).unlink()
    (toy / file).write_bytes(content)
    said = try_to_read(toy)
    assert len(said.splitlines()) == 1
    assert str(toy) in said


def places(tree, above=()):
    """The paths of all values in a JSON document."""
    yield above
    if isinstance(tree, list):
        tree = dict(enumerate(tree))
    for key, value in tree.items() if isinstance(tree, dict) else ():
        yield from places(value, (*above, key))


@pytest.mark.slow
@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
def test_any_change_of_a_description_is_noticed(toy, file):
    """Or the damage has no effect: the data and classes are the same."""
    text = (toy / file).read_text()
    other = (None, -1, 3.5, "x", str(10**20), "1000000000", [], {})
    said = []
    for place in list(places(json.loads(text)))[1:]:
        for value in other:
            tree = json.loads(text)
            inside = functools.reduce(operator.getitem, place[:-1], tree)
            inside[place[-1]] = value
            (toy / file).write_text(json.dumps(tree))
            said.append(try_to_read(toy))
            if said[-1] == "read":
                found = data.load("toy", data_dir=str(toy.parent.parent))
                assert (len(found.train), len(found.test)) == (6, 3)
                assert found.num_classes == 3
    assert all(len(line.splitlines()) == 1 for line in said)
    assert said.count("read") < len(said) / 4


@pytest.mark.parametrize("written", [2, 5])
def test_more_or_fewer_records_than_the_set_says(toy, written):
    info = toy / "dataset_info.json"
    text = info.read_text()
    info.write_text(text.replace('"6"', f'"{written}"'))
    assert info.read_text() != text
    said = f"toy-train.* has 6 records, but dataset_info.json declares {written}"
    with refused(match=said):
        data.load("toy", data_dir=str(toy.parent.parent))


def test_checksum_of_a_file_that_is_gone(toy):
    part = data.open_set("toy", data_dir=str(toy.parent.parent)).train
    next(toy.glob("toy-train*")).unlink()
    with refused(match=r"toy-train.* cannot be read: No such file"):
        part.key(remember=False)


def test_names_of_the_classes(tmp_path, pictures):
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(names=["ant", "bee", "cow"]),
    }
    splits = {"train": pictures(3), "test": pictures(3)}
    info = pathlib.Path(write_set(tmp_path, "toy", splits, features=features))
    found = data.load("toy", data_dir=str(tmp_path))
    assert found.class_names == ("ant", "bee", "cow")
    (info / "label.labels.txt").write_text("ant\nbee")
    with refused(match="has 3 classes, but 2 names"):
        data.load("toy", data_dir=str(tmp_path))
