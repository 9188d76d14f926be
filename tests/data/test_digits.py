"""The embedded digits: pixels, split, and two processes preparing at once."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from cnn_jax import data, names
from cnn_jax.data import digits


def test_pixels_are_those_of_scikit_learn(digits_dir):
    dataset = data.load("digits", data_dir=digits_dir)
    assert dataset.num_classes == 10
    assert dataset.image_shape == (8, 8, 1)
    assert (len(dataset.train), len(dataset.test)) == (1500, 297)
    found = load_digits()
    test = digits.test_part(found.target)
    for arrays, part in ((dataset.train, ~test), (dataset.test, test)):
        counts = np.round(arrays.images[..., 0] * (16 / 255))
        np.testing.assert_array_equal(counts, found.images[part])
        np.testing.assert_array_equal(arrays.labels, found.target[part])


def test_split_is_stratified_and_fixed(digits_dir):
    dataset = data.load("digits", data_dir=digits_dir)
    train, test = (np.bincount(part.labels) for part in (dataset.train, dataset.test))
    share = (train + test) * 297 / 1797
    assert (abs(test - share) <= 1).all()
    # Results name their data by this value: a change of split or pixels shows.
    assert dataset.fingerprint == (
        "8cb2ada5e9c839dd8d23fdbf36790a244fc5d9047cd1078d4fc16365ed759a1e"
    )


def test_is_a_genuine_tfds_data_set(digits_dir):
    builder = tfds.builder_from_directory(f"{digits_dir}/digits/1.0.0")
    assert builder.info.splits["train"].num_examples == 1500
    assert builder.info.supervised_keys == ("image", "label")
    record = builder.as_data_source(
        "test", decoders={"image": tfds.decode.SkipDecoding()}
    )[0]
    assert record["image"].startswith(b"\x89PNG")


@pytest.mark.slow
def test_two_processes_prepare_at_once(tmp_path):
    code = textwrap.dedent(f"""
        import sys, time
        from cnn_jax.data import digits
        builder = digits.Digits._generate_examples
        def slow(self, *args):  # both are at work before either finishes
            time.sleep(0.5)
            yield from builder(self, *args)
        digits.Digits._generate_examples = slow
        digits.prepare({str(tmp_path)!r})
        """)
    running = [
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    assert os.listdir(tmp_path / "digits") == ["1.0.0"]  # nothing half-written
    assert len(data.load("digits", data_dir=str(tmp_path)).train) == 1500


def test_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(names.ConfigError, match=r"cannot be prepared under .*file"):
        data.load("digits", data_dir=str(tmp_path / "file"))


def test_read_only_directory_is_left_alone(tmp_path):
    """Even as root, which the system allows to write."""
    (tmp_path / "data").mkdir(mode=0o555)
    with pytest.raises(names.ConfigError, match="it is read-only; choose another"):
        data.load("digits", data_dir=str(tmp_path / "data"))
    assert os.listdir(tmp_path / "data") == []
    digits.prepare(str(tmp_path / "new"))
    os.chmod(tmp_path / "new", 0o555)  # existing data can be read
    assert len(data.load("digits", data_dir=str(tmp_path / "new")).train) == 1500
    os.chmod(tmp_path / "new", 0o755)


def test_default_directory_honours_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    data.load("digits")
    assert (tmp_path / "digits" / "1.0.0" / "dataset_info.json").exists()
