"""Embedded digits: scikit-learn's 1,797 handwritten digits as a TFDS dataset.

The pictures are the test part of the UCI "Optical recognition of handwritten
digits" set (Alpaydin and Kaynak 1998): 8x8 pixels, each the count 0..16 of ink
in a 4x4 cell of a scanned bitmap, here scaled to 0..255 (rounded, so that
``round(pixel * 16 / 255)`` recovers the count). The split is stratified, with a fixed
seed: 1,500 training and 297 test examples, where each class has its share to within
one. The same people wrote both parts.

The set is prepared on first use, without network and without TensorFlow, under the
TFDS data directory as array_record, like any other dataset.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from cnn_jax import names
from cnn_jax.data import prepared
from cnn_jax.data.dataset import random_order
from cnn_jax.data.disk import OnDisk

TEST_SIZE = 297
SPLIT_SEED = 0


class Digits(tfds.core.GeneratorBasedBuilder):
    """Builder of the embedded digits."""

    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded. Without this, TFDS would look for a list of checksums
    # beside this file, through a package (importlib_resources) it does not require.
    url_infos: ClassVar[dict] = {}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            homepage="https://archive.ics.uci.edu/dataset/80",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        # scikit-learn takes a second to import and is not needed for reading.
        from sklearn.datasets import load_digits

        found = load_digits()
        test = test_part(found.target)
        return {
            "train": self._generate_examples(found, np.flatnonzero(~test)),
            "test": self._generate_examples(found, np.flatnonzero(test)),
        }

    def _generate_examples(self, found, indices) -> Iterator:
        for index in indices:
            pixels = np.round(found.images[index] * (255 / 16)).astype(np.uint8)
            encoded = io.BytesIO()
            Image.fromarray(pixels).save(encoded, "png")
            label = int(found.target[index])
            yield int(index), {"image": encoded.getvalue(), "label": label}


def test_part(labels: np.ndarray) -> np.ndarray:
    """Select the test examples: a stratified draw with a fixed seed.

    Each class is shuffled and spread evenly over (0, 1); the ``TEST_SIZE`` examples
    with the lowest positions form the test set.

    Args:
      labels: class of every example, (n,).

    Returns:
      Mask (n,), true for ``TEST_SIZE`` examples.
    """
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        order = random_order(len(members), SPLIT_SEED, int(label))
        place[members[order]] = (np.arange(len(members)) + 0.5) / len(members)
    chosen = np.zeros(len(labels), bool)
    chosen[np.argsort(place, kind="stable")[:TEST_SIZE]] = True
    return chosen


def prepare(data_dir: str = "") -> str:
    """Write the dataset unless it exists; safe in several processes at once.

    TFDS writes to a temporary directory and renames it when it is complete, so one of
    several processes wins and the others use its result.

    Args:
      data_dir: as in `prepared.directory`.

    Returns:
      The directory of the prepared dataset.

    Raises:
      ConfigError: the directory cannot be written.
    """
    root = prepared.directory(data_dir)
    builder = Digits(data_dir=root, file_format="array_record")
    complete = os.path.join(builder.data_dir, "dataset_info.json")
    if os.path.exists(complete):
        return str(builder.data_dir)
    prepared.check_writable("digits", data_dir)
    quiet = io.StringIO()  # half a second of work needs no progress bars
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            builder.download_and_prepare()
    except OSError as error:
        if not os.path.exists(complete):
            raise names.ConfigError(
                f"dataset 'digits' cannot be prepared under {root!r}: {error}; "
                "choose another directory with dataset.data_dir or TFDS_DATA_DIR"
            ) from error
    return str(builder.data_dir)


def open_set(
    data_dir: str = "",
    train_split: str = "train",
    test_split: str = "test",
    validation_size: int = 0,
) -> OnDisk:
    """The embedded digits, prepared on first use: 8x8x1 images, 10 classes.

    Args:
      data_dir: as in `prepared.open_set`.
      train_split: as in `prepared.open_set`.
      test_split: as in `prepared.open_set`.
      validation_size: as in `prepared.open_set`.

    Returns:
      The dataset, not yet read.

    Raises:
      ConfigError: as `prepare` and `prepared.open_set`.
    """
    prepare(data_dir)
    return prepared.open_set(
        "digits", data_dir, train_split, test_split, validation_size
    )
