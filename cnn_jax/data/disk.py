"""Datasets on disk: encoded pictures by number, whole or split for validation.

A *reader* implements a format (`cnn_jax.data.prepared`, `cnn_jax.data.folder`). A
`Part` holds the examples of a split that one run uses. A config section names an
`OnDisk`, which is then loaded into memory or streamed (`cnn_jax.data.streams`).
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import PIL
import simplejpeg
from jaxtyping import Int

from cnn_jax import names
from cnn_jax.data import cache, memory, pictures
from cnn_jax.data.dataset import Arrays, Dataset, held_out

Numbers = Int[np.ndarray, " n"] | Sequence[int]

CHUNK = 4096  # examples fetched at once
# Smaller splits decode so fast that a cache does not pay.
CACHE_FROM = 5_000
STREAM_OR_SMALLER = (
    "stream them from disk with a `stream` section in the dataset (see "
    "configs/resnet50_imagenet.py), or make them smaller with dataset.size"
)


@runtime_checkable
class Reader(Protocol):
    """A format of image-classification sets on disk; it can be pickled.

    Attributes:
      name: name of the dataset, for messages.
      path: directory of the dataset.
      num_classes: labels are 0 ... num_classes - 1.
      channels: 1 (grey) or 3 (RGB).
      sides: height and width of every picture; None for any.
      class_names: names of the classes in order.
    """

    name: str
    path: str
    num_classes: int
    channels: int
    sides: tuple[int | None, int | None]
    class_names: tuple[str, ...]

    def count(self, split: str) -> int:
        """Examples of a split; ConfigError if there is no such split."""

    def fetch(self, split: str, numbers: Sequence[int]) -> list[tuple[bytes, int]]:
        """Encoded pictures and labels; ConfigError names an unreadable file."""

    def where(self, split: str, number: int) -> str:
        """Location of an example, for messages: a file, or a record in a file."""

    def files(self, split: str) -> list[str]:
        """The files that hold a split."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A split, or some of its examples.

    Attributes:
      reader: reader of the dataset.
      split: name of the split.
      numbers: the examples of the split that belong to this part; () for all.
    """

    reader: Reader
    split: str
    numbers: Int[np.ndarray, " n"] | tuple[()] = ()

    def __len__(self) -> int:
        return len(self.numbers) or self.reader.count(self.split)

    def fetch(self, chosen: Numbers) -> list[tuple[bytes, int]]:
        """Encoded pictures and labels of examples of this part.

        Raises:
          ConfigError: one cannot be read, or its label is outside the classes.
        """
        numbers = self._numbers(chosen)
        found = self.reader.fetch(self.split, numbers)
        for number, (_, label) in zip(numbers, found, strict=True):
            if not 0 <= label < self.reader.num_classes:
                raise names.ConfigError(
                    f"{self.reader.where(self.split, number)}: label {label} is "
                    f"outside 0..{self.reader.num_classes - 1}"
                )
        return found

    def where(self, chosen: int) -> str:
        """Location of an example, for messages."""
        return self.reader.where(self.split, self._numbers([chosen])[0])

    def refusal(
        self, chosen: int, error: pictures.PictureError, key: str
    ) -> names.ConfigError:
        """The error for an example that is no picture, or a damaged one.

        Args:
          chosen: number of the example.
          error: the decoder's error.
          key: config key that makes the decodable part acceptable.
        """
        advice = f" ({key}='accept' uses the part that can be decoded)"
        return names.ConfigError(
            f"{self.where(chosen)} is not a readable image: {error}"
            f"{advice if error.acceptable else ''}"
        )

    def key(self, remember: bool) -> str:
        """Key of the part's content, from its files' checksums and its examples.

        Raises:
          ConfigError: a file cannot be read.
        """
        store = cache.Cache(self.reader.path)
        files = self.reader.files(self.split)
        try:
            checksums = store.checksums(files, remember)
        except OSError as error:
            raise names.ConfigError(
                f"{error.filename} cannot be read: {error.strerror}"
            ) from error
        return cache.key(
            files=checksums,
            split=self.split,
            numbers=[int(number) for number in self.numbers],
            channels=self.reader.channels,
        )

    def _numbers(self, chosen: Numbers) -> list[int]:
        numbers = np.asarray(chosen)
        if len(self.numbers):
            numbers = self.numbers[numbers]
        return numbers.tolist()


@dataclasses.dataclass(frozen=True)
class OnDisk:
    """A training set and the set that a run is evaluated on, not yet read.

    Attributes:
      train: training examples.
      test: examples to evaluate on.
      evaluated: 'test', or 'validation' for a part held out of the training set.
      size: side of the images in memory, resized from the central square of each
        picture; 0 to keep pictures unchanged.
      damaged: as in `pictures.decode`, for images in memory.
    """

    train: Part
    test: Part
    evaluated: Literal["test", "validation"]
    size: int = 0
    damaged: pictures.Damaged = "refuse"

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.train.reader.name

    def in_memory(self) -> Dataset:
        """Decode both parts into memory.

        Raises:
          ConfigError: an example cannot be decoded, images of several sizes, or a
            label outside the classes.
        """
        form = self.size, self.damaged
        train = read(self.train.reader, self.train.split, *form)
        if self.evaluated == "validation":
            parts = (
                train.part(np.asarray(self.train.numbers)),
                train.part(np.asarray(self.test.numbers)),
            )
        else:
            test = read(self.test.reader, self.test.split, *form)
            parts = (train, test)
        reader = self.train.reader
        return Dataset(
            reader.name,
            reader.num_classes,
            *parts,
            self.evaluated,
            reader.path,
            reader.class_names,
        )


def open_parts(
    reader: Reader,
    train_split: str,
    test_split: str,
    validation_size: int,
    size: int = 0,
    damaged: pictures.Damaged = "refuse",
) -> OnDisk:
    """The parts of a dataset that a run trains on and is evaluated on.

    Args:
      reader: reader of the dataset.
      train_split: split to train on.
      test_split: split to evaluate on.
      validation_size: 0, or the number of training examples held out and
        evaluated in place of ``test_split`` (see `held_out`), which is then never
        read.
      size: see `OnDisk`.
      damaged: see `OnDisk`.

    Returns:
      Both parts.

    Raises:
      ConfigError: no such split, an empty one, nothing left to train on, or a
        negative size.
    """
    if not 0 <= size <= pictures.LARGEST_SIDE:
        reason = "negative" if size < 0 else f"more than {pictures.LARGEST_SIDE}"
        raise names.ConfigError(f"dataset {reader.name!r}: size {size} is {reason}")
    for split in (train_split, *(() if validation_size else (test_split,))):
        if not reader.count(split):
            raise names.ConfigError(f"dataset {reader.name!r}: {split} is empty")
    if not validation_size:
        parts = Part(reader, train_split), Part(reader, test_split)
        return OnDisk(*parts, "test", size, damaged)
    held = held_out(reader.count(train_split), validation_size)
    train, validation = (
        Part(reader, train_split, np.flatnonzero(mask)) for mask in (~held, held)
    )
    return OnDisk(train, validation, "validation", size, damaged)


def read(
    reader: Reader,
    split: str,
    size: int = 0,
    damaged: pictures.Damaged = "refuse",
) -> Arrays:
    """Decode a whole split, or read it from the cache beside it.

    Args:
      reader: reader of the dataset.
      split: name of the split.
      size: see `OnDisk`.
      damaged: see `OnDisk`.

    Returns:
      Its images and labels, in their order on disk.

    Raises:
      ConfigError: as `OnDisk.in_memory`.
    """
    part = Part(reader, split)
    if len(part) < CACHE_FROM:
        return _decode(part, size, damaged)
    store = cache.Cache(reader.path)
    prefix = f"arrays-{cache.key(split=split, size=size, damaged=damaged)[:8]}"
    # The number of a label depends on the classes of the training split.
    content = {"part": part.key(False), "classes": list(reader.class_names)}
    decoders = [PIL.__version__, simplejpeg.__version__]
    name = f"{prefix}-{cache.key(**content, decoders=decoders)}"
    found = store.read(name)
    if found is not None:
        return Arrays(found["images"], found["labels"])
    arrays = _decode(part, size, damaged)
    store.write(name, {"images": arrays.images, "labels": arrays.labels}, f"{prefix}-*")
    return arrays


def _decode(part: Part, size: int, damaged: pictures.Damaged) -> Arrays:
    images: np.ndarray | None = None
    labels = np.empty(len(part), np.int32)
    for start in range(0, len(part), CHUNK):
        chosen = range(start, min(start + CHUNK, len(part)))
        for index, (encoded, label) in zip(chosen, part.fetch(chosen), strict=True):
            try:
                image = pictures.decode(encoded, part.reader.channels, damaged)
            except pictures.PictureError as error:
                raise part.refusal(index, error, "dataset.damaged") from error
            if size:
                image = pictures.central_square(image, size)
            sides = part.reader.sides if not size else (size, size)
            if any(
                wanted not in (None, found)
                for wanted, found in zip(sides, image.shape, strict=False)
            ):
                raise names.ConfigError(
                    f"{part.where(index)} has {image.shape[:2]} pixels, but the "
                    f"dataset declares {sides}"
                )
            if images is None:
                memory.check(
                    len(part) * image.size,
                    f"dataset {part.reader.name!r}: {len(part):,} images of "
                    f"{image.shape}",
                    STREAM_OR_SMALLER,
                )
                images = np.empty((len(part), *image.shape), np.uint8)
            if image.shape != images.shape[1:]:
                raise names.ConfigError(
                    f"{part.where(index)} has shape {image.shape}, but others "
                    f"{images.shape[1:]}; images in memory must have the same size: "
                    "set dataset.size, or crop them with a `stream` section in the "
                    "dataset (see configs/resnet50_imagenet.py)"
                )
            images[index] = image
            labels[index] = label
    return Arrays(images, labels)
