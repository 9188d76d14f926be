"""Image-classification data in memory: uint8 images and int32 labels."""

import dataclasses
import functools
import hashlib
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, Int32, UInt8

from cnn_jax import names

# Fixed, so that a validation part is the same in every run of every study.
VALIDATION_SEED = 20151210  # the day arXiv:1512.03385 appeared


@dataclasses.dataclass(frozen=True)
class Arrays:
    """Images with their labels.

    Attributes:
      images: pixels 0..255, (n, height, width, channels).
      labels: classes from 0, (n,).
    """

    images: UInt8[np.ndarray, "n height width channels"]
    labels: Int32[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, numbers: Int[np.ndarray, " m"]) -> "Arrays":
        """Some of the examples."""
        return Arrays(self.images[numbers], self.labels[numbers])

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of all pixels and labels, in hexadecimal."""
        digest = hashlib.sha256()
        for array in (self.images, self.labels):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A training set and the set that a run is evaluated on.

    Attributes:
      name: as in the config.
      num_classes: labels are 0 ... num_classes - 1.
      train: what is trained on.
      test: what is evaluated: the test set, or the validation part.
      evaluated: which of the two ``test`` is.
      path: directory of the set, beside which results are cached; '' for none.

    Raises:
      ConfigError: on construction, an empty set, images of two shapes, or a
        label outside the classes.
    """

    name: str
    num_classes: int
    train: Arrays
    test: Arrays
    evaluated: Literal["test", "validation"] = "test"
    path: str = ""

    def __post_init__(self):
        for split, arrays in (("train", self.train), (self.evaluated, self.test)):
            if not len(arrays):
                raise names.ConfigError(f"dataset {self.name!r}: {split} is empty")
            outside = (arrays.labels < 0) | (arrays.labels >= self.num_classes)
            if outside.any():
                index = int(outside.argmax())
                raise names.ConfigError(
                    f"dataset {self.name!r}: label {arrays.labels[index]} of "
                    f"{split} example {index} is outside 0..{self.num_classes - 1}"
                )
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise names.ConfigError(
                f"dataset {self.name!r}: images of train are "
                f"{self.train.images.shape[1:]}, of {self.evaluated} "
                f"{self.test.images.shape[1:]}"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the data of both sets, in hexadecimal."""
        both = self.train.digest + self.test.digest
        return hashlib.sha256(both.encode()).hexdigest()


def held_out(count: int, size: int) -> Bool[np.ndarray, " count"]:
    """Which training examples make the validation part.

    He et al. (2015), section 4.2, choose the schedule on such a part (45k/5k).
    The examples are drawn at random with a fixed seed, so they depend on
    ``count`` and ``size`` only.

    Args:
      count: examples of the training set.
      size: examples held out, 0 < size < count.

    Returns:
      Mask (count,), true for ``size`` examples.

    Raises:
      ConfigError: size leaves one of the parts empty.
    """
    if not 0 < size < count:
        raise names.ConfigError(
            f"validation_size {size} must be between 1 and {count - 1}: "
            f"the training split has {count} examples"
        )
    chosen = np.zeros(count, bool)
    chosen[random_order(count, VALIDATION_SEED)[:size]] = True
    return chosen


def random_order(size: int, *seed: int) -> np.ndarray:
    """A permutation of 0 ... size - 1 that depends on ``seed`` alone.

    It sorts the raw words of NumPy's Philox, a stream that NumPy promises to
    keep in all versions (unlike that of ``Generator.permutation``).
    """
    words = np.random.Philox(np.random.SeedSequence(seed)).random_raw(size)
    return np.argsort(words, kind="stable")
