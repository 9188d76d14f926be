"""Image-classification data in memory: uint8 images and int32 labels."""

import dataclasses
import functools
import hashlib
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int

from cnn_jax import names

# Fixed, so that every run of every study has the same validation part.
VALIDATION_SEED = 20151210  # the day arXiv:1512.03385 appeared


@dataclasses.dataclass(frozen=True)
class Arrays:
    """Images with their labels.

    Attributes:
      images: pixels 0..255, uint8 (n, height, width, channels).
      labels: classes from 0, (n,); integers of any width, kept as int32.

    Raises:
      ConfigError: on construction, images or labels of the wrong type, shape or
        number.
    """

    # Anything that NumPy converts; after construction, arrays as documented above.
    images: Any
    labels: Any

    def __post_init__(self):
        images, labels = _array("images", self.images), _array("labels", self.labels)
        found = f"{images.dtype} {images.shape}"
        if images.dtype != np.uint8:
            raise names.ConfigError(
                f"images must be uint8 with pixels 0..255, got {found}{_range(images)}"
            )
        if images.ndim != 4 or not all(images.shape[1:]):
            raise names.ConfigError(
                "images must have shape (examples, height, width, channels), with 1 "
                f"channel if they are grey, got {found}"
            )
        if labels.ndim == 2 and labels.shape[1] > 1:
            raise names.ConfigError(
                f"labels must be one integer per example, got {labels.dtype} "
                f"{labels.shape}; labels.argmax(1) converts one-hot labels"
            )
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            numbers = "; np.unique(labels, return_inverse=True) converts names"
            raise names.ConfigError(
                "labels must be one integer per example, from 0, got "
                f"{labels.dtype} {labels.shape}"
                f"{numbers if labels.dtype.kind in 'UO' else ''}"
            )
        if len(images) != len(labels):
            raise names.ConfigError(
                f"got {len(images)} images and {len(labels)} labels"
            )
        if labels.size and not -(2**31) <= int(labels.min()) <= labels.max() < 2**31:
            raise names.ConfigError(
                f"labels must be class indices, got {labels.min()} to {labels.max()}"
            )
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels.astype(np.int32, copy=False))

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, numbers: Int[np.ndarray, " m"]) -> "Arrays":
        """The examples with the given numbers."""
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
      name: name in the config.
      num_classes: labels are 0 ... num_classes - 1.
      train: training examples.
      test: examples to evaluate on: the test set or the validation part.
      evaluated: which of the two ``test`` is.
      path: directory of the set, where results are cached; '' for none.
      class_names: names of the classes in order; () if unknown.

    Raises:
      ConfigError: on construction, an empty set, images of two shapes, pixels that
        are all 0 or 1, or a label outside the classes.
    """

    name: str
    num_classes: int
    train: Arrays
    test: Arrays
    evaluated: Literal["test", "validation"] = "test"
    path: str = ""
    class_names: tuple[str, ...] = ()

    def __post_init__(self):
        if isinstance(self.num_classes, np.integer):  # as labels.max() + 1 is
            object.__setattr__(self, "num_classes", int(self.num_classes))
        fields = {key: value for key, value in vars(self).items() if key != "name"}
        names.check_fields(f"dataset {self.name!r}", Dataset, fields)
        if self.num_classes < 1:
            raise self._refuse(f"num_classes {self.num_classes} is not positive")
        if self.class_names and len(self.class_names) != self.num_classes:
            raise self._refuse(
                f"got {self.num_classes} classes and {len(self.class_names)} names"
            )
        for split, arrays in (("train", self.train), (self.evaluated, self.test)):
            if not isinstance(arrays, Arrays):
                raise self._refuse(
                    f"{split} must be Arrays(images, labels), got "
                    f"{type(arrays).__name__}"
                )
            if not len(arrays):
                raise self._refuse(f"{split} is empty")
            outside = (arrays.labels < 0) | (arrays.labels >= self.num_classes)
            if outside.any():
                index = int(outside.argmax())
                raise self._refuse(
                    f"label {arrays.labels[index]} of {split} example {index} is "
                    f"outside 0..{self.num_classes - 1}"
                )
            if arrays.images.max() <= 1:
                raise self._refuse(
                    f"pixels of {split} are all 0 or 1; they must range over 0..255"
                )
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise self._refuse(
                f"train images have shape {self.train.images.shape[1:]}, but "
                f"{self.evaluated} images {self.test.images.shape[1:]}"
            )

    def _refuse(self, reason: str) -> names.ConfigError:
        return names.ConfigError(f"dataset {self.name!r}: {reason}")

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
    """Select the training examples of the validation part.

    He et al. (2015), section 4.2, choose the schedule on such a part (45k/5k).
    The examples are drawn at random with a fixed seed and therefore depend only on
    ``count`` and ``size``.

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
    """A permutation of 0 ... size - 1 that depends only on ``seed``.

    It sorts the raw words of NumPy's Philox, a stream that NumPy guarantees across
    versions (unlike that of ``Generator.permutation``).
    """
    words = np.random.Philox(np.random.SeedSequence(seed)).random_raw(size)
    return np.argsort(words, kind="stable")


def _array(field: str, value: Any) -> np.ndarray:
    """Convert images or labels to a NumPy array."""
    try:
        return np.asarray(value)
    except Exception as error:  # lists of several lengths, tensors on a device
        text = " ".join(str(error).split())
        raise names.ConfigError(
            f"{field} must be a NumPy array, got {type(value).__name__}: {text}"
        ) from error


def _range(images: np.ndarray) -> str:
    """The range of images that are not uint8, and how to convert them."""
    if images.dtype.kind not in "fiub" or not images.size:
        return ""
    low, high = images.min(), images.max()
    fitting = "images.astype(np.uint8)"
    if images.dtype.kind == "f" and 0 <= low <= high <= 1:
        fitting = "(255 * images).round().astype(np.uint8)"
    advice = f"; {fitting} converts them" if 0 <= low <= high <= 255 else ""
    return f" from {low:.6g} to {high:.6g}{advice}"
