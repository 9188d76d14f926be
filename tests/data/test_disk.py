"""Parts of data sets on disk: decoding them, and the cache of decoded arrays."""

import itertools
import pathlib

import numpy as np
import pytest

from cnn_jax import data, names
from cnn_jax.data import disk, memory, pictures
from tests.data.conftest import encode, write_set


@pytest.fixture
def toy(tmp_path, pictures):
    """A data directory with a set of 5 + 3 images; every split is cached."""
    splits = {"train": pictures(5), "test": pictures(3, seed=1)}
    return pathlib.Path(write_set(tmp_path, "toy", splits))


def load(toy, **fields):
    return data.load("toy", data_dir=str(toy.parent.parent), **fields)


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Cache every split and count the decoded images."""
    monkeypatch.setattr(disk, "CACHE_FROM", 1)
    calls, plain = [], pictures_decode

    def counting(*arguments):
        calls.append(1)
        return plain(*arguments)

    monkeypatch.setattr(disk.pictures, "decode", counting)
    return calls


pictures_decode = pictures.decode


def test_second_load_decodes_nothing(toy, decoded):
    first = load(toy)
    assert len(decoded) == 8
    again = load(toy)
    assert len(decoded) == 8
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.train.images, first.train.images)


def test_a_class_added_to_the_training_split_renumbers_the_test_split(
    tmp_path, decoded
):
    def write(split, name):
        (tmp_path / split / name).mkdir(parents=True)
        content = encode(np.full((2, 2, 3), 9, np.uint8))
        (tmp_path / split / name / "0.png").write_bytes(content)

    for split, name in itertools.product(("train", "test"), ("bee", "cat")):
        write(split, name)
    before = data.load("folder", data_dir=str(tmp_path))
    np.testing.assert_array_equal(before.test.labels, [0, 1])
    write("train", "ant")
    after = data.load("folder", data_dir=str(tmp_path))
    assert after.class_names == ("ant", "bee", "cat")
    np.testing.assert_array_equal(after.test.labels, [1, 2])


def test_changed_source_is_decoded_again(toy, decoded, tmp_path, pictures):
    first = load(toy)
    other = {"train": pictures(5, seed=7), "test": pictures(3, seed=1)}
    other = pathlib.Path(write_set(tmp_path / "other", "toy", other))
    for file in other.iterdir():
        (toy / file.name).write_bytes(file.read_bytes())
    changed = load(toy)
    assert len(decoded) == 8 + 5  # the test split is the same
    assert changed.fingerprint != first.fingerprint
    assert len(list((toy / ".cnn_jax").iterdir())) == 2  # the old one is gone


def test_damaged_cache_is_decoded_again(toy, decoded):
    first = load(toy)
    for file in (toy / ".cnn_jax").iterdir():
        content = bytearray(file.read_bytes())
        content[300] ^= 1
        file.write_bytes(content)
    assert load(toy).fingerprint == first.fingerprint
    assert len(decoded) == 16


def test_pictures_of_several_sizes_become_squares_of_one(tmp_path, decoded):
    ramp = np.arange(8 * 10 * 3, dtype=np.uint8).reshape(8, 10, 3)
    tall = np.concatenate([ramp[:1], ramp, ramp[-1:]])[:, 1:-1]
    examples = [(encode(picture), 0) for picture in (ramp, tall, ramp[:, 1:-1])]
    toy = pathlib.Path(write_set(tmp_path, "toy", {"train": examples}))
    fields = {"validation_size": 1}
    with pytest.raises(names.ConfigError, match=r"set dataset\.size"):
        load(toy, **fields)
    whole = load(toy, size=8, **fields)
    images = np.concatenate([whole.train.images, whole.test.images])
    np.testing.assert_array_equal(images, np.tile(ramp[:, 1:-1], (3, 1, 1, 1)))
    half = load(toy, size=4, **fields)
    assert half.image_shape == (4, 4, 3)
    blocks = ramp[:, 1:-1].reshape(4, 2, 4, 2, 3).mean((1, 3))
    np.testing.assert_allclose(half.train.images[0], blocks, atol=14)
    assert half.fingerprint != whole.fingerprint
    count = len(decoded)
    for size, images in ((8, whole.train.images), (4, half.train.images)):
        again = load(toy, size=size, **fields)  # each size has a separate cache
        np.testing.assert_array_equal(again.train.images, images)
    assert len(decoded) == count
    with pytest.raises(names.ConfigError, match="size -1 is negative"):
        load(toy, size=-1, **fields)
    with pytest.raises(names.ConfigError, match="size 1000000 is more than 32767"):
        load(toy, size=10**6, **fields)


def test_set_that_does_not_fit_in_memory(toy, monkeypatch):
    monkeypatch.setattr(memory, "total", lambda: 5 * 6 * 5 * 3 - 1)
    with pytest.raises(names.ConfigError, match=r"'toy': 5 images.*`stream` section"):
        load(toy)
    monkeypatch.setattr(memory, "total", lambda: 5 * 6 * 5 * 3)
    load(toy)


def test_small_sets_are_not_cached(toy):
    load(toy)
    assert not (toy / ".cnn_jax").exists()


def test_label_outside_the_classes(tmp_path, pictures):
    examples = [*pictures(2), (pictures(1)[0][0], 7)]
    info = write_set(tmp_path, "toy", {"train": examples}, num_classes=8)
    features = pathlib.Path(info, "features.json")
    features.write_text(features.read_text().replace('"8"', '"3"'))
    with pytest.raises(
        names.ConfigError, match=r"toy-train.*, record 2: label 7 is outside 0\.\.2"
    ):
        load(pathlib.Path(info), validation_size=1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content.replace(b"IHDR", b"IHDX", 1), ", record 0 is damaged"),
        (lambda content: content[: len(content) // 2], " is damaged: "),
        (lambda content: b"", " is damaged: "),
    ],
)
def test_damaged_record_is_named(toy, damage, message):
    file = next(toy.glob("toy-train*"))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(names.ConfigError, match=f"{file.name}{message}"):
        load(toy)


def test_damage_in_the_middle_is_found(toy):
    file = next(toy.glob("toy-train*"))
    content = file.read_bytes()
    places = [i for i in range(len(content)) if content.startswith(b"IHDR", i)]
    assert len(places) == 5
    hurt = bytearray(content)
    hurt[places[3]] ^= 1
    file.write_bytes(hurt)
    with pytest.raises(names.ConfigError, match=f"{file.name}, record 3 is damaged"):
        load(toy)


def test_missing_file_is_named(toy):
    next(toy.glob("toy-test*")).unlink()
    with pytest.raises(names.ConfigError, match=r"toy-test.*No such file"):
        load(toy)


def test_part_of_a_split_counts_its_own(toy):
    held = data.open_set("toy", data_dir=str(toy.parent.parent), validation_size=2)
    assert (len(held.train), len(held.test)) == (3, 2)
    whole = disk.Part(held.train.reader, "train").fetch(range(5))
    own = [*held.train.fetch([0, 1, 2]), *held.test.fetch([0, 1])]
    assert sorted(own) == sorted(whole)
    assert held.train.fetch([2, 0]) == [own[2], own[0]]
    numbers = held.test.numbers
    assert held.test.where(1).endswith(f"record {numbers[1]}")
    assert held.train.key(False) != held.test.key(False)
